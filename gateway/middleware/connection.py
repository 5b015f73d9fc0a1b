"""A connection within bounds: how many an address may have, for how long the head of a request may take, and for how
long an answer may stay unread. What is said on it is aiohttp's."""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web
from multidict import CIMultiDict

from gateway import metrics
from gateway.errors import GatewayError
from gateway.middleware.limits import Limits
from gateway.middleware.request_id import HEADER, new_request_id
from gateway.middleware.security_headers import harden

if TYPE_CHECKING:
    from aiohttp.web_server import Server

HEAD_BYTES: Final = 64 * 1024
HEAD_DEADLINE = 10.0  # seconds for the head of a request; the one of a new connection begins with it
SEND_DEADLINE = 30.0  # seconds in which a caller takes nothing of what waits for it; then it is taken for gone
LINGER: Final = 1.0  # seconds in which what is still sent is read, so that the caller gets to see its answer


class BoundedConnection(web.RequestHandler):
    """Refuses itself where its address has too many, and ends where a head does not, or an answer is not read."""

    __slots__ = ("_counted", "_head_bytes", "_head_timer", "_limits", "_place", "_send_timer")

    def __init__(self, manager: "Server", *, limits: Limits, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._limits = limits
        self._counted = False
        self._place: str | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of a head that is not complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counted first; then its first head is awaited."""
        peer = transport.get_extra_info("peername")
        try:
            self._place = self._limits.connected(str(peer[0]) if peer else None)
        except GatewayError as problem:
            self.transport = transport  # type: ignore[assignment]
            self._end(problem)
            return
        self._counted = True
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(HEAD_DEADLINE, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Counted no more."""
        if self._counted:
            self._limits.disconnected(self._place)
            self._counted = False
        self.head_arrived()
        self._read_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits for the caller than it takes: it has a while to begin."""
        super().pause_writing()
        self._send_timer = self._loop.call_later(SEND_DEADLINE, self._is_not_read)

    def resume_writing(self) -> None:
        """It has taken what waited."""
        self._read_on()
        super().resume_writing()

    def _read_on(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _is_not_read(self) -> None:
        self._send_timer = None
        if self.transport is not None:
            metrics.connection_refused("unread")
            self.transport.abort()  # to close would wait for it again

    def data_received(self, data: bytes) -> None:
        """Where a request is still waited for after this, a part of its head has come."""
        super().data_received(data)
        if self._force_close:
            return
        waiter = self._waiter
        if waiter is None or waiter.done():
            if self._head_timer is not None:
                self.head_arrived()
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            msg = f"the head of the request is larger than {HEAD_BYTES} bytes"
            metrics.connection_refused("large")
            self._end(GatewayError(msg, status=431, error="Request head too large"))
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_DEADLINE, self._head_is_late)

    def head_arrived(self) -> None:
        """Nothing of a head is awaited any more."""
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._head_bytes:  # nothing was asked, so there is nothing to answer
            self.force_close()
            return
        msg = f"the head of the request did not arrive within {HEAD_DEADLINE:g} seconds"
        metrics.connection_refused("slow")
        self._end(GatewayError(msg, status=408, error="Request timeout"))

    def _end(self, problem: GatewayError) -> None:
        """Answer and close. What the caller still sends is read for a moment: to close at once would reset the
        connection and take the answer away."""
        transport = self.transport
        self._force_close = True  # whatever comes from now on is not looked at
        if transport is None or transport.is_closing():
            return
        transport.write(_answer(problem))
        if transport.can_write_eof():
            transport.write_eof()
            self._loop.call_later(LINGER, transport.abort)
        else:
            transport.close()


def _answer(problem: GatewayError) -> bytes:
    """The whole answer, for where there is no request that aiohttp could answer."""
    body = orjson.dumps(problem.body())
    headers = CIMultiDict({**problem.headers, "Content-Type": "application/json", "Content-Length": str(len(body))})
    headers.update({"Connection": "close", HEADER: new_request_id()})
    harden(headers)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n{head}\r\n".encode() + body
