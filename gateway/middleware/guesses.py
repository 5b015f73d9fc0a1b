"""Slows down whoever tries out keys: so many wrong ones of an address a minute are looked at, and no more."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from gateway.middleware.callers import place_of

ADDRESSES = 10_000  # remembered; past them those that were wrong longest ago are forgotten


class Guesses:
    """A bucket of ``per_minute`` guesses for each address, which fills up again by itself: who stops guessing is let in
    within a minute, and a try that is not looked at costs nothing.

    An IPv6 address stands for its /64, which one machine may have all of.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._every = 60 / per_minute
        self._clock = clock
        # When the bucket will be full again: each guess moves it further off.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str) -> int:
        """Whole seconds until a key from there is looked at again; 0: now."""
        full_at = self._full_at.get(place_of(address))
        if full_at is None:
            return 0
        return max(0, math.ceil(full_at - self._clock() - (self._most - 1) * self._every))

    def wrong(self, address: str) -> None:
        """A key from there was wrong."""
        place, now = place_of(address), self._clock()
        self._full_at[place] = max(now, self._full_at.get(place, now)) + self._every
        self._full_at.move_to_end(place)
        if len(self._full_at) > ADDRESSES:
            self._full_at.popitem(last=False)
