"""The client's window towards the caller: the store's refusal as 429 with `Retry-After`, and what is left of the
window as headers of every answer to a known client. Counting itself is the store's."""

import math

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway import metrics
from gateway.errors import (
    ClientRefused,
    Conflict,
    GatewayError,
    InvalidBody,
    ServiceUnavailable,
    TooManyRequests,
)
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.contracts import Planned
from gateway.models import (
    Client,
    GatewayFull,
    KeyConflict,
    QueueFull,
    RateLimited,
    TooManyClients,
    TooManyQueues,
    Window,
)

log = structlog.get_logger()

Refusal = KeyConflict | RateLimited | QueueFull | GatewayFull | TooManyQueues | TooManyClients

QUEUE_FULL_RETRY = 5  # seconds; how fast a queue drains depends on its targets


class NotAdmitted(Exception):
    """The store did not take the task of this plan."""

    def __init__(self, refusal: Refusal, plan: Planned) -> None:
        super().__init__()
        self.refusal = refusal
        self.plan = plan


async def window(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around the handler, which leaves the window it was told on the request, or raises `NotAdmitted`. Where the
    store was not asked, since the body or the policy refused everything, it is looked at here."""
    try:
        malformed = request[RequestKeys.ASKED].problem
        if malformed is not None:
            raise malformed
        response = await handler(request)
    except NotAdmitted as outcome:
        answer = refused(outcome.refusal, outcome.plan, request[RequestKeys.CLIENT])
        answer.headers.update(window_headers(outcome.refusal.window, outcome.plan.limit.requests_per_min))
        raise answer from None
    except ServiceUnavailable:
        raise
    except GatewayError as problem:
        problem.headers.update(await _present_headers(request))
        raise
    told = request.get(RequestKeys.WINDOW)
    response.headers.update(await _present_headers(request) if told is None else window_headers(*told))
    return response


async def _present_headers(request: web.Request) -> dict[str, str]:
    """The window as it stands; none where Redis does not answer, which a refusal does not need."""
    client = request[RequestKeys.CLIENT]
    try:
        usage = await request.app[AppKeys.STORE].windows.usage(client.client_id)
    except ServiceUnavailable:
        return {}
    return window_headers(usage.window, client.rate_limit.requests_per_min)


def window_headers(seen: Window, limit: int) -> dict[str, str]:
    """The rate-limit headers (IETF draft-ietf-httpapi-ratelimit-headers, and the older `X-` ones).

    >>> window_headers(Window(used=1, reset=60, now=1700000000.2), 50)["RateLimit"]
    '"client";r=49;t=60'
    """
    return dict(line.split(": ", 1) for line in window_lines(seen, limit).splitlines())


def window_lines(seen: Window, limit: int) -> str:
    """The same as they stand in the head of an answer."""
    remaining = max(0, limit - seen.used)
    return (
        f'RateLimit-Policy: "client";q={limit};w=60\r\n'
        f'RateLimit: "client";r={remaining};t={seen.reset}\r\n'
        f"X-RateLimit-Limit: {limit}\r\n"
        f"X-RateLimit-Remaining: {remaining}\r\n"
        f"X-RateLimit-Reset: {math.ceil(seen.now + seen.reset)}\r\n"
    )


def refused(refusal: Refusal, plan: Planned, client: Client) -> GatewayError:
    """The answer to a task that the store did not take; also tells the log and the metrics of a full window."""
    who = client.client_id
    match refusal:
        case RateLimited():
            return _rate_limited(refusal, plan, client)
        case QueueFull(what=what):
            metrics.queue_full(who)
            message = (
                f"client {who} has as many {'tasks' if what == 'tasks' else 'bytes of tasks'} waiting as it may; "
                "try again when some have run"
            )
            return TooManyRequests(
                message,
                error="Queue full",
                extra={"client_id": who},
                headers={"Retry-After": str(QUEUE_FULL_RETRY)},
            )
        case GatewayFull(what=what):
            name = "MAX_QUEUED" if what == "tasks" else "MAX_QUEUED_BYTES"
            message = f"the gateway has as much waiting as it may, over all clients ({name}); try again shortly"
            return ServiceUnavailable(message, retry_after=QUEUE_FULL_RETRY)
        case KeyConflict(task_id=task_id):
            return Conflict(
                "the idempotency key was used for a different task (queue, url, method, headers or body differ)",
                extra={"client_id": who, "task_id": task_id},
            )
        case TooManyQueues():
            return InvalidBody(
                f"$.queue: client {who} already uses as many queues as it may (MAX_QUEUES_PER_CLIENT); "
                f"{plan.spec.task.queue} would be one more"
            )
        case TooManyClients():
            return ClientRefused(
                "unknown client",
                f"client {who} does not exist and no more are created (MAX_CLIENTS); an operator creates it",
                extra={"client_id": who},
            )


def _rate_limited(refusal: RateLimited, plan: Planned, client: Client) -> GatewayError:
    limit = plan.limit.requests_per_min
    current = refusal.window.used + plan.spec.task.cost
    metrics.rate_limited(client.client_id, client.tier)
    log.info(
        "rate_limited",
        client=client.client_id,
        tier=client.tier,
        requests_per_min=limit,
        current=current,
    )
    return TooManyRequests(
        f"exceeded {limit} requests per minute (current: {current})",
        extra={"client_id": client.client_id, "requests_per_min": limit},
        headers={"Retry-After": str(max(1, refusal.retry_after))},
    )
