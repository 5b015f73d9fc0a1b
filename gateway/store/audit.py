"""The self-audit: what a client's keys say, held against each other, and mended where they differ."""

from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import chain
from typing import Final

import msgspec

from gateway.store.scripts import Runner

_IDLE_MS: Final = 300_000  # an idle client's streams and consumers go after five minutes
_READS: Final = 3
_PAGE: Final = 500


class Violation(msgspec.Struct, frozen=True):
    """Two things that must agree and don't. ``kind`` is from a closed set (see audit.lua), ``detail`` a sentence."""

    client_id: str
    kind: str
    detail: str


class Audited(msgspec.Struct, frozen=True):
    """One stretch of the audit. ``more``: the round is not at its end."""

    violations: list[Violation]
    more: bool


class Audit:
    """Walks the clients that have any state."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._next: dict[int, int] = defaultdict(int)

    async def stretch(self, limit: int) -> Audited:
        """Look at the next ``limit`` active clients of each partition, and mend what differs."""

        async def of(partition: int) -> Audited:
            start = self._next[partition]
            ids = await self._ids(self._keyspace.active(partition), start, limit)
            self._next[partition] = start + limit if len(ids) == limit else 0
            found = [await self._look(client_id, mend=True) for client_id in ids]
            return Audited(list(chain.from_iterable(found)), len(ids) == limit)

        parts = await self._runner.over_partitions(of)
        violations = chain.from_iterable(part.violations for part in parts)
        return Audited(list(violations), any(part.more for part in parts))

    async def everything(self, *, mend: bool) -> AsyncIterator[tuple[str, list[Violation]]]:
        """Every client that is known or has state, with what is wrong with it."""
        for partition in range(self._keyspace.partitions):
            seen: set[str] = set()
            for index in (self._keyspace.active(partition), self._keyspace.clients(partition)):
                start = 0
                while ids := await self._ids(index, start, _PAGE):
                    start += len(ids)
                    for client_id in ids:
                        if client_id not in seen:
                            seen.add(client_id)
                            yield client_id, await self._look(client_id, mend=mend)

    async def _ids(self, index: str, start: int, limit: int) -> list[str]:
        rows = await self._runner.command("ZRANGE", index, start, start + limit - 1, tries=_READS)
        return [row.decode() for row in rows]

    async def _look(self, client_id: str, *, mend: bool) -> list[Violation]:
        rows = await self._runner.run("audit", client_id, _IDLE_MS, int(mend))
        return [Violation(client_id, kind.decode(), detail.decode()) for kind, detail in rows]
