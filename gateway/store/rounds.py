"""Looks at clients in bounded stretches, again and again: at those with any state for what they have, at all for their
tiers."""

import asyncio
from collections import Counter, defaultdict
from typing import Final

import msgspec

from gateway.models import DEFAULT_TIER, RateLimit, Usage
from gateway.settings import Settings
from gateway.store.clients import Clients, UnreadableClient
from gateway.store.roll import ClientFigures, Roll
from gateway.store.scripts import Runner
from gateway.store.windows import Windows

# Clients with state that one stretch takes in, over all partitions.
ACTIVE: Final = 1000
# So many times as many, until each has been looked at once: what is told before that is not the whole.
FIRST: Final = 5
# Settings that one stretch of the census reads.
SETTINGS: Final = 10_000
MOST_TIERS: Final = 100
_AT_ONCE: Final = 50
_PAGE: Final = 500
_READS: Final = 3


class TierFigures(msgspec.Struct, frozen=True, array_like=True):
    """How many clients a tier has, and how many of them are enabled."""

    clients: int
    enabled: int


class ActiveClients:
    """The clients that have tasks or dead letters, as they were when they were last looked at."""

    def __init__(self, runner: Runner, clients: Clients, windows: Windows, settings: Settings) -> None:
        self._runner = runner
        self._clients = clients
        self._windows = windows
        self._depth = settings.max_queued_per_client
        self._stretch = max(1, ACTIVE // runner.keyspace.partitions)
        self._rolls: dict[int, Roll] = defaultdict(Roll)
        self._starts: dict[int, int] = defaultdict(int)  # how far the round is in each partition

    @property
    def rolls(self) -> list[Roll]:
        """What was seen in each partition."""
        return list(self._rolls.values())

    @property
    def complete(self) -> bool:
        """Whether each has been looked at by now."""
        return all(roll.complete for roll in self.rolls)

    @property
    def at_once(self) -> bool:
        """Whether a stretch takes in all of them."""
        return all(len(roll.seen) < self._stretch for roll in self.rolls)

    async def go_on(self) -> int:
        """Look at the next stretch of each partition; returns how many tasks wait or run, over all clients."""
        return sum(await self._runner.over_partitions(self._look))

    async def _look(self, partition: int) -> int:
        keyspace = self._runner.keyspace
        roll, start = self._rolls[partition], self._starts[partition]
        limit = self._stretch * (1 if roll.complete else FIRST)
        rows = await self._runner.command("ZRANGE", keyspace.active(partition), start, start + limit - 1, tries=_READS)
        names = [row.decode() for row in rows]
        for at in range(0, len(names), _AT_ONCE):
            roll.meet(await asyncio.gather(*map(self._one, names[at : at + _AT_ONCE])))
        self._starts[partition] = start + limit
        if len(names) < limit:
            roll.end_round()
            self._starts[partition] = 0
        return int(await self._runner.command("HGET", keyspace.totals(partition), "n", tries=_READS) or 0)

    async def _one(self, client_id: str) -> ClientFigures:
        usage, limit = await self._windows.usage(client_id), await self._limit(client_id)
        return ClientFigures(
            client_id,
            usage.queued,
            usage.scheduled,
            usage.in_flight,
            usage.dead,
            usage.oldest_waiting,
            self._shares(usage, limit),
        )

    def _shares(self, usage: Usage, limit: RateLimit) -> tuple[float, float, float]:
        return (
            usage.in_flight / limit.max_concurrent,
            usage.window.used / limit.requests_per_min,
            (usage.queued + usage.scheduled + usage.in_flight) / self._depth,
        )

    async def _limit(self, client_id: str) -> RateLimit:
        try:
            client = await self._clients.get(client_id)
        except UnreadableClient:
            client = None
        return (client or self._clients.new(client_id)).rate_limit


class _Kept(msgspec.Struct):
    """What the census reads of a client's settings."""

    tier: str | None = None
    enabled: bool | None = None


_decode: Final = msgspec.json.Decoder(_Kept).decode


class Census:
    """How many clients there are, by tier. ``tiers`` is None until all have been counted once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._partition = 0
        self._after = "-"
        self._clients: Counter[str] = Counter()
        self._enabled: Counter[str] = Counter()
        self.tiers: dict[str, TierFigures] | None = None

    async def go_on(self) -> None:
        """Count the next stretch; at its end a round becomes the answer."""
        keyspace = self._runner.keyspace
        for _ in range(0, SETTINGS + _PAGE * keyspace.partitions, _PAGE):
            index = keyspace.clients(self._partition)
            rows = await self._runner.command(
                *("ZRANGE", index, self._after, "+", "BYLEX", "LIMIT", 0, _PAGE), tries=_READS
            )
            names = [row.decode() for row in rows]
            if names:
                keys = (keyspace.config(name) for name in names)
                for text in await self._runner.command("MGET", *keys, tries=_READS):
                    self._count(text)
            self._after = f"({names[-1]}" if len(names) == _PAGE else "-"
            if len(names) < _PAGE:
                self._partition += 1
                if self._partition == keyspace.partitions:
                    self._end()
                    return

    def _count(self, text: bytes | None) -> None:
        if text is None:
            return
        try:
            kept = _decode(text)
        except msgspec.DecodeError:
            kept = _Kept("unreadable", enabled=False)
        tier = kept.tier or DEFAULT_TIER
        tier = tier if tier in self._clients or len(self._clients) < MOST_TIERS else "other"
        self._clients[tier] += 1
        self._enabled[tier] += kept.enabled is not False

    def _end(self) -> None:
        self.tiers = {tier: TierFigures(count, self._enabled[tier]) for tier, count in self._clients.items()}
        self._clients, self._enabled, self._partition = Counter(), Counter(), 0
