"""Lists of clients, a page at a time: what is read of a client that is not on the page is its id, and its settings only
where a filter asks for them."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import chain
from time import monotonic
from typing import Any, Final

import msgspec
import orjson

from gateway.errors import StoreUnavailable
from gateway.models import CLIENT_ID_PATTERN, DEFAULT_TIER, Client
from gateway.store.cache import CACHE_SECONDS
from gateway.store.scripts import Runner

_IDS: Final = 5000  # a read of the index
_TEXTS: Final = 500  # a read of settings
_TURN: Final = 100  # settings that are looked at in one turn of the event loop
_READS: Final = 3
_PATIENCE: Final = 0.5  # seconds that a page waits for the search for other programs' settings
_ID: Final = re.compile(CLIENT_ID_PATTERN)


class ClientFilter(msgspec.Struct, frozen=True):
    """Which clients: all conditions that are given hold. ``search`` is part of the id, in any case of letters."""

    tier: str | None = None
    enabled: bool | None = None
    search: str | None = None

    @property
    def by_settings(self) -> bool:
        """Whether the id alone does not tell."""
        return self.tier is not None or self.enabled is not None

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Whether stored settings are those of such a client."""
        return (self.tier is None or (fields.get("tier") or DEFAULT_TIER) == self.tier) and (
            self.enabled is None or (fields.get("enabled") is not False) == self.enabled
        )


class ClientPage(msgspec.Struct, frozen=True):
    """A page of clients by id; ``count`` is all that match."""

    clients: list[Client]
    count: int
    next_cursor: str | None


class ClientList:
    """``readable`` makes a client of its stored text, None where it can't."""

    def __init__(self, runner: Runner, readable: Callable[[str, bytes], Client | None]) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._readable = readable
        self._adopted_at = -CACHE_SECONDS
        self._adopting: asyncio.Task[int] | None = None

    async def page(self, wanted: ClientFilter, *, after: str | None, limit: int | None) -> ClientPage:
        """Clients by id after ``after``, all of them where ``limit`` is None."""
        if monotonic() - self._adopted_at > CACHE_SECONDS:
            await self._adopt(whole=limit is None)
        ids = await self._ids(wanted.search)
        if wanted.by_settings:
            ids = [name async for name in self._matching(ids, wanted)]
        rest = ids if after is None else [name for name in ids if name > after]
        clients: list[Client] = []
        looked = 0
        async for name, text in self._texts(rest, _TEXTS if limit is None else limit):
            if limit is not None and len(clients) == limit:
                break
            looked += 1
            client = self._readable(name, text) if text is not None else None
            if client is not None:
                clients.append(client)
        count = len(clients) if limit is None and after is None else len(ids)
        return ClientPage(clients, count, rest[looked - 1] if looked < len(rest) else None)

    async def ids(self, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """Ids after ``after``, in order, also of clients whose settings can't be read; and after which to go on, None
        at the end."""
        if after is None:
            await self._adopt(whole=True)
        rest = [name for name in await self._ids(None) if after is None or name > after]
        return rest[:limit], rest[limit - 1] if len(rest) > limit else None

    async def _ids(self, search: str | None) -> list[str]:
        part = None if search is None else search.lower()

        async def of(partition: int) -> list[str]:
            found: list[str] = []
            index = self._keyspace.clients(partition)
            at = "-"
            while ids := await self._runner.command("ZRANGE", index, at, "+", "BYLEX", "LIMIT", 0, _IDS, tries=_READS):
                names = [name.decode() for name in ids]
                found += names if part is None else [name for name in names if part in name.lower()]
                at = f"({names[-1]}"
            return found

        return sorted(chain.from_iterable(await self._runner.over_partitions(of, all_of_them=True)))

    async def _matching(self, ids: list[str], wanted: ClientFilter) -> AsyncIterator[str]:
        async for name, text in self._texts(ids, _TEXTS):
            with contextlib.suppress(ValueError, AttributeError):  # what can't be read matches nothing
                if text is not None and wanted.matches(orjson.loads(text)):
                    yield name

    async def _texts(self, ids: list[str], step: int) -> AsyncIterator[tuple[str, bytes | None]]:
        """The stored settings of each, read ``step`` at a time."""
        for start in range(0, len(ids), step):
            some = ids[start : start + step]
            found: dict[str, bytes | None] = {}
            for names in self._by_partition(some):
                texts = await self._runner.command(
                    "MGET", *(self._keyspace.config(name) for name in names), tries=_READS
                )
                found |= zip(names, texts, strict=True)
            for at, name in enumerate(some):
                if at % _TURN == 0 and at:
                    await asyncio.sleep(0)
                yield name, found[name]

    def _by_partition(self, names: Iterable[str]) -> Iterable[list[str]]:
        apart: dict[int, list[str]] = {}
        for name in names:
            apart.setdefault(self._keyspace.partition(name), []).append(name)
        return apart.values()

    async def _adopt(self, *, whole: bool) -> None:
        """Have other programs' settings in the index. That looks at every key there is, so a page does not wait long
        for its end: what is found later is on the next."""
        if self._adopting is None or self._adopting.done():
            self._adopting = asyncio.create_task(self.adopt_foreign())
        done, _ = await asyncio.wait({self._adopting}, timeout=None if whole else _PATIENCE)
        if done:
            self._adopting.result()
        else:
            self._adopting.add_done_callback(_look_away)

    async def adopt_foreign(self) -> int:
        """Index the settings that another program wrote, which know nothing of the index; returns how many were new."""
        new = 0
        names: list[str] = []
        async for key in self._runner.link.scan(self._keyspace.config_pattern()):
            name = self._keyspace.config_client(key.decode())
            if _ID.match(name):
                names.append(name)
            if len(names) == _TEXTS:
                new += await self._index(names)
                names.clear()
        new += await self._index(names)
        self._adopted_at = monotonic()
        return new

    async def _index(self, names: list[str]) -> int:
        new = 0
        for some in self._by_partition(names):
            index = self._keyspace.clients(self._keyspace.partition(some[0]))
            members: list[str | int] = [part for name in some for part in (0, name)]
            new += await self._runner.command("ZADD", index, *members)
        return new


def _look_away(task: asyncio.Task[int]) -> None:
    """Nobody waits for it any more; where it failed, the next page tries again."""
    with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
        task.result()
