"""The only way out: one HTTP call per attempt, told as an `Outcome`. Nothing here retries, follows a
redirect, keeps a cookie or knows Redis; what an outcome means for its task is decided in `dispatcher` and
stored in `store`; how HTTP is spoken is `gateway.dispatch.http`.
"""

import asyncio
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

    def send(self, task: ClaimedTask, timeout: float) -> Awaitable[Outcome]:
        """One call, at most ``timeout`` seconds in all; cancelled, it is broken off. Raises CancelledError alone."""


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

    def send(self, task: ClaimedTask, timeout: float) -> asyncio.Future[Outcome]:
        """One call, at most ``timeout`` seconds from the name look-up to the last byte read of the answer; begun when
        this returns, and without a task of the loop where a connection is there already.

        2xx is DELIVERED; 408, 425, 429, 5xx, network errors and timeouts are RETRY; all else is REFUSED,
        also a target the egress rule forbids. Never raises but CancelledError.
        """
        sending = _Sending(task)
        try:
            keys = self._keys(task.client_id) if self._keys is not None else ()
            allowed = None
            if isinstance(keys, list | tuple):
                allowed = self._hosts(task.client_id) if self._hosts is not None else None
                if allowed is None or isinstance(allowed, tuple):
                    self._call(sending, timeout, keys, allowed)
                    return sending
            sending.stop = asyncio.create_task(self._ask(sending, timeout, keys, allowed)).cancel
        except Exception as error:
            sending.ended(error)
        return sending

    async def _ask(
        self,
        sending: "_Sending",
        timeout: float,
        keys: Sequence[bytes] | Awaitable[Sequence[bytes]],
        allowed: tuple[str, ...] | Awaitable[tuple[str, ...] | None] | None,
    ) -> None:
        try:
            if isinstance(keys, Awaitable):
                keys = await keys
                # Not before: where a call may go can change meanwhile.
                allowed = self._hosts(sending.task.client_id) if self._hosts is not None else None
            if allowed is not None and not isinstance(allowed, tuple):
                allowed = await allowed
            self._call(sending, timeout, keys, allowed)
        except Exception as error:
            sending.ended(error)
        except asyncio.CancelledError:
            sending.cancel()  # as it is already, unless it was not who waits for it that broke it off
            raise

    def _call(
        self, sending: "_Sending", timeout: float, keys: Sequence[bytes], allowed: tuple[str, ...] | None
    ) -> None:
        if self._client is None:
            raise RuntimeError("the sender is not open")
        task = sending.task
        headers = _headers(task, _SIGNED if keys else _FORGED)
        if keys:
            headers += signature_headers(task.task_id, int(sending.started_at), task.body, keys)
        sending.stop = self._client.call(
            task.method,
            task.url,
            headers=headers,
            body=task.body,
            answer=sending.answer,
            timeout=timeout,
            ended=sending.ended,
            allowed=allowed,
        )


class _Sending(asyncio.Future[Outcome]):
    """One attempt under way; cancelled, it is broken off. ``stop`` is what does that."""

    __slots__ = ("_started", "answer", "started_at", "stop", "task")

    def __init__(self, task: ClaimedTask) -> None:
        super().__init__()
        self.task = task
        self.started_at = time.time()
        self.answer = Answer()
        self.stop: Callable[[], object] | None = None
        self._started = time.monotonic()

    def cancel(self, msg: object = None) -> bool:
        """See `asyncio.Future.cancel`."""
        stop, self.stop = self.stop, None
        if not super().cancel(msg):
            return False
        if stop is not None:
            stop()
        return True

    def ended(self, error: Exception | None) -> None:
        """Any error at all becomes an outcome: the task's fate must not depend on which layer it came from."""
        self.stop = None  # it refers to this, which would else wait for the collector of cycles
        if self.done():
            return
        try:
            self.set_result(self._outcome(error))
        except Exception as defect:  # who waits must hear of it
            self.set_exception(defect)

    def _outcome(self, error: Exception | None) -> Outcome:
        answer = self.answer
        verdict, reason = _judge_status(answer.status) if error is None else _judge_error(error, self.task)
        attempt = Attempt(
            status=answer.status or None,
            error=None if error is None else reason,
            started_at=int(self.started_at * 1000),
            duration_ms=round((time.monotonic() - self._started) * 1000, 3),
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
    log.error("attempt_failed_unexpectedly", client=task.client_id, task=task.task_id, exc_info=exc)
    return Verdict.RETRY, "internal error"


def _headers(task: ClaimedTask, forged: frozenset[str]) -> list[tuple[str, str]]:
    """The task's headers in their own spelling, and the gateway's, which a task can't forge but for
    Idempotency-Key."""
    own = {
        "x-task-id": ("X-Task-ID", task.task_id),
        "x-client-id": ("X-Client-ID", task.client_id),
        "x-attempt": ("X-Attempt", str(task.attempt)),
        "idempotency-key": ("Idempotency-Key", task.task_id),
        "user-agent": ("User-Agent", USER_AGENT),
    }
    headers = []
    for name, value in task.headers.items():
        lower = name.lower()
        if lower not in forged:
            own.pop(lower, None)
            headers.append((name, value))
    headers += own.values()
    if task.trace:
        headers += sent(task.trace, task.headers)
    return headers
