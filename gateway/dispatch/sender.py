"""The only way out: one HTTP call per attempt, told as an `Outcome`. Nothing here retries, follows a
redirect, keeps a cookie or knows Redis; what an outcome means for its task is decided in `dispatcher` and
stored in `store`.
"""

import asyncio
import errno
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import aiohttp
import structlog
from aiohttp.typedefs import LooseHeaders
from multidict import CIMultiDict
from yarl import URL

from gateway import __version__, metrics
from gateway.dispatch.egress import EgressGuard, TargetRefused, literal_address
from gateway.dispatch.retry import parse_retry_after
from gateway.models import Attempt, ClaimedTask, Outcome, Verdict

log = structlog.get_logger()

KEPT_BYTES = 4 * 1024
READ_BYTES = 64 * 1024
# A host that swallows packets would otherwise hold one of the client's slots for the whole of a long timeout.
CONNECT_SECONDS = 30.0
USER_AGENT = f"task-dispatch-gateway/{__version__}"
_RETRIED_STATUSES = frozenset({408, 425, 429})
# What aiohttp would add by itself; the target gets the task's headers, not ours.
_NO_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type")
_ERRNO_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "host unreachable",
    errno.ETIMEDOUT: "connect timeout",
}

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str | int, ...]]


class Sender(Protocol):
    """Makes one attempt."""

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        """One call, at most ``timeout`` seconds in all. Never raises but CancelledError."""


class _CallBroken(aiohttp.ClientError):
    """The connection dropped after the request may have left."""


@dataclass(slots=True)
class _Dial:
    """What the guard said while one call connected; the connector's hook sees no request, hence the context
    variable."""

    host: str
    refused: TargetRefused | None = None
    allowed: bool = False


_dial: ContextVar[_Dial | None] = ContextVar("gateway_dial", default=None)


async def _call_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending an idempotent request a second time when a reused connection drops.

    It does so on exactly the two errors below; a middleware sees each single sending, so renaming them here
    makes an attempt one call without touching the session's private switch.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise  # never connected, and never sent again
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise _CallBroken from exc


class AiohttpSender:
    """A `Sender` on one aiohttp session. ``limit``: connections open at once (MAX_IN_FLIGHT). An async
    context manager."""

    def __init__(self, guard: EgressGuard, limit: int) -> None:
        self._guard = guard
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limit, socket_factory=self._socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=_NO_AUTO_HEADERS,
            middlewares=(_call_once,),
            # The whole call is bounded in `send`, by the task's own time.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _socket(self, addr_info: AddrInfo) -> socket.socket:
        """Judge every address at the moment it is dialled: what was looked up before may have changed
        since."""
        family, kind, proto, _, sockaddr = addr_info
        dial = _dial.get()
        try:
            self._guard.check_dial(str(sockaddr[0]), int(sockaddr[1]), dial.host if dial else None)
        except TargetRefused as exc:
            if dial:
                dial.refused = exc
            raise
        if dial:
            dial.allowed = True
        return socket.socket(family, kind, proto)

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        """One call, at most ``timeout`` seconds from the name look-up to the last byte read of the answer.

        2xx is DELIVERED; 408, 425, 429, 5xx, network errors and timeouts are RETRY; all else is REFUSED,
        also a target the egress rule forbids. Never raises but CancelledError.
        """
        started_at = int(time.time() * 1000)
        started = time.monotonic()
        call = _Call()
        dial = _Dial(host="")
        token = _dial.set(dial)
        try:
            async with asyncio.timeout(timeout):
                await self._call(task, call, dial)
            verdict, reason = _judge_status(call.status)
        except Exception as exc:
            # Any error at all becomes an outcome: the task's fate must not depend on which layer it came
            # from.
            verdict, reason = _judge_error(exc, dial)
            call.error = reason
            if reason == "internal error":
                log.exception("attempt_failed_unexpectedly", client=task.client_id, task=task.task_id)
            if reason.startswith("target not allowed"):
                metrics.egress_refused()
                log.warning("egress_refused", client=task.client_id, task=task.task_id, reason=reason)
        finally:
            _dial.reset(token)
        attempt = Attempt(
            status=call.status or None,
            error=call.error,
            started_at=started_at,
            duration_ms=round((time.monotonic() - started) * 1000, 3),
            body=call.body.decode("utf-8", errors="replace") if call.status else None,
        )
        return Outcome(verdict=verdict, attempt=attempt, reason=reason, retry_after=call.retry_after)

    async def _call(self, task: ClaimedTask, call: "_Call", dial: _Dial) -> None:
        if self._session is None:
            raise RuntimeError("the sender is not open")
        url = _url(task.url)
        dial.host = url.raw_host or ""
        async with self._session.request(
            task.method, url, headers=_headers(task), data=task.body, allow_redirects=False
        ) as response:
            call.status = response.status
            call.retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
            read = 0
            async for chunk in response.content.iter_any():
                if len(call.body) < KEPT_BYTES:
                    call.body += chunk[: KEPT_BYTES - len(call.body)]
                read += len(chunk)
                if read >= READ_BYTES:
                    # Closed, not released: the rest of a huge answer is never pulled in to save a connection.
                    response.close()
                    break


