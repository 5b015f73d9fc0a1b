"""Dead letters: the tasks of a client that were given up, kept with their payloads until they are replayed, purged or
too old. They are found by walking the index of the client's dead; nothing is kept for the filters."""

from collections.abc import AsyncIterator
from time import time
from typing import Final

import msgspec

from gateway.models import DeadFilter, DeadLetter
from gateway.store.records import dead_letter
from gateway.store.scripts import Runner

_CHUNK: Final = 100
_LOOKED_AT: Final = 2000  # dead letters a page may cost; then it hands a cursor on, however few it has found
_READS: Final = 3


class DeadPage(msgspec.Struct, frozen=True):
    """Dead letters, newest first; ``next_cursor`` None: there are no more."""

    letters: list[DeadLetter]
    next_cursor: str | None


class DeadLetters:
    """The dead letters of clients."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def page(self, client_id: str, wanted: DeadFilter, *, cursor: str | None, limit: int) -> DeadPage:
        """The next ``limit`` of those that are wanted. A cursor is the id of the last one that was looked at."""
        key = self._runner.keyspace.dead(client_id)
        found: list[DeadLetter] = []
        start = 0
        if cursor is not None:
            rank = await self._runner.command("ZREVRANK", key, cursor, tries=_READS)
            start = 0 if rank is None else rank + 1
        for at in range(start, start + _LOOKED_AT, _CHUNK):
            ids = [name.decode() for name in await self._ids(key, at, reverse=True)]
            for letter in await self._read(client_id, ids):
                cursor = letter.view.task_id
                if wanted.matches(letter):
                    found.append(letter)
                    if len(found) == limit:
                        return DeadPage(found, cursor)
            if len(ids) < _CHUNK:
                return DeadPage(found, None)
        return DeadPage(found, cursor)

    async def replay(self, client_id: str, wanted: DeadFilter) -> int:
        """Put those that are wanted back on their queues, oldest first; returns how many."""
        return await self._do("replay", client_id, wanted)

    async def purge(self, client_id: str, wanted: DeadFilter) -> int:
        """Remove those that are wanted; returns how many."""
        return await self._do("forget", client_id, wanted)

    async def _do(self, script: str, client_id: str, wanted: DeadFilter) -> int:
        done = 0
        async for ids in self._matching(client_id, wanted):
            done += await self._runner.run(script, client_id, *ids)
        return done

    async def _matching(self, client_id: str, wanted: DeadFilter) -> AsyncIterator[list[str]]:
        """The ids of those that are wanted and dead by now, oldest first, in chunks."""
        key = self._runner.keyspace.dead(client_id)
        began = int(time() * 1000)
        at = 0
        while ids := [name.decode() for name in await self._ids(key, at, reverse=False)]:
            letters = await self._read(client_id, ids)
            chosen = [letter.view.task_id for letter in letters if wanted.matches(letter)]
            if chosen:
                yield chosen
            # What was chosen has left the index meanwhile; what dies anew comes in at its end.
            at += len(ids) - len(chosen)
            if letters and (letters[-1].view.finished_at or 0) > began:
                return

    async def _ids(self, key: str, start: int, *, reverse: bool) -> list[bytes]:
        order = ("REV",) if reverse else ()
        found: list[bytes] = await self._runner.command("ZRANGE", key, start, start + _CHUNK - 1, *order, tries=_READS)
        return found

    async def _read(self, client_id: str, ids: list[str]) -> list[DeadLetter]:
        if not ids:
            return []
        keys = (self._runner.keyspace.task(client_id, task_id) for task_id in ids)
        records = await self._runner.command("MGET", *keys, tries=_READS)
        return [dead_letter(name, packed) for name, packed in zip(ids, records, strict=True) if packed is not None]
