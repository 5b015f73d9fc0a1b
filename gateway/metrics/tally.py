"""What is counted of a client in a stretch of time: a flat list of numbers, quick to count in, and what it tells."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

Tally = list[int]

# Upper bounds of the buckets of durations, in seconds; one more bucket is above the last.
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
# Where a tally has what. `REFUSED_MINUTES` is filled in where minutes are added up (store/count_usage.lua).
ADMITTED, REFUSED, DELIVERED, FAILED, REFUSED_MINUTES, BUCKETS = range(6)
_SIZE: Final = BUCKETS + len(BOUNDS) + 1
_decode: Final = msgspec.msgpack.Decoder(list[int]).decode


def empty() -> Tally:
    """Nothing happened."""
    return [0] * _SIZE


def bucket(seconds: float) -> int:
    """Where a tally counts calls that took so long."""
    return BUCKETS + bisect_left(BOUNDS, seconds)


def pack(tally: Tally) -> bytes:
    """The stored form: the counts, then pairs of bucket and count for the buckets that have any."""
    pairs = (number for at, count in enumerate(tally[BUCKETS:]) if count for number in (at, count))
    return msgspec.msgpack.encode([*tally[:BUCKETS], *pairs])


def add_packed(tally: Tally, packed: bytes) -> None:
    """Add what `pack` made of another."""
    numbers = _decode(packed)
    for at in range(BUCKETS):
        tally[at] += numbers[at]
    for at in range(BUCKETS, len(numbers), 2):
        tally[BUCKETS + numbers[at]] += numbers[at + 1]


def add(tally: Tally, other: Tally) -> None:
    """Add another."""
    for at, number in enumerate(other):
        tally[at] += number


def quantile(tally: Sequence[int], share: float) -> float | None:
    """The seconds that this share of the calls stayed below, None without calls; within a bucket it is interpolated,
    as Prometheus does, and what is above the last bound counts as that.

    >>> quantile([0, 0, 4, 0, 0] + [0, 0, 4] + [0] * 13, 0.5)
    0.0175
    """
    counts = tally[BUCKETS:]
    wanted = sum(counts) * share
    if not wanted:
        return None
    below, lower = 0, 0.0
    for count, upper in zip(counts, BOUNDS, strict=False):
        if count and below + count >= wanted:
            return round(lower + (upper - lower) * (wanted - below) / count, 6)
        below, lower = below + count, upper
    return BOUNDS[-1]
