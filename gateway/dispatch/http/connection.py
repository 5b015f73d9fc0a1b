"""One connection: a request out, its answer in, one at a time. Which connection carries which request is the pool's
business. Where the framing of an answer is in doubt the connection is closed, never used again."""

import asyncio
import re
import socket
import ssl
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.dispatch.http.errors import CallFailed
from gateway.dispatch.http.message import Origin, Request

HEAD_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
KEPT_BYTES = 4 * 1024
# Shorter than what common servers keep a connection for (Node, uvicorn and Apache 5 s): whoever closes first must be
# us, or a request is lost on its way to a connection that is going away.
IDLE_SECONDS = 4.0
_SLICE = 64 * 1024
_KEEP_ALIVE = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_RESET = (ConnectionResetError, BrokenPipeError)


class Answer:
    """What is known of an answer so far; survives an error halfway through it. ``status`` 0: nothing yet. ``body`` is
    its first 4 KiB."""

    __slots__ = ("body", "retry_after", "status")

    def __init__(self) -> None:
        self.status = 0
        self.retry_after: str | None = None
        self.body = b""


class Keeper(Protocol):
    """Where a connection belongs to; it tells of every turn of its life once."""

    def add(self, connection: "Connection") -> None:
        """It is open, and in use."""

    def release(self, connection: "Connection") -> None:
        """Its answer is complete and it may carry another request."""

    def forget(self, connection: "Connection") -> None:
        """It is closed."""


