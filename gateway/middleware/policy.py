"""Which limit holds for a request, and whether the request keeps within what its client may ask for. The decision
is pure (`plan`); the middleware applies it to every task of the request and tells of overrides."""

import hashlib

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway import metrics
from gateway.errors import Forbidden, GatewayError, InvalidBody, TargetNotAllowed
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.answers import limit_body
from gateway.middleware.contracts import Ask, Plan, Planned, TargetCheck
from gateway.models import Client, RateLimit, Task, TaskSpec
from gateway.settings import Settings
from gateway.tracing.context import of_task

log = structlog.get_logger()


async def policy(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Puts a plan for every task on the request: what to store, or why not."""
    settings, guard = request.app[AppKeys.SETTINGS], request.app[AppKeys.GUARD]
    client = request[RequestKeys.CLIENT]
    trace = request[RequestKeys.TRACE]
    plans = [plan(ask, client, settings, guard, trace) for ask in request[RequestKeys.ASKED].asks]
    for refused in plans:
        if isinstance(refused, TargetNotAllowed):
            metrics.egress_refused(refused.kind, "enqueue")
            log.warning("egress_refused", client=client.client_id, reason=refused.message)
    request[RequestKeys.PLANS] = plans
    return await handler(request)


def plan(ask: Ask, client: Client, settings: Settings, guard: TargetCheck, trace: str = "") -> Plan:
    """The task under its policy, or the error it is refused with: queue and host, then override, cost, target."""
    try:
        _check_queue(ask, client)
        if client.allowed_hosts is not None:
            _check_host(ask, client, client.allowed_hosts, guard)
        limit = _limit(ask, client, settings)
        if ask.task.cost > limit.requests_per_min:
            msg = (
                f"{ask.path}.{ask.cost_field}: {ask.task.cost} is more than the limit of {limit.requests_per_min} "
                "requests per minute and would never fit"
            )
            raise InvalidBody(msg)
        refused = guard.check_literal(ask.task.url)
        if refused is not None:
            msg = f"{ask.path}.task.url: {refused.message}"
            raise TargetNotAllowed(msg, refused.kind.label)
    except GatewayError as problem:
        return problem
    return Planned(_spec(ask, limit, trace), limit)


def _check_queue(ask: Ask, client: Client) -> None:
    if client.allowed_queues and ask.task.queue not in client.allowed_queues:
        may = ", ".join(client.allowed_queues)
        msg = f"{ask.path}.queue: client {client.client_id} may use {may}, not {ask.task.queue}"
        raise Forbidden(
            msg,
            error="Queue not allowed",
            extra={"client_id": client.client_id, "queue": ask.task.queue},
        )


def _check_host(ask: Ask, client: Client, allowed: tuple[str, ...], guard: TargetCheck) -> None:
    refused = guard.check_allowed(ask.task.url, allowed)
    if refused is not None:
        msg = f"{ask.path}.task.url: {refused.message}"
        extra = {"client_id": client.client_id}
        raise TargetNotAllowed(msg, refused.kind.label, status=403, error="Host not allowed", extra=extra)


def ceiling(client: Client, settings: Settings) -> RateLimit:
    """How far an override may go: the operator's ceiling or the client's own limit, whichever is higher."""
    return RateLimit(
        max(settings.max_override_concurrent, client.rate_limit.max_concurrent),
        max(settings.max_override_requests_per_min, client.rate_limit.requests_per_min),
    )


def _limit(ask: Ask, client: Client, settings: Settings) -> RateLimit:
    """The request's override, else what the client has (its own, its tier's or the default's, filled in by the
    store)."""
    asked = ask.override
    if asked is None:
        return client.rate_limit
    highest = ceiling(client, settings)
    past = [
        f"{ask.path}.rate_limit.{name}: {wanted} is more than the ceiling of {most} ({setting})"
        for name, wanted, most, setting in (
            ("max_concurrent", asked.max_concurrent, highest.max_concurrent, "MAX_OVERRIDE_CONCURRENT"),
            (
                "requests_per_min",
                asked.requests_per_min,
                highest.requests_per_min,
                "MAX_OVERRIDE_REQUESTS_PER_MIN",
            ),
        )
        if wanted > most
    ]
    if past:
        metrics.override("refused")
        log.warning("override_refused", client=client.client_id, asked=limit_body(asked), ceiling=limit_body(highest))
        raise InvalidBody("; ".join(past))
    metrics.override("applied")
    log.info(
        "override_applied",
        client=client.client_id,
        asked=limit_body(asked),
        applied=limit_body(asked),
        instead_of=limit_body(client.rate_limit),
    )
    return asked


def _spec(ask: Ask, limit: RateLimit, trace: str) -> TaskSpec:
    task = ask.task
    return TaskSpec(
        task,
        limit.requests_per_min,
        0 if ask.override is None else limit.max_concurrent,
        b"" if task.idempotency_key is None else fingerprint(task),
        of_task(trace, task.headers),
    )


def fingerprint(task: Task) -> bytes:
    """16 bytes that are the same for the same queue, url, method, headers and body. Header names are compared
    without case and order, as HTTP does."""
    headers = sorted((name.lower(), value) for name, value in task.headers.items())
    told = msgspec.msgpack.encode((task.queue, task.url, task.method, headers, task.body))
    return hashlib.blake2b(told, digest_size=16).digest()
