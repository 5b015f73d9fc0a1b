"""A connection with an express way: a request that an `Express` knows how to answer passes aiohttp by. Everything else
is aiohttp's, and so are all errors of HTTP."""

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

from gateway.middleware.connection import BoundedConnection
from gateway.middleware.contracts import Express, Whole

if TYPE_CHECKING:
    from aiohttp.web_server import Server

_HELD_BYTES: Final = 64 * 1024  # of requests that came while one is being answered; past it nothing more is read
_PATIENCE: Final = 0.2  # seconds for a body that did not come with its head; then it is aiohttp's, deadline and all
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n")


class ExpressConnection(BoundedConnection):
    """Takes the express way only while aiohttp has nothing of a request in hand."""

    __slots__ = ("_answering", "_begun", "_counted", "_due", "_express", "_held", "_idle", "_patience")

    def __init__(self, manager: "Server", *, express: Express | None, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._express = express
        self._counted = True  # where the requests that aiohttp was given end is known
        self._due = 0  # bytes of the last one that are still to come
        self._answering = False
        self._held = b""  # what came meanwhile, or a request that is not whole yet
        self._begun: Whole | None = None  # the latter
        self._patience: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """One request at a time: what comes while one is being answered has to wait."""
        if not data:  # aiohttp reminds itself of what it has
            super().data_received(data)
        elif self._begun is not None:
            self._held += data
            if len(self._held) >= self._begun.end:
                self._go_on()
        elif self._answering or self._held:
            self._held += data
            if len(self._held) > _HELD_BYTES:
                self._pause_transport_reading()
        else:
            self._look_at(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is awaited any more."""
        self._lose_patience()
        super().connection_lost(exc)

    def _look_at(self, data: bytes) -> None:
        request = self._express.read(data) if self._express is not None and self._may_take() else None
        if self._express is None or request is None:
            self._pass_on(data)
            return
        self.head_arrived()
        if len(data) < request.end:
            self._held, self._begun = data, request
            self._patience = self._loop.call_later(_PATIENCE, self._give_up)
            return
        if len(data) > request.end:
            data, self._held = data[: request.end], data[request.end :]
        self._answering = True
        if not self._express.take(request, data, self._answered):
            self._answering = False
            self._pass_on(data)
            if self._held:
                data, self._held = self._held, b""
                self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Give it to aiohttp, and keep count: while its parser has a part of a request, nothing may pass it by."""
        if self._counted:
            length = self._due or _length(data)
            self._due = 0 if length is None else length - len(data)
            self._counted = length is not None and self._due >= 0
        super().data_received(data)

    def _may_take(self) -> bool:
        return (
            self._counted
            and not self._due
            and not self._messages
            and self._current_request is None
            and not self._request_in_progress
            and not (self._close or self._force_close)
        )

    def _go_on(self) -> None:
        """Look at what is held."""
        if self._answering or self._paused or not self._held:
            return
        self._lose_patience()
        data, self._held = self._held, b""
        if len(data) > _HELD_BYTES:
            self._resume_transport_reading()
        self._look_at(data)

    def _lose_patience(self) -> None:
        self._begun = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        """The body is late: aiohttp waits for it."""
        self._lose_patience()
        data, self._held = self._held, b""
        self._pass_on(data)

    def _answered(self, answer: bytes) -> None:
        self._answering = False
        if self.transport is not None:
            self.transport.write(answer)
            self._next_keepalive_close_time = self._loop.time() + self.keepalive_timeout
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self._held:
            self._loop.call_soon(self._go_on)

    def resume_writing(self) -> None:
        """The caller reads its answers again."""
        super().resume_writing()
        if self._held:
            self._loop.call_soon(self._go_on)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """The request that is being answered is waited for, as aiohttp does with its own."""
        if self._answering:
            self._idle = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle
        await super().shutdown(timeout)


def _length(data: bytes) -> int | None:
    """How long the request is that ``data`` begins with, None where its head does not say, or is not all there."""
    end = data.find(_END)
    head = data[: end + 2].lower()
    if end < 0 or b"transfer-encoding" in head or b"upgrade" in head:
        return None
    lengths = _LENGTH.findall(head)
    if len(lengths) != head.count(b"content-length") or len(lengths) > 1:
        return None
    return end + len(_END) + (int(lengths[0]) if lengths else 0)
