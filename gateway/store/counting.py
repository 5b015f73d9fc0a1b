"""Carries what this process counted of its clients to Redis, every few seconds and at each minute's end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import time
from typing import Final

import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store.usage import MINUTE, Batch, Usages

log = structlog.get_logger()

SECONDS: Final = 5.0
_MINUTES_KEPT: Final = 10  # while Redis is away
_LAST_SECONDS: Final = 1.0


class Booking:
    """What was counted and is not booked yet. Which minute it belongs to is told by Redis's clock."""

    def __init__(self, usages: Usages) -> None:
        self._usages = usages
        self._waiting: list[Batch] = []
        self._since = time()
        self._offset = 0.0  # of Redis's clock to this host's

    async def flush(self) -> None:
        """Book what was counted until now. Raises StoreUnavailable, and what Redis did not take waits for the next."""
        counted, began = metrics.take_usage(), self._since
        self._since = time()
        try:
            self._offset = await self._usages.now() - time()
        finally:
            self._add(Batch.of(counted, int((began + self._offset) // MINUTE)))
        while self._waiting:
            await self._usages.book(self._waiting[0])
            self._waiting.pop(0)

    def _add(self, batch: Batch) -> None:
        if self._waiting and self._waiting[-1].minute == batch.minute:
            self._waiting[-1].merge(batch)
        elif batch.tallies:
            self._waiting.append(batch)
        if len(self._waiting) > _MINUTES_KEPT:
            self._usages.give_up(self._waiting.pop(0))

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
                await booking.flush()
        booking.close()


async def _keep(booking: Booking) -> None:
    while True:
        await asyncio.sleep(booking.next_in())
        try:
            await booking.flush()
        except StoreUnavailable as error:
            log.debug("usage_not_booked", error=error.message)
