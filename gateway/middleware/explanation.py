"""Why a task is where it is, in words and in a form that scripts can read."""

from typing import Any

from aiohttp import web

from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, rfc3339
from gateway.middleware.one_task import unknown_task
from gateway.models import Standing, State, TaskView
from gateway.store import Store

_WAITS_LONGER = 2000  # ms of a wait beyond a Retry-After that are the back-off's

Constraint = tuple[str, str, int | None, list[str]]


async def answer_explanation(request: web.Request, client_id: str, task_id: str) -> web.StreamResponse:
    """200 with what holds the task now; `NotFound` where the client has no such task."""
    told = await explained(request.app[AppKeys.STORE], client_id, task_id)
    if told is None:
        raise unknown_task(client_id, task_id)
    return json_answer(told)


async def explained(store: Store, client_id: str, task_id: str) -> dict[str, Any] | None:
    """What holds the task now, None where the client has no such task."""
    standing = await store.tasks.explain(client_id, task_id)
    if standing is None:
        return None
    alive = any(replica.dispatches for replica in await store.replicas.all())
    last_seen = None if alive else await store.replicas.last_dispatcher()
    return explanation(standing, alive=alive, last_seen=last_seen)


def explanation(standing: Standing, *, alive: bool, last_seen: int | None = None) -> dict[str, Any]:
    """The constraint that holds the task, since when as far as it is known, until when where that is certain, and the
    tasks that stand before it. ``alive``: some process makes calls; ``last_seen``: when one last did, Unix ms."""
    view = standing.view
    since: int | None = view.created_at
    until: int | None = None
    blocking: list[str] = []
    if view.state is State.SCHEDULED:
        constraint, until = "not_due", view.next_attempt_at
        message = "it is not due yet"
    elif view.state is State.RETRYING:
        constraint, message, since = _retrying(view)
        until = view.next_attempt_at
    elif view.state is State.RUNNING:
        constraint, since = "running", None
        message = f"attempt {view.attempts} of {view.max_retry + 1} is being made"
    elif view.state is State.QUEUED:
        constraint, message, began, blocking = _queued(standing, alive=alive, last_seen=last_seen)
        # What held others before it came holds it only since then.
        since = max(standing.due_at or view.created_at, began or 0)
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


def _retrying(view: TaskView) -> tuple[str, str, int | None]:
    last = view.last_attempt
    if last is None or last.started_at is None:
        return (
            "waiting_to_retry",
            f"attempt {view.attempts} of {view.max_retry + 1} failed; it waits out its back-off",
            None,
        )
    ended = int(last.started_at + last.duration_ms)
    told = f"attempt {view.attempts} of {view.max_retry + 1} ended with {last.status or last.error}"
    waits = (view.next_attempt_at or ended) - ended
    if last.retry_after is not None and waits < last.retry_after * 1000 + _WAITS_LONGER:
        return "retry_after", f"{told}; the target asked to wait {last.retry_after:g} s (Retry-After)", ended
    return "waiting_to_retry", f"{told}; it waits out its back-off", ended


def _queued(standing: Standing, *, alive: bool, last_seen: int | None) -> Constraint:
    if standing.paused is not None:
        return "paused", "an operator paused the client, or this queue", standing.paused, []
    if not alive:
        return "no_dispatcher", "no process that makes calls is alive (--role all or dispatcher)", last_seen, []
    if standing.in_flight >= standing.bound:
        message = f"{standing.in_flight} calls of the client are in flight, and {standing.bound} are its limit"
        return "concurrency", message, standing.full, standing.holders
    if standing.ahead:
        many = f"{standing.ahead} or more" if standing.more else str(standing.ahead)
        return "behind", f"{many} tasks are ahead of it in its queue", None, []
    return "starting", "nothing holds it; a process with room will start it at its next turn", None, []
