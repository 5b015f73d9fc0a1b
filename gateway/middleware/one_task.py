"""What a client and an operator ask of one task alike: how it stands, and its end before its start."""

from aiohttp import web

from gateway.errors import Conflict, NotFound
from gateway.keys import AppKeys
from gateway.models import State, TaskView


async def find_task(request: web.Request, client_id: str, task_id: str) -> TaskView:
    """The task; raises `NotFound` for what is unknown or another client's."""
    view = await request.app[AppKeys.STORE].tasks.view(client_id, task_id)
    if view is None:
        raise unknown_task(client_id, task_id)
    return view


async def cancel_task(request: web.Request, client_id: str, task_id: str) -> TaskView:
    """The task, cancelled; raises `Conflict` for what runs or has ended."""
    found = await request.app[AppKeys.STORE].tasks.cancel(client_id, task_id)
    if found is None:
        raise unknown_task(client_id, task_id)
    view, cancelled = found
    if not cancelled:
        how = "runs" if view.state is State.RUNNING else f"has ended ({view.state.value})"
        raise Conflict(
            "the task " + how + "; only queued, scheduled and retrying ones can be cancelled",
            extra={"task_id": view.task_id, "state": view.state.value},
        )
    return view


def unknown_task(client_id: str, task_id: str) -> NotFound:
    """The 404, in the words that every task path has."""
    message = f"client {client_id} has no task {task_id[:100]}"
    return NotFound(message, error="Task not found")
