"""`POST /v1/enqueue`: hands the one prepared task to the store and words its answer."""

import asyncio
import contextvars
from typing import Any

import structlog
from aiohttp import web

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.keys import AppKeys, RequestKeys
from gateway.log import tells_debug
from gateway.middleware.answers import json_answer, limit_body
from gateway.middleware.contracts import Dispatching, Planned
from gateway.middleware.window import NotAdmitted
from gateway.models import Admission, Admitted, Duplicate
from gateway.store import Store

log = structlog.get_logger()

# The dispatcher's tasks must not inherit one request's log fields.
_CLEAN = contextvars.Context()


async def enqueue(request: web.Request) -> web.StreamResponse:
    """201 once the store has the task, 200 for one it already had."""
    [plan] = request[RequestKeys.PLANS]
    if not isinstance(plan, Planned):
        raise plan
    client = request[RequestKeys.CLIENT]
    app = request.app
    admission = await _admit(
        app[AppKeys.STORE], app[AppKeys.DISPATCHER], client.client_id, plan, create=request[RequestKeys.CREATE]
    )
    if not isinstance(admission, Admitted | Duplicate):
        raise NotAdmitted(admission, plan)
    request[RequestKeys.WINDOW] = (admission.window, plan.limit.requests_per_min)
    status, body = enqueued_body(admission, plan, client.client_id)
    return json_answer(body, status)


def enqueued_body(admission: Admitted | Duplicate, plan: Planned, client_id: str) -> tuple[int, dict[str, Any]]:
    """Status and body for a task that the store has."""
    fresh = isinstance(admission, Admitted)
    body = {
        "status": "enqueued" if fresh else "duplicate",
        "task_id": admission.task_id,
        "queue": plan.spec.task.queue,
        "client_id": client_id,
        "rate_limit": limit_body(plan.limit),
    }
    return 201 if fresh else 200, body


async def _admit(
    store: Store, dispatcher: Dispatching | None, client_id: str, plan: Planned, *, create: bool
) -> Admission:
    local = dispatcher is not None and dispatcher.has_room()
    try:
        admission = await store.tasks.admit(client_id, plan.spec, create=create, local=local)
    except StoreUnavailable as problem:
        raise explained(problem) from None
    if isinstance(admission, Admitted):
        note_admitted(admission, client_id, plan.spec.task.queue, dispatcher)
    return admission


def note_admitted(admission: Admitted, client_id: str, queue: str, dispatcher: Dispatching | None) -> None:
    """Tells the metrics, the log and this process's dispatcher of a task that the store took."""
    metrics.enqueued(client_id, queue)
    if admission.created:
        log.info("client_created", client=client_id)
    if tells_debug():
        log.debug("task_enqueued", client=client_id, task=admission.task_id, queue=queue)
    if dispatcher is not None and not admission.scheduled:
        asyncio.get_running_loop().call_soon(dispatcher.admitted, client_id, context=_CLEAN)


def explained(problem: StoreUnavailable) -> StoreUnavailable:
    """The store's problem, with what it means for a task where nobody knows whether it was stored."""
    if not problem.unknown:
        return problem
    message = f"{problem.message} The task may exist; sent again with the same idempotency_key it is stored once."
    return StoreUnavailable(message, unknown=True)
