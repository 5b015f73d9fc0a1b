"""One connection: a request out, its answer in, one at a time. Which connection carries which request is the pool's
business."""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from gateway.dispatch.http.answer import READ_BYTES, Answer, AnswerReader, Progress
from gateway.dispatch.http.errors import CallFailed
from gateway.dispatch.http.message import Origin, Request

_SLICE = 64 * 1024
_RESET = (ConnectionResetError, BrokenPipeError)

# Told once how a call ended: None, its answer is there; else why it is not, or not whole.
Ended = Callable[[Exception | None], None]


class Keeper(Protocol):
    """Where a connection belongs to; it tells of every turn of its life once."""

    def add(self, connection: "Connection") -> None:
        """It is open, and in use."""

    def release(self, connection: "Connection") -> None:
        """Its answer is complete and it may carry another request."""

    def forget(self, connection: "Connection") -> None:
        """It is closed."""


class Outbox:
    """Connections whose requests go out at the end of this turn of the loop, one after the other: a target that is
    woken for the first finds the others there, and the process is interrupted once and not for each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Connection] = []

    def put(self, connection: "Connection") -> None:
        """It has a request to send."""
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append(connection)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.send()


class Connection(asyncio.Protocol):
    """To one origin, over ``sock``. Idle until ``expires_at`` by the loop's clock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: Origin,
        sock: socket.socket,
        keeper: Keeper,
        outbox: Outbox,
    ) -> None:
        self.origin = origin
        self.expires_at = 0.0
        self._loop = loop
        self._socket = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._keeper = keeper
        self._outbox = outbox
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._request: Request | None = None  # about to be sent
        self._unsent: memoryview | None = None
        self._paused = False
        # One timer a connection, not one a call: it stays where it is while deadlines only move on.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._ended: Ended | None = None

    # The caller's side

    @property
    def usable(self) -> bool:
        """Whether the target has kept the connection, as far as can be known before something is sent."""
        if self._transport is None or self._transport.is_closing() or self._loop.time() >= self.expires_at:
            return False
        # What the loop has not read yet: an end, or bytes that nobody asked for; in TLS most likely the end too.
        return not self._readable.poll(0)

    def exchange(self, request: Request, answer: Answer, deadline: float, ended: Ended) -> None:
        """Send the request, fill the answer, tell ``ended``; ``deadline`` by the loop's clock. Where a call ends
        without an answer, the connection is closed. Raises `CallFailed` where it is closed already."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise CallFailed("connection closed")
        self._reader.expect(answer, bodiless=request.bodiless)
        self._ended = ended
        self._deadline = deadline
        if self._timer is None or self._timer_at > deadline:
            self._set_timer()
        self._request = request
        self._outbox.put(self)

    def break_off(self, ended: Ended) -> None:
        """Close without telling it, where this call has not ended: by now the connection may carry somebody else's."""
        if self._ended == ended:
            self._ended = None
            self.abort()

    def send(self) -> None:
        """Write the request, where there still is one."""
        request, self._request = self._request, None
        if request is None or self._transport is None:
            return
        body = request.body
        if body is None:
            self._transport.write(request.head)
        elif len(body) <= _SLICE:
            self._transport.write(request.head + body)
        else:
            self._transport.write(request.head)
            self._unsent = memoryview(body)
            self._send_more()

    def abort(self, reason: str = "connection closed") -> None:
        """Close at once; what is not sent yet is dropped. A call that is open fails for this reason."""
        ended, self._ended = self._ended, None
        self._request = self._unsent = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        if ended is not None:
            ended(CallFailed(reason))

    # The loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._keeper.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._ended is None or self._request is not None:
            # Nobody asked yet: it would pass for the answer to the next request.
            self.abort()
            return
        progress = self._reader.feed(data)
        if progress is Progress.COMPLETE:
            self._finish(reusable=self._reader.reusable)
        elif progress is Progress.INVALID:
            self.abort("invalid response")

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. Closes the transport also where there is still something to send."""
        self._end(clean=True)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._ended is not None and isinstance(exc, _RESET):
            self._read_the_rest()
        self._end(clean=exc is None, tls=isinstance(exc, ssl.SSLError))
        self.abort()
        self._transport = None
        self._reader.close()
        self._keeper.forget(self)

    def _read_the_rest(self) -> None:
        """A target that refuses a large body may answer and close before it read all of it; the failed write is then
        seen before the answer that already lies here."""
        if self.origin.tls:
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except OSError:
            return
        if data:
            self.data_received(data)

    def _end(self, *, clean: bool, tls: bool = False) -> None:
        if self._ended is None:
            return
        missing = self._reader.end(clean=clean)
        if missing is None:
            self._finish(reusable=False)
        else:
            self.abort("tls error" if tls else missing)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._paused = False
        self._send_more()

    def _send_more(self) -> None:
        """In slices, as the transport drains, so that a large body is not copied into its buffer whole."""
        while self._unsent is not None and not self._paused and self._transport is not None:
            piece, rest = self._unsent[:_SLICE], self._unsent[_SLICE:]
            self._unsent = rest if rest else None
            self._transport.write(piece)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._time_up)

    def _time_up(self) -> None:
        self._timer = None
        if self._ended is None:
            return
        if self._loop.time() >= self._deadline:
            self.abort("timeout")
        else:
            self._set_timer()

    def _finish(self, *, reusable: bool) -> None:
        ended, self._ended = self._ended, None
        transport = self._transport
        # An answer that came before its request was sent whole leaves the rest of the request on the connection.
        whole = (
            transport is not None
            and self._unsent is None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )
        if not reusable or not whole:
            self.abort()
        else:
            self.expires_at = self._loop.time() + self._reader.idle_seconds
            self._keeper.release(self)
        if ended is not None:
            ended(None)
