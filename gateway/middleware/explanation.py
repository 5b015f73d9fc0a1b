"""Why a task is where it is, in words and in a form that scripts can read."""

from typing import Any

from aiohttp import web

from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, rfc3339
from gateway.middleware.one_task import unknown_task
from gateway.models import Standing, State
from gateway.store.tasks import EXPLAINED

_NAMED = 10  # tasks in flight


async def answer_explanation(request: web.Request, client_id: str, task_id: str) -> web.StreamResponse:
    """200 with what holds the task now; `NotFound` where the client has no such task."""
    store = request.app[AppKeys.STORE]
    standing = await store.tasks.explain(client_id, task_id)
    if standing is None:
        raise unknown_task(client_id, task_id)
    alive = any(replica.dispatches for replica in await store.replicas.all())
    return json_answer(explanation(standing, alive=alive))


def explanation(standing: Standing, *, alive: bool) -> dict[str, Any]:
    """The constraint that holds the task, since when as far as it is known, until when where that is certain, and the
    tasks that stand before it. ``alive``: some process makes calls."""
    view = standing.view
    since: int | None = view.created_at
    until: int | None = None
    blocking: list[str] = []
    if view.state is State.SCHEDULED:
        constraint, until = "not_due", view.next_attempt_at
        message = "it is not due yet"
    elif view.state is State.RETRYING:
        last = view.last_attempt
        constraint, until = "waiting_to_retry", view.next_attempt_at
        since = None if last is None or last.started_at is None else int(last.started_at + last.duration_ms)
        failed = "failed" if last is None else f"ended with {last.status or last.error}"
        waits = "it waits out its back-off, or the target's Retry-After"
        message = f"attempt {view.attempts} of {view.max_retry + 1} {failed}; {waits}"
    elif view.state is State.RUNNING:
        constraint, since = "running", None
        message = f"attempt {view.attempts} of {view.max_retry + 1} is being made"
    elif view.state is State.QUEUED:
        constraint, message, blocking = _queued(standing, alive=alive)
    else:
        constraint, since = "ended", view.finished_at
        message = f"it has ended: {view.state.value}" + (f", {view.reason}" if view.reason else "")
    return {
        "task_id": view.task_id,
        "client_id": view.client_id,
        "queue": view.queue,
        "state": view.state.value,
        "constraint": constraint,
        "message": message,
        "since": rfc3339(since),
        "until": rfc3339(until),
        "in_flight": standing.in_flight,
        "max_concurrent": standing.bound,
        "blocking": blocking,
    }


def _queued(standing: Standing, *, alive: bool) -> tuple[str, str, list[str]]:
    if standing.paused:
        return "paused", "an operator paused the client, or this queue", []
    if not alive:
        return "no_dispatcher", "no process that makes calls is alive (--role all or dispatcher)", []
    if standing.in_flight >= standing.bound:
        message = f"{standing.in_flight} calls of the client are in flight, and {standing.bound} are its limit"
        return "concurrency", message, standing.holders[:_NAMED]
    if standing.ahead:
        many = f"{standing.ahead} or more" if standing.ahead >= EXPLAINED else str(standing.ahead)
        return "behind", f"{many} tasks are ahead of it in its queue", []
    return "starting", "nothing holds it; a process with room will start it at its next turn", []
