"""Reads a client's window and figures; consumes nothing. Counting happens in admit alone."""

from typing import Final

import msgspec

from gateway.models import Usage, Window
from gateway.store.scripts import Runner

RECENT_SECONDS: Final = 300


class QueueFigures(msgspec.Struct, frozen=True):
    """How a queue stands. ``oldest_waiting``: since when the task waits that waits longest, None: none does."""

    name: str
    paused: bool
    queued: int
    in_flight: int
    oldest_waiting: int | None


class Standings(msgspec.Struct, frozen=True):
    """How a client's queues stand; the bytes that wait; how many tasks ended of late, and how many of them dead."""

    queues: list[QueueFigures]
    queued_bytes: int
    ended: int
    dead: int


class Windows:
    """Figures of the moment."""

    def __init__(self, runner: Runner, algorithm: str) -> None:
        self._runner = runner
        self._algorithm = algorithm

    async def standings(self, client_id: str) -> Standings:
        """How the client's queues stand, and what became of its tasks in the last `RECENT_SECONDS`."""
        size, ended, dead, *rows = await self._runner.run("queues", client_id, RECENT_SECONDS)
        queues = [
            QueueFigures(name.decode(), bool(paused), queued, in_flight, oldest or None)
            for name, paused, queued, in_flight, oldest in (rows[at : at + 5] for at in range(0, len(rows), 5))
        ]
        return Standings(queues, size, ended, dead)

    async def usage(self, client_id: str) -> Usage:
        """What of the window is used, what is in flight and what waits, by Redis's clock."""
        now, used, reset, in_flight, queued, scheduled, dead, oldest, oldest_task, *paused = await self._runner.run(
            "usage", client_id, self._algorithm
        )
        window = Window(used=used, reset=reset, now=int(now) / 1_000_000)
        return Usage(
            window=window,
            in_flight=in_flight,
            queued=queued,
            scheduled=scheduled,
            dead=dead,
            oldest_waiting=max(0.0, window.now - oldest / 1000) if oldest else None,
            oldest_task=oldest_task.decode() or None,
            paused=frozenset(queue.decode() for queue in paused),
        )
