"""`GET` and `DELETE /v1/tasks/{task_id}`: how a task stands, and its end before its start."""

from aiohttp import web

from gateway.errors import Conflict, NotFound
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, task_body
from gateway.middleware.reading import client_id_of_query
from gateway.models import State


async def get_task(request: web.Request) -> web.StreamResponse:
    """200 with the task, 404 for what is unknown or another client's."""
    client_id = client_id_of_query(request)
    task_id = request.match_info["task_id"]
    view = await request.app[AppKeys.STORE].tasks.view(client_id, task_id)
    if view is None:
        raise _unknown(client_id, task_id)
    return json_answer(task_body(view))


async def cancel_task(request: web.Request) -> web.StreamResponse:
    """200 with the cancelled task, 409 for what runs or has ended."""
    client_id = client_id_of_query(request)
    task_id = request.match_info["task_id"]
    found = await request.app[AppKeys.STORE].tasks.cancel(client_id, task_id)
    if found is None:
        raise _unknown(client_id, task_id)
    view, cancelled = found
    if not cancelled:
        how = "runs" if view.state is State.RUNNING else f"has ended ({view.state.value})"
        raise Conflict(
            "the task " + how + "; only queued, scheduled and retrying ones can be cancelled",
            extra={"task_id": view.task_id, "state": view.state.value},
        )
    return json_answer(task_body(view))


def _unknown(client_id: str, task_id: str) -> NotFound:
    message = f"client {client_id} has no task {task_id[:100]}"
    return NotFound(message, error="Task not found")