@dataclass(slots=True)
class _Call:
    """What is known of the answer so far; survives an error halfway through it."""

    status: int = 0
    body: bytes = b""
    error: str | None = None
    retry_after: float | None = None


def _judge_status(status: int) -> tuple[Verdict, str]:
    reason = f"http {status}"
    if 200 <= status < 300:
        return Verdict.DELIVERED, reason
    if status in _RETRIED_STATUSES or 500 <= status < 600:
        return Verdict.RETRY, reason
    return Verdict.REFUSED, reason


def _judge_error(exc: Exception, dial: _Dial) -> tuple[Verdict, str]:
    # Refused only if no address of the name was allowed: `localhost` may be ::1 (not allowed) and 127.0.0.1
    # (allowed, but down just now), and that is worth another attempt.
    if dial.refused is not None and not dial.allowed and isinstance(exc, OSError):
        return Verdict.REFUSED, dial.refused.reason
    if isinstance(exc, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Verdict.REFUSED, "invalid url"
    if isinstance(exc, ValueError) and not isinstance(exc, aiohttp.ClientError):
        return Verdict.REFUSED, "invalid request"
    return Verdict.RETRY, _network_reason(exc)


def _network_reason(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientSSLError):
        return "tls error"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return _connector_reason(exc)
    for kind, reason in _REASONS:
        if isinstance(exc, kind):
            return reason
    return "internal error"


def _connector_reason(exc: aiohttp.ClientConnectorError) -> str:
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "name not resolved"
    return _ERRNO_REASONS.get(exc.os_error.errno or 0, "connection failed")


# The first that matches, so the narrower ones come first.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ConnectionTimeoutError, "connect timeout"),
    (TimeoutError, "timeout"),
    (_CallBroken, "connection closed"),
    (aiohttp.ClientPayloadError, "response cut off"),
    (aiohttp.ClientResponseError, "invalid response"),
    (aiohttp.ClientError, "connection failed"),
    (OSError, "connection failed"),
)


def _url(text: str) -> URL:
    """The task's URL as it was given: yarl would tidy up escapes and dots that the target may tell apart."""
    plain = text.isascii() and text.isprintable() and " " not in text
    url = URL(text, encoded=plain)
    address = literal_address(url.raw_host or "")
    if address is not None and address.version == 4 and str(address) != url.raw_host:
        # aiohttp refuses http://2130706433/; dial what it stands for, past the same check as any other.
        return url.with_host(str(address))
    return url


def _headers(task: ClaimedTask) -> LooseHeaders:
    """The task's headers in their own spelling, and the gateway's, which a task can't forge but for
    Idempotency-Key."""
    headers = CIMultiDict(task.headers)
    for name in ("X-Task-ID", "X-Client-ID", "X-Attempt"):
        headers.popall(name, None)
    headers["X-Task-ID"] = task.task_id
    headers["X-Client-ID"] = task.client_id
    headers["X-Attempt"] = str(task.attempt)
    headers.setdefault("Idempotency-Key", task.task_id)
    headers.setdefault("User-Agent", USER_AGENT)
    return headers
