"""Carries what this process counted of its clients to Redis, every few seconds and at each minute's end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import islice
from time import time
from typing import Final

import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.metrics.usage import MOST_CLIENTS
from gateway.store.usage import EVERYBODY, MINUTE, Batch, Usages

log = structlog.get_logger()

SECONDS: Final = 5.0
# What one flush costs Redis is bounded by this: 20 µs a client at most. Where more are at work, they wait longer.
CLIENTS: Final = 1000
_MINUTES_KEPT: Final = 10  # while Redis is away, or more clients are at work than are booked
_LAST_SECONDS: Final = 1.0


class Booking:
    """What was counted and is not booked yet. Which minute it belongs to is told by Redis's clock."""

    def __init__(self, usages: Usages) -> None:
        self._usages = usages
        self._waiting: list[Batch] = []
        self._since = time()
        self._offset = 0.0  # of Redis's clock to this host's

    async def flush(self, most: int | None = CLIENTS) -> None:
        """Book what was counted until now, of at most so many clients, those first that wait longest. Raises
        StoreUnavailable; what Redis did not take waits for the next time."""
        metrics.settle()
        counted, began = metrics.take_usage(), self._since
        self._since = time()
        try:
            self._offset = await self._usages.now() - time()
        finally:
            self._add(Batch.of(counted, int((began + self._offset) // MINUTE)))
        for batch in list(self._waiting):
            if most is not None and most <= 0:
                return
            booked = await self._usages.book(batch, most)
            most = None if most is None else most - booked
            if not batch.tallies:
                self._waiting.remove(batch)

    def _add(self, batch: Batch) -> None:
        if self._waiting and self._waiting[-1].minute == batch.minute:
            self._waiting[-1].merge(batch)
        elif batch.tallies:
            self._waiting.append(batch)
        if len(self._waiting) > _MINUTES_KEPT:
            self._usages.give_up(self._waiting.pop(0))
        for waiting in self._waiting[-1:]:
            names = (name for name in waiting.tallies if name != EVERYBODY)
            over = {name: waiting.tallies[name] for name in islice(names, MOST_CLIENTS, None)}
            if over:
                waiting.tallies = {name: counts for name, counts in waiting.tallies.items() if name not in over}
                self._usages.give_up(Batch(waiting.minute, over, {}))

    def close(self) -> None:
        """Tell of what was not booked."""
        for batch in self._waiting:
            self._usages.give_up(batch)

    def next_in(self) -> float:
        """Seconds until the next flush: no stretch that is booked goes over a minute's edge."""
        return min(SECONDS, MINUTE - (time() + self._offset) % MINUTE + 0.001)


@contextlib.asynccontextmanager
async def counting(usages: Usages) -> AsyncIterator[None]:
    """Usage is booked while the context is open, and what is left at its end."""
    booking = Booking(usages)
    task = asyncio.create_task(_keep(booking))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await booking.flush(most=None)
        booking.close()


async def _keep(booking: Booking) -> None:
    while True:
        await asyncio.sleep(booking.next_in())
        try:
            await booking.flush()
        except StoreUnavailable as error:
            log.debug("usage_not_booked", error=error.message)
