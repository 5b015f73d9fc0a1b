"""The gateways on this Redis: each says every few seconds that it is there. What people are told
depends on it, and where no task may call."""

from time import time
from typing import Final

import msgspec

from gateway.store.scripts import Runner

BEAT_SECONDS: Final = 5.0
_GONE_SECONDS: Final = 16  # three beats missed
_MOST: Final = 1000
_READS: Final = 3


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One process, as it last told. Times are Unix ms. ``listeners``: host and port of each, as they are bound;
    ``addresses``: those of its machine."""

    name: str
    version: str
    role: str
    started_at: int
    seen_at: int
    in_flight: int
    max_in_flight: int
    lanes: int = 0
    listeners: tuple[tuple[str, int], ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def dispatches(self) -> bool:
        """Whether it makes calls."""
        return self.role in {"all", "dispatcher"}


_decode = msgspec.json.Decoder(Replica).decode


class Replicas:
    """Says that this process is there, and tells which others are."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._index = runner.keyspace.replicas

    async def beat(self, replica: Replica) -> None:
        """Be seen until three beats from now."""
        run = self._runner.command
        now = int(time())
        await run("SET", self._key(replica.name), msgspec.json.encode(replica), "EX", _GONE_SECONDS)
        await run("ZADD", self._index, now, replica.name)
        if replica.dispatches:
            await run("SET", self._runner.keyspace.dispatcher_seen, replica.seen_at)
        await run("ZREMRANGEBYSCORE", self._index, "-inf", now - 60 * _GONE_SECONDS)

    async def leave(self, name: str) -> None:
        """Be seen no more."""
        await self._runner.command("DEL", self._key(name))
        await self._runner.command("ZREM", self._index, name)

    async def last_dispatcher(self) -> int | None:
        """When one that makes calls was last seen, Unix ms; None: never."""
        seen = await self._runner.command("GET", self._runner.keyspace.dispatcher_seen, tries=_READS)
        return None if seen is None else int(seen)

    async def all(self) -> list[Replica]:
        """Those that were seen lately, by name."""
        names = await self._runner.command("ZRANGE", self._index, 0, _MOST - 1, tries=_READS)
        if not names:
            return []
        told = await self._runner.command("MGET", *(self._key(name.decode()) for name in names), tries=_READS)
        return sorted((_decode(text) for text in told if text is not None), key=lambda replica: replica.name)

    def _key(self, name: str) -> str:
        return self._runner.keyspace.replica(name)
