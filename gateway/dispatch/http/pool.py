"""The open connections: which are idle and for whom. Bounded by the number of open calls, by origin and by time."""

import asyncio
from collections.abc import Hashable

from gateway.dispatch.http.connection import Connection

IDLE_PER_ORIGIN = 256
_SWEEP_SECONDS = 1.0


class Pool:
    """``limit``: connections open at once, idle ones included; the callers bound how many are in use. What is idle is
    closed to make room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()
        self._idle: dict[Hashable, list[Connection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    def take(self, origin: Hashable) -> Connection | None:
        """The connection that was used last, so that those that are not needed grow old."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    def make_room(self) -> None:
        """Before another connection is opened: close the one that has been idle for longest at some origin."""
        if len(self._open) < self._limit:
            return
        for idle in self._idle.values():
            if idle:
                idle.pop(0).abort()
                return

    def add(self, connection: Connection) -> None:
        """A new one, in use."""
        self._open.add(connection)

    def release(self, connection: Connection) -> None:
        """It carries no call any more."""
        idle = self._idle.setdefault(connection.origin, [])
        if len(idle) >= IDLE_PER_ORIGIN or len(self._open) > self._limit or self._emptied is not None:
            connection.abort()
            return
        idle.append(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)
        if self._emptied is not None and not self._open:
            self._emptied.set()

    def _sweep(self) -> None:
        self._sweeping = None
        for origin, idle in list(self._idle.items()):
            for connection in [each for each in idle if not each.usable]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    async def close(self) -> None:
        """Close everything, and wait until it is closed."""
        self._emptied = asyncio.Event()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.abort()
        if self._open:
            await self._emptied.wait()
