"""What clients have, in sum, and who of them comes first: kept up while they are looked at, some at a time, since a
look at a thousand must not cost a walk over all."""

from collections.abc import Callable, Iterable
from heapq import nlargest
from itertools import chain
from operator import add, sub
from typing import Final

import msgspec

# Clients whose own figures are in a snapshot: those with most tasks.
SHOWN: Final = 2000
LONGEST: Final = 20
_NOTHING: Final = (0, 0, 0, 0)


class ClientFigures(msgspec.Struct, frozen=True, array_like=True):
    """What one client has. ``oldest_waiting`` in seconds, None where none waits; ``shares``: how much it has used of
    its concurrency, its window and its depth."""

    client_id: str
    queued: int
    scheduled: int
    in_flight: int
    dead: int
    oldest_waiting: float | None
    shares: tuple[float, float, float]

    @property
    def depths(self) -> tuple[int, int, int, int]:
        """Queued, scheduled, in flight, dead."""
        return self.queued, self.scheduled, self.in_flight, self.dead


def _waits(client: ClientFigures) -> float:
    return 0.0 if client.oldest_waiting is None else client.oldest_waiting + 0.001  # due just now is waiting, too


def _has(client: ClientFigures) -> int:
    return client.queued + client.scheduled + client.in_flight + client.dead


class _First:
    """Who comes first by a rank above 0: of this round, and of the last one who was not met yet in this."""

    def __init__(self, most: int, rank: Callable[[ClientFigures], float]) -> None:
        self._most = most
        self._rank = rank
        self._met: list[ClientFigures] = []
        self._last: list[str] = []

    def meet(self, looked: list[ClientFigures]) -> None:
        self._met = nlargest(self._most, chain(self._met, filter(self._rank, looked)), key=self._rank)

    def end(self) -> None:
        self._last, self._met = [client.client_id for client in self._met], []

    def now(self, roll: "Roll") -> list[ClientFigures]:
        unmet = (roll.seen[name] for name in self._last if name in roll.seen and name not in roll.met)
        found = {client.client_id: client for client in chain(unmet, self._met) if self._rank(client)}
        return nlargest(self._most, found.values(), key=self._rank)


class Roll:
    """Some of the clients, as they were when they were last looked at, round after round. ``sums``: what they have in
    all; ``active``: how many have tasks that wait or run; ``at_limit``: how many have used up each of their limits."""

    def __init__(self) -> None:
        self.seen: dict[str, ClientFigures] = {}
        self.met: set[str] = set()
        self.complete = False
        self.sums: tuple[int, ...] = _NOTHING
        self.active = 0
        self.at_limit: tuple[int, ...] = (0, 0, 0)
        self._largest = _First(SHOWN, _has)
        self._longest = _First(LONGEST, _waits)
        self._fullest = [_First(1 + LONGEST, lambda client, at=at: client.shares[at]) for at in range(3)]  # type: ignore[misc]

    def meet(self, looked: list[ClientFigures]) -> None:
        """These were looked at."""
        for client in looked:
            self._count(self.seen.get(client.client_id), sub)
            self._count(client, add)
            self.seen[client.client_id] = client
            self.met.add(client.client_id)
        for first in self._firsts:
            first.meet(looked)

    def end_round(self) -> None:
        """All were looked at; whoever was not met has nothing any more."""
        for name in self.seen.keys() - self.met:
            self._count(self.seen.pop(name), sub)
        for first in self._firsts:
            first.end()
        self.met, self.complete = set(), True

    def largest(self) -> list[ClientFigures]:
        """The first `SHOWN` by how many tasks they have."""
        return self._largest.now(self)

    def longest(self) -> list[ClientFigures]:
        """The first `LONGEST` by how long their oldest task waits."""
        return self._longest.now(self)

    def highest(self) -> tuple[float, ...]:
        """The largest share of each limit that any has used."""
        return tuple(
            max((client.shares[at] for client in first.now(self)), default=0.0)
            for at, first in enumerate(self._fullest)
        )

    @property
    def _firsts(self) -> Iterable[_First]:
        return (self._largest, self._longest, *self._fullest)

    def _count(self, client: ClientFigures | None, into: Callable[[int, int], int]) -> None:
        if client is None:
            return
        self.sums = tuple(map(into, self.sums, client.depths))
        self.active = into(self.active, any(client.depths[:3]))
        self.at_limit = tuple(
            into(count, share >= 1) for count, share in zip(self.at_limit, client.shares, strict=True)
        )


def first_of(lists: Iterable[list[ClientFigures]], most: int, *, longest: bool) -> list[ClientFigures]:
    """The first of several rolls together: by how long they wait, or by how many tasks they have."""
    return nlargest(most, chain.from_iterable(lists), key=_waits if longest else _has)
