"""The tiers that hold now: the shipped ones, on top those of TIERS_FILE, and on top of these what operators stored.
Every process has them at hand; a change is announced like one of all clients, and else noticed within a minute."""

import asyncio
import math
from itertools import chain
from typing import Final, Literal

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from gateway.errors import StoreUnavailable
from gateway.models import RateLimit
from gateway.parsing import SHIPPED_TIERS
from gateway.settings import Settings
from gateway.store.keyspace import Keyspace
from gateway.store.scripts import Runner, pack_policy

log = structlog.get_logger()

_REFRESH_SECONDS: Final = 60.0
_READS: Final = 3
_PAGE: Final = 200

Price = float | UnsetType | None
Origin = Literal["stored", "file", "shipped"]


class StoredTier(RateLimit, frozen=True, omit_defaults=True):
    """As operators stored it. ``price``: None takes the one of TIERS_FILE away, which holds where it is unset."""

    price: Price = UNSET


_decode = msgspec.json.Decoder(StoredTier).decode


class Tiers:
    """Tiers by name, and the policy that scripts get, which holds their numbers.

    ``current`` and ``prices`` stay the same objects, whatever they hold. ``packed`` is empty until what is stored was
    read once, so that no script runs under limits that do not hold.
    """

    def __init__(self, settings: Settings, keyspace: Keyspace) -> None:
        self._settings = settings
        self._keyspace = keyspace
        self._runner: Runner | None = None
        self.current: dict[str, RateLimit] = dict(settings.tiers)
        self.prices: dict[str, float] = dict(settings.tier_prices)
        self._stored: dict[str, StoredTier] = {}
        self.packed = b""

    def attach(self, runner: Runner) -> None:
        """What they are read and changed over."""
        self._runner = runner

    def origin(self, name: str) -> Origin | None:
        """Where the tier comes from, None where there is none."""
        if name in self._stored:
            return "stored"
        given = self._settings.tiers.get(name)
        if given is None:
            return None
        return "shipped" if given == SHIPPED_TIERS.get(name) else "file"

    async def load(self) -> bytes:
        """Read what is stored; returns the policy for scripts."""
        rows = await self._over.command("HGETALL", self._keyspace.tiers, tries=_READS)
        stored = {}
        for at in range(0, len(rows), 2):
            name = rows[at].decode()
            try:
                stored[name] = _decode(rows[at + 1])
            except msgspec.DecodeError as error:
                log.error("tier_unreadable", tier=name, error=str(error))
        self._stored = stored
        self.current.clear()
        self.current.update(self._settings.tiers)
        self.current.update(
            (name, RateLimit(tier.max_concurrent, tier.requests_per_min)) for name, tier in stored.items()
        )
        self._price()
        self.packed = pack_policy(self._settings, self.current)
        return self.packed

    async def refresh(self) -> bool:
        """Read them again, and have clients looked at that may start more under them; returns whether they changed."""
        before = dict(self.current)
        await self.load()
        changed = {name for name in {*before, *self.current} if before.get(name) != self.current.get(name)}
        if changed:
            log.info("tiers_changed", tiers=sorted(changed))
            await self._wake()
        return bool(changed)

    def _price(self) -> None:
        self.prices.clear()
        self.prices.update(self._settings.tier_prices)
        for name, tier in self._stored.items():
            if tier.price is None:
                self.prices.pop(name, None)
            elif tier.price is not UNSET and 0 <= tier.price < math.inf:
                self.prices[name] = tier.price

    async def store(self, name: str, limit: RateLimit | None, price: Price = UNSET) -> None:
        """Store a tier, or (None) no longer; heard by every process. Unless given, it keeps the price it has; None: it
        has none from now on."""
        if price is UNSET and name in self._stored:
            price = self._stored[name].price
        value = b""
        if limit is not None:
            value = msgspec.json.encode(StoredTier(limit.max_concurrent, limit.requests_per_min, price))
        bell = self._keyspace.bells[0]
        publish = "SPUBLISH" if self._keyspace.partitions > 1 else "PUBLISH"
        key = self._keyspace.tiers
        if value:
            await self._over.command("HSET", key, name, value)
        else:
            await self._over.command("HDEL", key, name)
        await self._over.command(publish, bell, "c")
        await self.refresh()

    async def keep(self) -> None:
        """Notice what was changed without an announcement, until cancelled."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self.refresh()
            except StoreUnavailable as error:
                log.debug("tiers_not_read", error=error.message)

    async def _wake(self) -> None:
        """Only what ends a call looks again at a client that is at its limit, and calls may be long."""

        async def of(partition: int) -> list[str]:
            rows: list[bytes] = []
            start = 0
            while len(rows) == start:
                rows += await self._over.command(
                    "ZRANGE", self._keyspace.leases(partition), start, start + _PAGE - 1, tries=_READS
                )
                start += _PAGE
            return [row.decode() for row in rows]

        for client_id in chain.from_iterable(await self._over.over_partitions(of)):
            await self._over.run("wake", client_id)

    @property
    def _over(self) -> Runner:
        assert self._runner is not None
        return self._runner