class Connection(asyncio.Protocol):
    """To one origin, over ``sock``. Idle until ``expires_at`` by the loop's clock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: Origin,
        sock: socket.socket,
        keeper: Keeper,
    ) -> None:
        self.origin = origin
        self.expires_at = 0.0
        self._loop = loop
        self._socket = sock
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._paused = False
        # One timer a connection, not one a call: it stays where it is while deadlines only move on.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._done: asyncio.Future[None] | None = None
        self._start(Answer(), bodiless=False)

    def _start(self, answer: Answer, *, bodiless: bool) -> None:
        self._answer = answer
        self._bodiless = bodiless
        self._unsent: memoryview | None = None
        self._received = 0
        self._before_body = 0
        self._head_done = False
        self._complete = False
        self._reusable = False
        self._invalid = False
        self._idle_seconds = IDLE_SECONDS
        self._forget_head()

    def _forget_head(self) -> None:
        self._coding: bytes | None = None
        self._has_length = False
        self._retry_after: bytes | None = None

    # The caller's side

    @property
    def usable(self) -> bool:
        """Whether the target has kept the connection, as far as can be known before something is sent."""
        if self._transport is None or self._transport.is_closing() or self._loop.time() >= self.expires_at:
            return False
        # What the loop has not read yet: an end, or bytes that nobody asked for. TLS has records of its own to send.
        try:
            waiting = self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return bool(waiting) and self.origin.tls

    async def exchange(self, request: Request, answer: Answer, deadline: float) -> None:
        """Send the request, fill the answer; ``deadline`` by the loop's clock. Raises `CallFailed`. Where it ends
        without an answer, cancellation included, the connection is closed."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise CallFailed("connection closed")
        self._start(answer, bodiless=request.bodiless)
        if self._parser is None:
            self._parser = HttpResponseParser(self)
        done = self._done = self._loop.create_future()
        self._deadline = deadline
        if self._timer is None or self._timer_at > deadline:
            self._set_timer()
        body = request.body
        if body is None:
            transport.write(request.head)
        elif len(body) <= _SLICE:
            transport.write(request.head + body)
        else:
            transport.write(request.head)
            self._unsent = memoryview(body)
            self._send_more()
        try:
            await done
        finally:
            # A cancellation may come when the answer is there and the connection carries somebody else's request.
            if self._done is done:
                self.abort()

    def abort(self, reason: str = "connection closed") -> None:
        """Close at once; what is not sent yet is dropped. A call that is open fails for this reason."""
        done, self._done = self._done, None
        self._unsent = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        if done is not None and not done.done():
            done.set_exception(CallFailed(reason))

    # The loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._keeper.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        parser = self._parser
        if self._done is None or parser is None:
            # Nobody asked: it would pass for the answer to the next request.
            self.abort()
            return
        if not self._head_done:
            # The piece of data that brings the end of the head counts as body.
            self._before_body = self._received
        try:
            if not self._head_done and self._received + len(data) > HEAD_BYTES:
                data = self._feed_head(parser, data)
            self._received += len(data)
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            # Behind a complete answer it is not the answer that is wrong.
            self._invalid = self._invalid or not self._complete
            self._reusable = False
        if self._invalid:
            self.abort("invalid response")
        elif self._complete:
            self._finish(reusable=self._reusable)
        elif self._head_done and self._received - self._before_body > READ_BYTES:
            # The status is known and counts; the rest of a huge answer is not pulled in to save a connection. Framing
            # and trailers are in the count, so nothing in a body is without a bound.
            self._finish(reusable=False)

    def _feed_head(self, parser: HttpResponseParser, data: bytes) -> bytes:
        """Give the parser no more than a head may have, all interim answers included; what is left of the data."""
        room = HEAD_BYTES - self._received
        self._received = HEAD_BYTES
        parser.feed_data(data[:room])
        if not self._head_done:
            self._invalid = True
            return b""
        return data[room:]

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. Closes the transport also where there is still something to send."""
        self._end(clean=True)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._done is not None and isinstance(exc, _RESET):
            self._read_the_rest()
        self._end(clean=exc is None, tls=isinstance(exc, ssl.SSLError))
        self.abort()
        self._transport = None
        self._parser = None  # parser and connection refer to each other
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
        if self._done is None:
            return
        until_close = not self._has_length and (self._coding is None or not self._coding.endswith(b"chunked"))
        if self._head_done and until_close and clean:
            self._finish(reusable=False)
        elif tls:
            self.abort("tls error")
        else:
            self.abort("response cut off" if self._head_done else "connection closed")

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
        if self._done is None:
            return
        if self._loop.time() >= self._deadline:
            self.abort("timeout")
        else:
            self._set_timer()

    def _finish(self, *, reusable: bool) -> None:
        done, self._done = self._done, None
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
            if self._bodiless:
                self._parser = None  # it waits for the body that the head announced
            self.expires_at = self._loop.time() + self._idle_seconds
            self._keeper.release(self)
        if done is not None and not done.done():
            done.set_result(None)

    # The parser's side

    def on_message_begin(self) -> None:
        """The first byte of an answer, also of an interim one; behind a complete one there must be none."""
        if self._complete:
            self._reusable = False
        else:
            self._forget_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is ignored."""
        if self._head_done:
            return
        match name.lower():
            case b"retry-after":
                self._retry_after = value
            case b"keep-alive":
                self._promised(value)
            case b"content-length":
                self._has_length = True
            case b"transfer-encoding":
                # llhttp refuses it together with Content-Length; twice is as much a riddle.
                self._invalid = self._invalid or self._coding is not None
                self._coding = value.strip().lower()

    def _promised(self, value: bytes) -> None:
        """`Keep-Alive: timeout=5`: a second less, for the way there."""
        found = _KEEP_ALIVE.search(value)
        if found:
            self._idle_seconds = min(IDLE_SECONDS, int(found[1]) - 1.0)

    def on_headers_complete(self) -> None:
        """The end of a head. Interim answers (RFC 9110, 15.2) are skipped; 101 was not asked for."""
        if self._complete:
            return
        parser = cast(HttpResponseParser, self._parser)
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        if status < 200:
            self._invalid = True
            return
        self._head_done = True
        self._answer.status = status
        if self._retry_after is not None:
            self._answer.retry_after = self._retry_after.decode("latin-1")
        if self._bodiless:
            self._complete = True
            # Whether chunks follow a head that should have none can't be told from the next answer.
            self._reusable = self._coding is None and parser.should_keep_alive() and self._idle_seconds > 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without its framing."""
        if self._complete:
            self._reusable = False
            return
        kept = self._answer.body
        if len(kept) < KEPT_BYTES:
            self._answer.body = kept + body[: KEPT_BYTES - len(kept)]

    def on_message_complete(self) -> None:
        """The end of an answer whose end shows in its framing."""
        if self._head_done and not self._complete:
            self._complete = True
            parser = cast(HttpResponseParser, self._parser)
            # Chunks from HTTP/1.0 are faulty framing (RFC 9112, 6.1).
            keep = parser.should_keep_alive() and (self._coding is None or parser.get_http_version() != "1.0")
            self._reusable = keep and self._idle_seconds > 0
