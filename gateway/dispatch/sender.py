"""The only way out: one HTTP call per attempt, told as an `Outcome`. Nothing here retries, follows a
redirect, keeps a cookie or knows Redis; what an outcome means for its task is decided in `dispatcher` and
stored in `store`; how HTTP is spoken is `gateway.dispatch.http`.
"""

import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

import structlog

from gateway import __version__, metrics
from gateway.dispatch.egress import EgressGuard, TargetRefused
from gateway.dispatch.header_names import spellings
from gateway.dispatch.http.answer import Answer
from gateway.dispatch.http.client import Client
from gateway.dispatch.http.errors import CallFailed, InvalidRequest
from gateway.dispatch.http.proxy import Proxy
from gateway.dispatch.retry import parse_retry_after
from gateway.dispatch.signing import SIGNED_HEADERS, signature_headers
from gateway.errors import GatewayError, NotSigned
from gateway.models import Attempt, ClaimedTask, Outcome, Verdict
from gateway.tracing.context import sent

log = structlog.get_logger()

USER_AGENT = f"task-dispatch-gateway/{__version__}"
_RETRIED_STATUSES = frozenset({408, 425, 429})
_FORGED = spellings({"x-task-id", "x-client-id", "x-attempt"})
_SIGNED = _FORGED | SIGNED_HEADERS

# What signs the calls of a client; none: they are not signed. At once where it is known, as for nearly every call.
Keys = Callable[[str], Sequence[bytes] | Awaitable[Sequence[bytes]]]
# Which hosts the calls of a client may go to; None: any.
Hosts = Callable[[str], tuple[str, ...] | Awaitable[tuple[str, ...] | None] | None]


class Sender(Protocol):
    """Makes one attempt."""

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        """One call, at most ``timeout`` seconds in all. Never raises but CancelledError."""


class HttpSender:
    """A `Sender` over HTTP/1.1; an async context manager.

    ``limit``: connections open at once (MAX_IN_FLIGHT); ``proxy``: OUTBOUND_PROXY; ``tls``: who is trusted, the
    system's authorities unless given; ``keys``: what signs a client's calls, and ``hosts``: where they may
    go, both asked for each attempt.
    """

    def __init__(
        self,
        guard: EgressGuard,
        limit: int,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        keys: Keys | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self._guard = guard
        self._limit = limit
        self._proxy = Proxy.parse(proxy) if proxy else None
        self._tls = tls
        self._keys = keys
        self._hosts = hosts
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        tls = self._tls or ssl.create_default_context()
        tls.set_alpn_protocols(["http/1.1"])
        self._client = Client(self._guard, self._limit, tls, self._proxy)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        """One call, at most ``timeout`` seconds from the name look-up to the last byte read of the answer.

        2xx is DELIVERED; 408, 425, 429, 5xx, network errors and timeouts are RETRY; all else is REFUSED,
        also a target the egress rule forbids. Never raises but CancelledError.
        """
        started_at = time.time()
        started = time.monotonic()
        answer = Answer()
        error: str | None = None
        try:
            if self._client is None:
                raise RuntimeError("the sender is not open")
            keys = self._keys(task.client_id) if self._keys is not None else ()
            if not isinstance(keys, Sequence):
                keys = await keys
            headers = _headers(task, _SIGNED if keys else _FORGED)
            if keys:
                headers += signature_headers(task.task_id, int(started_at), task.body, keys)
            allowed = self._hosts(task.client_id) if self._hosts is not None else None
            if allowed is not None and not isinstance(allowed, tuple):
                allowed = await allowed
            await self._client.call(
                task.method,
                task.url,
                headers=headers,
                body=task.body,
                answer=answer,
                timeout=timeout,
                allowed=allowed,
            )
            verdict, reason = _judge_status(answer.status)
        except Exception as exc:
            # Any error at all becomes an outcome: the task's fate must not depend on which layer it came
            # from.
            verdict, reason = _judge_error(exc, task)
            error = reason
        attempt = Attempt(
            status=answer.status or None,
            error=error,
            started_at=int(started_at * 1000),
            duration_ms=round((time.monotonic() - started) * 1000, 3),
            body=answer.body.decode("utf-8", errors="replace") if answer.status else None,
        )
        retry_after = parse_retry_after(answer.retry_after, time.time()) if answer.retry_after else None
        return Outcome(verdict=verdict, attempt=attempt, reason=reason, retry_after=retry_after)


def _judge_status(status: int) -> tuple[Verdict, str]:
    reason = f"http {status}"
    if 200 <= status < 300:
        return Verdict.DELIVERED, reason
    if status in _RETRIED_STATUSES or 500 <= status < 600:
        return Verdict.RETRY, reason
    return Verdict.REFUSED, reason


def _judge_error(exc: Exception, task: ClaimedTask) -> tuple[Verdict, str]:
    match exc:
        case CallFailed():
            return Verdict.RETRY, exc.reason
        case InvalidRequest():
            return Verdict.REFUSED, exc.reason
        case TargetRefused():
            metrics.egress_refused(exc.kind.label, "dial")
            log.warning("egress_refused", client=task.client_id, task=task.task_id, reason=exc.reason)
            return Verdict.REFUSED, exc.reason
        case NotSigned():  # another replica may have the key, and an operator may put it back
            return Verdict.RETRY, exc.reason
        case GatewayError():  # of the store, whose log says more
            return Verdict.RETRY, "client settings unreadable"
    log.exception("attempt_failed_unexpectedly", client=task.client_id, task=task.task_id)
    return Verdict.RETRY, "internal error"


def _headers(task: ClaimedTask, forged: frozenset[str]) -> list[tuple[str, str]]:
    """The task's headers in their own spelling, and the gateway's, which a task can't forge but for
    Idempotency-Key."""
    names = set()
    headers = []
    for name, value in task.headers.items():
        lower = name.lower()
        if lower not in forged:
            names.add(lower)
            headers.append((name, value))
    headers.append(("X-Task-ID", task.task_id))
    headers.append(("X-Client-ID", task.client_id))
    headers.append(("X-Attempt", str(task.attempt)))
    if task.trace:
        headers += sent(task.trace, task.headers)
    if "idempotency-key" not in names:
        headers.append(("Idempotency-Key", task.task_id))
    if "user-agent" not in names:
        headers.append(("User-Agent", USER_AGENT))
    return headers
