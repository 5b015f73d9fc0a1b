"""Tasks by filter, without an index: pages that walk what holds the tasks of one client after the other. A page looks
at a bounded number of them and always says where to go on."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from gateway.models import State, TaskDetail
from gateway.store.payload import Payloads
from gateway.store.records import detail
from gateway.store.scripts import Runner
from gateway.task_filter import TaskFilter

_LOOKED_AT: Final = 2000  # tasks a page may cost, and clients; then it hands a cursor on, however few it has found
_STRETCH: Final = 200  # tasks a script call looks at
_STRETCH_BYTES: Final = 4 * 1024 * 1024
_AT_ONCE: Final = 32  # clients
_ASKED_AT_ONCE: Final = 640  # those that are only asked whether they have any, _AT_ONCE by a command
_ASKED_EACH: Final = 20  # of them cost less than a look at a task
_READS: Final = 3
_HOLDERS: Final = {
    "s": {State.QUEUED, State.RUNNING},
    "z": {State.SCHEDULED, State.RETRYING},
    "d": {State.DEAD},
    "e": {State.SUCCEEDED, State.CANCELLED},
}
_APART: Final = {"z": "scheduled", "d": "dead", "e": "ended"}
_CURSOR: Final = re.compile(
    r"(?P<client>[A-Za-z0-9_-]{3,64})\.(?P<score>\d{1,16})"
    r"(?:\.(?P<holder>s(?=\.[\w-]+\.\d+-)|[zde](?=\.\.\d+:))\.(?P<queue>[A-Za-z0-9_-]{0,64})"
    # One more digit of an entry's id, and Redis refuses some.
    r"\.(?P<position>\d{1,19}-\d{1,19}|\d{1,16}:[!-~]{1,64}))?",
    re.ASCII,
)


class Place(msgspec.Struct, frozen=True):
    """Where a walk has come to: behind a position of a client's, or (no holder) behind the client. ``score`` is the
    client's among the active ones."""

    client: str
    score: int = 0
    holder: str = ""
    queue: str = ""
    position: str = ""

    def __str__(self) -> str:
        within = f".{self.holder}.{self.queue}.{self.position}" if self.holder else ""
        return f"{self.client}.{self.score}{within}"


class TaskPage(msgspec.Struct, frozen=True):
    """Tasks in the order of the walk; ``next_cursor`` None: there are no more. ``looked_at``: what it took."""

    tasks: list[TaskDetail]
    next_cursor: str | None
    looked_at: int


class _Stretch(msgspec.Struct, frozen=True):
    rows: list[tuple[Place, TaskDetail]]
    looked_at: int
    end: Place | None


