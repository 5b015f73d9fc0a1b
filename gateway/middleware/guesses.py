"""Slows down whoever tries out keys: so many wrong ones of an address a minute are looked at, and no more."""

import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.errors import StoreUnavailable, TooManyRequests
from gateway.middleware.callers import place_of

ADDRESSES: Final = 10_000  # remembered; past them those that were wrong longest ago are forgotten

# Counts a wrong key of a place, for a client ("": an operator's) and a bucket of so many a minute, over all processes;
# seconds until that bucket is full. Raises StoreUnavailable.
Count = Callable[[str, str, int], Awaitable[float]]


class Guesses:
    """A bucket of ``per_minute`` guesses for each address, which fills up again by itself: who stops guessing is let in
    within a minute, and a try that is not looked at costs nothing. Of clients' keys the buckets are each client's own,
    so that one client's callers do not close another's.

    An IPv6 address stands for its /64, which one machine may have all of. ``count`` has all processes share the
    buckets: each hears of the others' guesses at a wrong key that it looks at itself, and what they looked at together
    past the bucket makes the wait longer. Where it can't, its own count holds.
    """

    def __init__(
        self, per_minute: int, count: Count | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = per_minute
        self._every = 60 / per_minute
        self._count = count
        self._clock = clock
        # When the bucket will be full again, by place and client: each guess moves it further off.
        self._full_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._closed: OrderedDict[str, float] = OrderedDict()  # clients of whom someone must wait, and until when

    def refuse(self, address: str, client_id: str = "") -> None:
        """Raise `TooManyRequests` where no key from there is looked at now: not even a right one, or guessing would go
        on all the same."""
        if wait := self.wait(address, client_id):
            whose = f" for client {client_id}" if client_id else ""
            msg = f"too many wrong keys{whose} came from {address}; none is looked at for {wait} s"
            raise TooManyRequests(msg, error="Too many wrong keys", headers={"Retry-After": str(wait)})

    def wait(self, address: str, client_id: str = "") -> int:
        """Whole seconds until a key from there is looked at again; 0: now."""
        full_at = self._full_at.get((place_of(address), client_id))
        return 0 if full_at is None else max(0, math.ceil(self._open_at(full_at) - self._clock()))

    def concern(self, client_id: str) -> bool:
        """Whether some address has to wait with keys of this client; costs a look into a dict."""
        until = self._closed.get(client_id)
        return until is not None and until > self._clock()

    async def wrong(self, address: str, client_id: str = "") -> None:
        """A key from there was wrong."""
        place = place_of(address)
        self._note(place, client_id, 0.0, self._every)
        if self._count is not None:
            with contextlib.suppress(StoreUnavailable):
                seconds = await self._count(place, client_id, self._most)
                self._note(place, client_id, self._clock() + seconds, 0.0)

    def _note(self, place: str, client_id: str, full_at: float, more: float) -> None:
        bucket = (place, client_id)
        full_at = max(self._clock(), full_at, self._full_at.get(bucket, 0.0)) + more
        self._full_at[bucket] = full_at
        self._full_at.move_to_end(bucket)
        if len(self._full_at) > ADDRESSES:
            self._full_at.popitem(last=False)
        if client_id and (open_at := self._open_at(full_at)) > self._clock():
            self._closed[client_id] = max(open_at, self._closed.get(client_id, 0.0))
            self._closed.move_to_end(client_id)
            if len(self._closed) > ADDRESSES:
                self._closed.popitem(last=False)

    def _open_at(self, full_at: float) -> float:
        return full_at - (self._most - 1) * self._every
