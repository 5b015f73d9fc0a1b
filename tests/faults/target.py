"""A target that records every call: which task, from when to when, which attempt, and whether it was answered.

The path says how it answers: `/ok/40/17` is task 17, answered after 40 ms; `hang`, `drip`, `reset`, `huge`, `garbage`
and `loop` stand in its place. A protocol of its own, since a web framework hears too late that a caller has gone.
"""

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import cast

_CHUNK = b"x" * 65536
_HUGE = 10**9


@dataclass(eq=False, slots=True)
class Call:
    """One call. ``end`` is when the answer was written or the caller gone, None while it is open."""

    kind: str
    marker: int
    task_id: str
    client: str
    attempt: int
    port: int
    start: float
    end: float | None = None
    answered: bool = False


class Target:
    """Listens on a port of its own. Times are Unix seconds, to be compared with what Redis's clock has stamped."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answered: set[int] = set()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def open(self) -> int:
        """Calls that are open now."""
        return sum(call.end is None for call in self.calls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # they close in the loop's next turn


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, target: Target) -> None:
        self.target = target
        self.buffer = b""
        self.call: Call | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.left = 0
        self.writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.target._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.target._connections.discard(self)
        self.end()

    def eof_received(self) -> None:
        self.end()

    def begin(self, call: Call) -> None:
        if call.end is None:
            call.start = time.time()

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.call is not None and self.call.end is None:
            self.call.end = time.time()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        _, kind, delay, marker = lines[0].split()[1].split("/")[:4]
        port = self.transport.get_extra_info("peername")[1]
        attempt = int(headers["x-attempt"])
        self.call = Call(kind, int(marker), headers["x-task-id"], headers["x-client-id"], attempt, port, time.time())
        self.target.calls.append(self.call)
        loop = asyncio.get_running_loop()
        # What one look at the sockets finds has no order: an end that came before this call may still be heard of.
        loop.call_soon(self.begin, self.call)
        if kind != "hang":
            self.timer = loop.call_later(int(delay) / 1000, getattr(self, kind))

    def answer(self, data: bytes) -> None:
        if self.transport.is_closing() or self.call is None:
            return
        self.end()
        self.call.answered = True
        self.target.answered.add(self.call.marker)
        self.transport.write(data)

    def ok(self) -> None:
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nseen")

    def drip(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        loop = asyncio.get_running_loop()

        def more() -> None:
            if not self.transport.is_closing():
                self.transport.write(b"x")
                self.timer = loop.call_later(0.1, more)

        more()

    def reset(self) -> None:
        self.transport.abort()

    def huge(self) -> None:
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _HUGE)
        self.left = _HUGE
        self.resume_writing()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()
        while self.left > 0 and self.writable.is_set() and not self.transport.is_closing():
            self.left -= len(_CHUNK)
            self.transport.write(_CHUNK)

    def garbage(self) -> None:
        self.answer(b"\x00\xff not http at all\r\n\r\n")

    def loop(self) -> None:
        here = f"{self.target.url}/loop/0/{self.call.marker if self.call else 0}"
        self.answer(f"HTTP/1.1 307 Again\r\nLocation: {here}\r\nContent-Length: 0\r\n\r\n".encode())


def seconds_over(spans: list[tuple[float, float]], limit: int) -> float:
    """For how long in all more than ``limit`` of these spans were open."""
    moments = sorted(itertools.chain(((end, -1) for _, end in spans), ((start, 1) for start, _ in spans)))
    counts = itertools.accumulate(step for _, step in moments)
    steps = zip(moments, moments[1:], counts, strict=False)
    return sum(after - before for (before, _), (after, _), count in steps if count > limit)


def most_open(spans: list[tuple[float, float]]) -> int:
    """The most of these spans that were open at one instant; one that ends as another starts makes room for it."""
    moments = sorted(itertools.chain(((end, -1) for _, end in spans), ((start, 1) for start, _ in spans)))
    return max(itertools.accumulate((step for _, step in moments), initial=0))