def parse_cursor(text: str) -> Place | None:
    """The place a cursor stands for, None where it is none."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        return None
    within = (found["holder"] or "", found["queue"] or "", found["position"] or "")
    return Place(found["client"], int(found["score"]), *within)


class Listing:
    """The tasks of all clients.

    Of one client: those in its queues, as they stand there; then the schedule, by when they are due; the dead, and the
    results, by when they ended. Without a client in the filter: those that have tasks, had some within five minutes,
    or have dead letters.
    """

    def __init__(self, runner: Runner, payloads: Payloads) -> None:
        self._runner = runner
        self._opened = payloads.opened  # only of those that are wanted: filters need no answers
        self._keyspace = runner.keyspace

    async def page(self, wanted: TaskFilter, *, cursor: Place | None, limit: int, newest: bool) -> TaskPage:
        """The next ``limit`` of those that are wanted."""
        if wanted.task_id is not None:
            return await self._one(wanted, wanted.task_id, cursor)
        found: list[TaskDetail] = []
        looked = 0
        async for part, behind in self._walk(wanted, cursor, newest=newest):
            for place, task in part.rows:
                if wanted.matches(task):
                    found.append(self._opened(task))
                    if len(found) == limit:
                        return TaskPage(found, str(place), looked + part.looked_at)
            looked += part.looked_at
            if looked >= _LOOKED_AT:
                return TaskPage(found, str(part.end or behind), looked)
        return TaskPage(found, None, looked)

    async def _walk(
        self, wanted: TaskFilter, cursor: Place | None, *, newest: bool
    ) -> AsyncIterator[tuple[_Stretch, Place]]:
        """Stretch by stretch, each with the place behind its client."""
        holders = "".join(letter for letter, states in _HOLDERS.items() if not wanted.states or states & wanted.states)

        async def stretch(place: Place) -> _Stretch:
            return await self._stretch(place, holders, wanted.queue or "", newest=newest)

        # Few clients have any where it is not about queues: most are passed over by a cheap question.
        asked = "s" not in holders and wanted.client_id is None
        async for found in self._clients(wanted, cursor, _ASKED_AT_ONCE if asked else _AT_ONCE):
            chunks = await self._having(found, holders) if asked else [found]
            for chunk in chunks:
                firsts = await asyncio.gather(*map(stretch, chunk))
                for start, first in zip(chunk, firsts, strict=True):
                    part = first
                    while True:
                        yield part, Place(start.client, start.score)
                        if part.end is None:
                            break
                        part = await stretch(part.end)
            if asked:
                yield _Stretch([], len(found) // _ASKED_EACH, None), Place(found[-1].client, found[-1].score)

    async def _having(self, places: list[Place], holders: str) -> list[list[Place]]:
        """Those groups of neighbours in which any client has tasks there."""
        groups = [places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE)]
        keys = (
            [self._keyspace.tasks_apart(place.client, _APART[letter]) for place in group for letter in holders]
            for group in groups
        )
        counts = await asyncio.gather(*(self._runner.command("EXISTS", *some, tries=_READS) for some in keys))
        return [group for group, count in zip(groups, counts, strict=True) if count]

    async def clients(self, cursor: Place | None, limit: int) -> tuple[list[str], str | None]:
        """The next clients that have tasks, had some within five minutes, or have dead letters; and where to go on."""
        found: list[Place] = []
        async for chunk in self._clients(TaskFilter(), cursor and Place(cursor.client, cursor.score)):
            found += chunk
            if len(found) > limit:
                return [place.client for place in found[:limit]], str(found[limit - 1])
        return [place.client for place in found], None

    async def _stretch(self, place: Place, holders: str, queue: str, *, newest: bool) -> _Stretch:
        where = (place.holder, place.queue, place.position)
        looked, *rest = await self._runner.run(
            "list", place.client, holders, queue, *where, _STRETCH, int(newest), _STRETCH_BYTES
        )
        texts = [text.decode() for text in rest[:3]]
        end = Place(place.client, place.score, *texts) if texts[0] else None
        rows = []
        for at in range(3, len(rest), 6):
            holder, its_queue, position, name, running, packed = rest[at : at + 6]
            its_place = Place(place.client, place.score, holder.decode(), its_queue.decode(), position.decode())
            rows.append((its_place, detail(name.decode(), packed, running=bool(running))))
        return _Stretch(rows, max(looked, 1), end)

    async def _one(self, wanted: TaskFilter, task_id: str, cursor: Place | None) -> TaskPage:
        """By its id: where its client is not known, first by its record, which tells, then client after client."""
        if cursor is None and wanted.client_id is None:
            keys = [self._keyspace.task_in(partition, task_id) for partition in range(self._keyspace.partitions)]
            records = await asyncio.gather(*(self._runner.command("GET", key, tries=_READS) for key in keys))
            for packed in filter(None, records):
                client_id = detail(task_id, packed, running=False).view.client_id or None  # it may be unreadable
                wanted = msgspec.structs.replace(wanted, client_id=client_id)
        looked = 0
        async for chunk in self._clients(wanted, cursor):
            replies = await asyncio.gather(*(self._runner.run("status", at.client, task_id) for at in chunk))
            looked += len(chunk)
            for reply in filter(None, replies):
                task = detail(task_id, reply[1], running=bool(reply[0]))
                return TaskPage([self._opened(task)] if wanted.matches(task) else [], None, looked)
            if looked >= _LOOKED_AT:
                return TaskPage([], str(Place(chunk[-1].client, chunk[-1].score)), looked)
        return TaskPage([], None, looked)

    async def _clients(
        self, wanted: TaskFilter, cursor: Place | None, at_once: int = _AT_ONCE
    ) -> AsyncIterator[list[Place]]:
        """Where to begin, for each client that may have some; so many ``at_once``."""
        if wanted.client_id is not None:
            if cursor is None:
                yield [Place(wanted.client_id)]
            elif cursor.holder:
                yield [cursor]
            return
        if cursor is not None and cursor.holder:
            yield [cursor]
        begin = 0 if cursor is None else self._keyspace.partition(cursor.client)
        for partition in range(begin, self._keyspace.partitions):
            last = cursor if cursor is not None and partition == begin else None
            async for chunk in self._active(self._keyspace.active(partition), last, at_once):
                yield chunk

    async def _active(self, key: str, last: Place | None, at_once: int) -> AsyncIterator[list[Place]]:
        """The active clients behind ``last``. Those that come and go move the ranks of the others, so each look begins
        with the last one of the look before; where that is elsewhere by now, its place is searched."""
        rank = 0
        while True:
            places = await self._places(key, max(0, rank - 1), rank + at_once - 1)
            if last is not None and rank and places and places[0] == last:
                places = places[1:]
            elif last is not None:
                rank = await self._rank_behind(key, last)
                places = await self._places(key, rank, rank + at_once - 1)
            if not places:
                return
            rank += len(places)
            last = places[-1]
            yield places

    async def _rank_behind(self, key: str, place: Place) -> int:
        """The rank of the first active client behind the place, whose own client may be elsewhere now, or gone."""
        low = 0
        high = int(await self._runner.command("ZCARD", key, tries=_READS))
        while low < high:
            middle = (low + high) // 2
            found = await self._places(key, middle, middle)
            if found and (found[0].score, found[0].client) <= (place.score, place.client):
                low = middle + 1
            else:
                high = middle
        return low

    async def _places(self, key: str, start: int, stop: int) -> list[Place]:
        rows: list[Any] = await self._runner.command("ZRANGE", key, start, stop, "WITHSCORES", tries=_READS)
        return [Place(rows[at].decode(), int(float(rows[at + 1]))) for at in range(0, len(rows), 2)]
