"""`POST /v1/enqueue`: hands the one prepared task to the store and words its answer."""

import asyncio
import contextvars

import msgspec
import structlog
from aiohttp import web

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.keys import AppKeys, RequestKeys
from gateway.log import tells_debug
from gateway.middleware.contracts import Dispatching, Planned
from gateway.middleware.window import NotAdmitted
from gateway.models import Admission, Admitted, Duplicate, RateLimit
from gateway.store import Store

log = structlog.get_logger()

# The dispatcher's tasks must not inherit one request's log fields.
_CLEAN = contextvars.Context()


class _Enqueued(msgspec.Struct, frozen=True, gc=False):
    status: str
    task_id: str
    queue: str
    client_id: str
    rate_limit: RateLimit


_encode = msgspec.json.Encoder().encode  # half of what a dict takes with orjson


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
    status, body = enqueued(admission, plan, client.client_id)
    return web.Response(body=body, status=status, content_type="application/json")


def enqueued(admission: Admitted | Duplicate, plan: Planned, client_id: str) -> tuple[int, bytes]:
    """Status and body for a task that the store has."""
    status, text = (201, "enqueued") if isinstance(admission, Admitted) else (200, "duplicate")
    return status, _encode(_Enqueued(text, admission.task_id, plan.spec.task.queue, client_id, plan.limit))


async def _admit(
    store: Store, dispatcher: Dispatching | None, client_id: str, plan: Planned, *, create: bool
) -> Admission:
    try:
        admission = await store.tasks.admit(client_id, plan.spec, create=create, claimer=claimer_of(dispatcher))
    except StoreUnavailable as problem:
        raise explained(problem) from None
    if isinstance(admission, Admitted):
        note_admitted(admission, client_id, plan.spec.task.queue, dispatcher)
    return admission


def claimer_of(dispatcher: Dispatching | None) -> Dispatching | None:
    """Who claims what is admitted now: this process's dispatcher, where it has room for it."""
    return dispatcher if dispatcher is not None and dispatcher.has_room() else None


def note_admitted(admission: Admitted, client_id: str, queue: str, dispatcher: Dispatching | None) -> None:
    """Tells the metrics, the log and this process's dispatcher of a task that the store took; None: somebody else tells
    the dispatcher."""
    metrics.enqueued(client_id, queue)
    if admission.created:
        log.info("client_created", client=client_id)
    if tells_debug():
        log.debug("task_enqueued", client=client_id, task=admission.task_id, queue=queue)
    if dispatcher is not None and not admission.scheduled and not admission.claimed:
        wake(dispatcher, client_id)


def wake(dispatcher: Dispatching, client_id: str) -> None:
    """Tells this process's dispatcher that the client has a new task."""
    asyncio.get_running_loop().call_soon(dispatcher.admitted, client_id, context=_CLEAN)


def explained(problem: StoreUnavailable) -> StoreUnavailable:
    """The store's problem, with what it means for a task where nobody knows whether it was stored."""
    if not problem.unknown:
        return problem
    message = f"{problem.message} The task may exist; sent again with the same idempotency_key it is stored once."
    return StoreUnavailable(message, unknown=True)
