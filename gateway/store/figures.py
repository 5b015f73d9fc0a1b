"""The figures of all clients together: what waits, runs and is dead, who is at a limit, which tiers there are. One
process at a time looks them up, in bounded stretches, and leaves them in Redis, where every process reads the same."""

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.clients import Clients
from gateway.store.roll import LONGEST, SHOWN, ClientFigures, first_of
from gateway.store.rounds import ActiveClients, Census, TierFigures
from gateway.store.scripts import Runner
from gateway.store.usage import Usages
from gateway.store.windows import Windows

log = structlog.get_logger()

SECONDS: Final = 5.0
LIMITS: Final = ("concurrency", "window", "depth")
CANDIDATE_MINUTES: Final = 10
_TURN_MS: Final = int(2.5 * SECONDS * 1000)
_KEPT_SECONDS: Final = 60
_STALE_SECONDS: Final = 3 * SECONDS
_READS: Final = 3


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. ``at`` is Unix ms by Redis's clock.

    ``queued`` to ``dead`` are sums over all clients, ``rest`` those of the clients that are not among ``clients``;
    ``longest``: those whose tasks wait longest; ``active``: how many have tasks that wait or run. ``sampled``: more
    clients have state than one look takes in, and what is told of each is as old as a round over them. ``saturation``:
    the largest share that any client has used of each of `LIMITS`; ``at_limit``: how many have used it up.
    ``candidates``: how many were refused in more than `CANDIDATE_MINUTES` minutes of the last day.
    """

    at: int
    queued: int
    scheduled: int
    in_flight: int
    dead: int
    active: int
    sampled: bool
    oldest_waiting: float
    saturation: tuple[float, ...]
    at_limit: tuple[int, ...]
    clients: list[ClientFigures]
    longest: list[ClientFigures]
    rest: tuple[int, ...]
    tiers: dict[str, TierFigures]
    candidates: int


_decode: Final = msgspec.msgpack.Decoder(Figures).decode


class Figured:
    """Looks the figures up and shares them."""

    def __init__(self, runner: Runner, clients: Clients, windows: Windows, usages: Usages, settings: Settings) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._usages = usages
        self._active = ActiveClients(runner, clients, windows, settings)
        self._census = Census(runner)
        self._looking = asyncio.Lock()

    async def latest(self, consumer: str) -> Figures:
        """The shared snapshot; taken anew where it is this process's turn or there is none."""
        async with self._looking:
            try:
                mine = await self._my_turn(consumer)
            except StoreUnavailable:  # away, or full: then it can still be looked at
                mine = True
            return (None if mine else await self.shared()) or await self.look()

    async def recent(self) -> Figures:
        """The shared snapshot; taken anew where there is none of late, since nobody else takes any."""
        found = await self.shared()
        if found is None or found.at / 1000 < await self._usages.now() - _STALE_SECONDS:
            async with self._looking:
                found = await self.look()
        return found

    async def shared(self) -> Figures | None:
        """The snapshot that some process left lately, None where none did."""
        packed = await self._runner.command("GET", self._keyspace.figures, tries=_READS)
        if packed is None:
            return None
        try:
            return _decode(packed)
        except msgspec.DecodeError:  # another version's
            return None

    async def look(self) -> Figures:
        """Take a snapshot and leave it for the others."""
        now = await self._usages.now()
        tasks = await self._active.go_on()
        await self._census.go_on()
        candidates = await self._usages.candidates(CANDIDATE_MINUTES, now)
        before = None if self._active.complete and self._census.tiers is not None else await self.shared()
        figures = self._snapshot(int(now * 1000), tasks, len(candidates), before)
        packed = msgspec.msgpack.encode(figures)
        try:
            await self._runner.command("SET", self._keyspace.figures, packed, "EX", _KEPT_SECONDS)
        except StoreUnavailable as error:  # full: who looks must see that, more than ever
            log.debug("figures_not_shared", error=error.message)
        return figures

    def _snapshot(self, at: int, tasks: int, candidates: int, before: Figures | None) -> Figures:
        """``before``: the last one, perhaps of a process that had been round already."""
        rolls = self._active.rolls
        shown = first_of((roll.largest() for roll in rolls), SHOWN, longest=False)
        waiting = first_of((roll.longest() for roll in rolls), LONGEST, longest=True)
        queued, scheduled, in_flight, dead = sums = _added(roll.sums for roll in rolls)
        of_shown = _added(client.depths for client in shown)
        if before is not None and not self._active.complete:
            scheduled, in_flight, dead = before.scheduled, before.in_flight, before.dead
        if not self._active.at_once:
            queued = max(0, tasks - scheduled - in_flight)
        tiers = self._census.tiers if self._census.tiers is not None or before is None else before.tiers
        return Figures(
            at=at,
            queued=queued,
            scheduled=scheduled,
            in_flight=in_flight,
            dead=dead,
            active=sum(roll.active for roll in rolls),
            sampled=not self._active.at_once,
            oldest_waiting=waiting[0].oldest_waiting or 0.0 if waiting else 0.0,
            # Who has just had its last task done may still be at the limit of its window: these are of everyone seen.
            saturation=tuple(map(max, zip(*(roll.highest() for roll in rolls), strict=True))),
            at_limit=tuple(map(sum, zip(*(roll.at_limit for roll in rolls), strict=True))),
            clients=shown,
            longest=waiting,
            rest=tuple(all_of - theirs for all_of, theirs in zip(sums, of_shown, strict=True)),
            tiers=tiers or {},
            candidates=candidates,
        )

    async def _my_turn(self, consumer: str) -> bool:
        key = self._keyspace.figures_turn
        if await self._runner.command("SET", key, consumer, "NX", "PX", _TURN_MS) is not None:
            return True
        if await self._runner.command("GET", key, tries=_READS) != consumer.encode():
            return False
        return await self._runner.command("SET", key, consumer, "XX", "PX", _TURN_MS) is not None


def _added(depths: Iterable[tuple[int, ...]]) -> tuple[int, int, int, int]:
    queued, scheduled, in_flight, dead = map(sum, zip((0, 0, 0, 0), *depths, strict=True))
    return queued, scheduled, in_flight, dead
