"""What clients did: by minute for a day, by hour for 90 days, each and all in sum; who was refused and failed most.
Booked as the processes counted it (`gateway.store.counting`); nothing here walks all clients."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final

import msgspec
import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.metrics import tally
from gateway.metrics.tally import BUCKETS, REFUSED, REFUSED_MINUTES, Tally
from gateway.metrics.usage import NOBODY, Counted
from gateway.store.scripts import Runner, script

log = structlog.get_logger()

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400
KEPT: Final = {MINUTE: DAY, HOUR: 90 * DAY}
EVERYBODY: Final = ""
_CLIENTS_A_PIECE: Final = 50
_READ_AT_ONCE: Final = 50
_RANKED: Final = 20  # of each of two hours: who may be among those that are listed
_CANDIDATES: Final = 1000  # the same of each of two days
_READS: Final = 3


class Batch(msgspec.Struct):
    """What is still to be booked to a Unix minute: tallies by client, and failed calls by what failed."""

    minute: int
    tallies: dict[str, Tally]
    failures: dict[tuple[str, str], int]

    @classmethod
    def of(cls, counted: Counted, minute: int) -> "Batch":
        """What was counted, and all of it in sum."""
        everybody = tally.empty()
        for counts in counted.tallies.values():
            tally.add(everybody, counts)
        tallies = {name: counts for name, counts in counted.tallies.items() if name != NOBODY}
        if any(everybody):
            tallies[EVERYBODY] = everybody
        failures = {("status", name): count for name, count in counted.statuses.items()}
        failures.update({("host", name): count for name, count in counted.hosts.items()})
        return cls(minute, tallies, failures)

    def merge(self, other: "Batch") -> None:
        """Add another one of the same minute."""
        for name, counts in other.tallies.items():
            there = self.tallies.setdefault(name, counts)
            if there is not counts:
                tally.add(there, counts)
        for what, count in other.failures.items():
            self.failures[what] = self.failures.get(what, 0) + count

    @property
    def empty(self) -> bool:
        """Whether there is nothing to book."""
        return not self.tallies and not self.failures

    def events(self) -> int:
        """How many requests and calls of single clients are in it."""
        return sum(sum(counts[:BUCKETS]) for name, counts in self.tallies.items() if name != EVERYBODY)


class Failures(msgspec.Struct, frozen=True):
    """Failed calls by status or kind of error, and by host; most first."""

    by_status: list[tuple[str, int]]
    by_host: list[tuple[str, int]]


class Usages:
    """The usage of clients, as Redis keeps it. Times are Unix seconds by Redis's clock."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace

    async def now(self) -> float:
        """Redis's clock."""
        seconds, micros = await self._runner.command("TIME", tries=_READS)
        return int(seconds) + int(micros) / 1_000_000

    # --- booking ------------------------------------------------------------------------------------------------------

    async def book(self, batch: Batch) -> None:
        """Add all of the batch, which is empty then. Raises StoreUnavailable and leaves in the batch what Redis did not
        take; where nobody knows, it is given up, since a second try might count it twice."""
        while not batch.empty:
            await self.book_some(batch)

    async def book_some(self, batch: Batch) -> None:
        """The same for a piece of it: the sum of all, the failures and some clients, whose commands hold up Redis for a
        millisecond each."""
        groups: dict[int, list[str]] = defaultdict(list)
        if EVERYBODY in batch.tallies:
            groups[0].append(EVERYBODY)
        for client_id in islice((name for name in batch.tallies if name != EVERYBODY), _CLIENTS_A_PIECE):
            groups[self._keyspace.partition(client_id)].append(client_id)
        for partition, client_ids in groups.items():
            part = Batch(batch.minute, {name: batch.tallies.pop(name) for name in client_ids}, {})
            await self._given_up_if_unknown(batch, part, self._tallies_command(part, partition))
        if batch.failures:
            part = Batch(batch.minute, {}, batch.failures)
            batch.failures = {}
            await self._given_up_if_unknown(batch, part, self._failures_command(part))

    async def _given_up_if_unknown(self, batch: Batch, part: Batch, command: list[str | bytes | int]) -> None:
        try:
            await self._runner.command(*command)
        except StoreUnavailable as error:
            if not error.unknown:
                batch.merge(part)
                raise
            self.give_up(part)

    @staticmethod
    def give_up(batch: Batch) -> None:
        """Tell that this will not be booked."""
        metrics.usage_lost(batch.events())
        log.warning("usage_lost", minute=batch.minute, clients=len(batch.tallies), events=batch.events())

    def _tallies_command(self, part: Batch, partition: int) -> list[str | bytes | int]:
        hour, minute = divmod(part.minute, 60)
        day, hour_of_day = divmod(hour, 24)
        keyspace = self._keyspace
        keys = [
            keyspace.most_refused(hour, partition),
            keyspace.most_failed(hour, partition),
            keyspace.refused_minutes(day, partition),
        ]
        told: list[str | bytes] = []
        for client_id, counts in part.tallies.items():
            keys += (keyspace.usage_minutes(client_id, hour), keyspace.usage_hours(client_id, day))
            told += (client_id, tally.pack(counts))
        # By its source: a few kilobytes a flush, and a restarted Redis has it at once.
        return ["EVAL", script("count_usage").source, len(keys), *keys, minute, hour_of_day, *told]

    def _failures_command(self, part: Batch) -> list[str | bytes | int]:
        hour, minute = divmod(part.minute, 60)
        told: list[str | int] = []
        for (kind, name), count in part.failures.items():
            told += (f"{minute} {kind} {name}", f"{minute} {kind} other", count)
        return ["EVAL", script("count_failures").source, 1, self._keyspace.failures(hour), *told]

    # --- reading ------------------------------------------------------------------------------------------------------

    async def steps(self, client_id: str, start: int, end: int, step: int) -> dict[int, Tally]:
        """What happened in each ``step`` (a minute or an hour) from ``start`` until before ``end``, both at its edge,
        by its begin; steps without anything are left out. `EVERYBODY`: all clients in sum."""
        key = self._keyspace.usage_minutes if step == MINUTE else self._keyspace.usage_hours
        span = HOUR if step == MINUTE else DAY
        hashes = range(start // span, -(-end // span))
        rows = await asyncio.gather(*(self._hash(key(client_id, at)) for at in hashes))
        found: dict[int, Tally] = {}
        for at, fields in zip(hashes, rows, strict=True):
            for field, packed in fields.items():
                begin = at * span + int(field) * step
                if start <= begin < end:
                    tally.add_packed(found.setdefault(begin, tally.empty()), packed)
        return found

    async def last_hour(self, client_id: str, now: float) -> Tally:
        """What happened in the minute that runs and the 59 before it."""
        end = (int(now) // MINUTE + 1) * MINUTE
        return added((await self.steps(client_id, end - HOUR, end, MINUTE)).values())

    async def most(self, of: int, now: float, limit: int) -> list[tuple[str, Tally]]:
        """Whose requests were refused (`REFUSED`) or whose calls failed (`FAILED`) most in the last hour, with all
        that they did in it. Chosen among the first 20 of this hour and of the one before."""
        key = self._keyspace.most_refused if of == REFUSED else self._keyspace.most_failed
        hour = int(now) // HOUR
        names = await self._ranked(lambda partition: (key(hour, partition), key(hour - 1, partition)), 0, _RANKED)
        did = await asyncio.gather(*(self.last_hour(name, now) for name in names))
        found = sorted(zip(names, did, strict=True), key=lambda row: (-row[1][of], row[0]))
        return [row for row in found[:limit] if row[1][of]]

    async def candidates(self, minutes: int, now: float) -> list[tuple[str, Tally]]:
        """Clients that were refused in more than ``minutes`` minutes of the hour that runs and the 23 before it, with
        all that they did in them; most minutes first. Chosen among the first 1,000 of this day and of the one before:
        whoever is one was refused in more than half of that in one of the two."""
        day = int(now) // DAY
        key = self._keyspace.refused_minutes
        names = await self._ranked(
            lambda partition: (key(day, partition), key(day - 1, partition)), minutes / 2, _CANDIDATES
        )
        end = (int(now) // HOUR + 1) * HOUR
        found = []
        for chunk in _chunks(names):
            days = await asyncio.gather(*(self.steps(name, end - DAY, end, HOUR) for name in chunk))
            found += [(name, added(steps.values())) for name, steps in zip(chunk, days, strict=True)]
        chosen = [row for row in found if row[1][REFUSED_MINUTES] > minutes]
        return sorted(chosen, key=lambda row: (-row[1][REFUSED_MINUTES], -row[1][REFUSED], row[0]))

    async def failures(self, now: float) -> Failures:
        """Those of the minute that runs and the 59 before it."""
        counts: dict[str, Counter[str]] = {"status": Counter(), "host": Counter()}
        last = int(now) // MINUTE
        for hour in (last // 60 - 1, last // 60):
            for field, count in (await self._hash(self._keyspace.failures(hour))).items():
                minute, kind, name = field.split(" ", 2)
                if last - 60 < hour * 60 + int(minute) <= last:
                    counts[kind][name] += int(count)
        return Failures(counts["status"].most_common(), counts["host"].most_common())

    async def _ranked(self, keys: Callable[[int], tuple[str, ...]], over: float, limit: int) -> list[str]:
        """The first of each ranking, over all partitions, with more than ``over``."""

        async def of(partition: int) -> list[list[tuple[float, str]]]:
            return [await self._best(key, over, limit) for key in keys(partition)]

        names: dict[str, None] = {}
        for rankings in zip(*await self._runner.over_partitions(of), strict=True):
            best = sorted(chain.from_iterable(rankings), reverse=True)[:limit]
            names.update(dict.fromkeys(name for _, name in best))
        return list(names)

    async def _best(self, key: str, over: float, limit: int) -> list[tuple[float, str]]:
        row = await self._runner.command(
            *("ZRANGE", key, "+inf", f"({over}", "BYSCORE", "REV", "LIMIT", 0, limit, "WITHSCORES"), tries=_READS
        )
        return [(float(row[at + 1]), row[at].decode()) for at in range(0, len(row), 2)]

    async def _hash(self, key: str) -> dict[str, bytes]:
        row = await self._runner.command("HGETALL", key, tries=_READS)
        return {row[at].decode(): row[at + 1] for at in range(0, len(row), 2)}


def added(tallies: Iterable[Tally]) -> Tally:
    """All of them in one."""
    total = tally.empty()
    for each in tallies:
        tally.add(total, each)
    return total


def _chunks(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + _READ_AT_ONCE] for start in range(0, len(names), _READ_AT_ONCE))
