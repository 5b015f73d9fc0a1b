"""Carries what this process counted of its clients to Redis, every few seconds and at each minute's end."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from time import monotonic, time
from typing import Final

import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.metrics.usage import Counted
from gateway.store.usage import MINUTE, Batch, Usages

log = structlog.get_logger()

SECONDS: Final = 5.0
# Where more than a few clients are at work each is booked less often, since it is the clients that cost: 20 µs of Redis
# at most. Nobody's numbers lag by more than ten seconds: those of fifty thousand are booked in less than four.
FEW: Final = 1000
SECONDS_OF_MANY: Final = 6.0
# What may wait while Redis is away.
MINUTES_KEPT: Final = 10
CLIENTS_KEPT: Final = 200_000
_AT_ONCE: Final = 500  # clients that are gathered in one turn of the loop
_LAST_SECONDS: Final = 3.0


class Booking:
    """What was counted and is not booked yet. Which minute it belongs to is told by Redis's clock."""

    def __init__(self, usages: Usages) -> None:
        self._usages = usages
        self._taken: deque[tuple[Counted, float]] = deque()  # with the time at which it began
        self._waiting: list[Batch] = []
        self._since = time()
        self._offset = 0.0  # of Redis's clock to this host's
        self._many = False

    async def flush(self, *, paced: bool = False) -> None:
        """Book what was counted until now, what waits longest first; ``paced``: with Redis and the loop left to others
        for half of the time. Raises StoreUnavailable; what Redis did not take waits for the next time."""
        metrics.settle()
        self._take()
        try:
            self._offset = await self._usages.now() - time()
        finally:
            await self._gather()
        while self._waiting:
            batch = self._waiting[0]
            began = monotonic()
            await self._usages.book_some(batch)
            if batch.empty:
                self._waiting.remove(batch)
            if paced:
                await asyncio.sleep(monotonic() - began)
            if self._minute(time()) != self._minute(self._since):
                self._take()
                await self._gather()

    def _take(self) -> None:
        counted = metrics.take_usage()
        self._many = len(counted.tallies) > FEW
        self._taken.append((counted, self._since))
        self._since = time()

    async def _gather(self) -> None:
        """Make batches of what was taken, some at a time, since a sum over fifty thousand takes a while."""
        while self._taken:
            counted, began = self._taken[0]
            some = {name: counted.tallies.pop(name) for name in list(islice(counted.tallies, _AT_ONCE))}
            if not counted.tallies:
                self._taken.popleft()
            failures = ({}, {}) if counted.tallies else (counted.statuses, counted.hosts)
            self._add(Batch.of(Counted(some, *failures), self._minute(began)))
            await asyncio.sleep(0)

    def _minute(self, moment: float) -> int:
        return int((moment + self._offset) // MINUTE)

    def _add(self, batch: Batch) -> None:
        if self._waiting and self._waiting[-1].minute == batch.minute:
            self._waiting[-1].merge(batch)
        elif not batch.empty:
            self._waiting.append(batch)
        kept = sum(len(waiting.tallies) for waiting in self._waiting)
        while self._waiting and (len(self._waiting) > MINUTES_KEPT or kept > CLIENTS_KEPT):
            oldest = self._waiting.pop(0)
            kept -= len(oldest.tallies)
            self._usages.give_up(oldest)

    def close(self) -> None:
        """Tell of what was not booked."""
        for batch in self._waiting:
            self._usages.give_up(batch)

    def next_in(self) -> float:
        """Seconds until the next flush: no stretch that is booked goes over a minute's edge."""
        now = time()
        due = self._since + (SECONDS_OF_MANY if self._many else SECONDS)
        return max(0.0, min(due - now, MINUTE - (now + self._offset) % MINUTE + 0.001))


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
            await booking.flush(paced=True)
        except StoreUnavailable as error:
            log.debug("usage_not_booked", error=error.message)
