"""Reads a client's window and figures; consumes nothing. Counting happens in admit alone."""

from gateway.models import Usage, Window
from gateway.store.scripts import Runner


class Windows:
    """Figures of the moment."""

    def __init__(self, runner: Runner, algorithm: str) -> None:
        self._runner = runner
        self._algorithm = algorithm

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
