"""Claiming, finishing, renewing, taking back: what dispatchers do. `claim` is the only thing that starts a task."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import chain
from typing import Any, Final, Literal

import msgspec

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.models import ClaimedTask, Outcome, Unshown, Verdict
from gateway.store.claimed import Claimed, read_claimed
from gateway.store.doorbell import Doorbell
from gateway.store.merging import Merger, at_once
from gateway.store.payload import Payloads
from gateway.store.records import (
    as_earlier,
    as_last,
    as_text,
    encode_attempt,
    kept_fields,
    packed,
    succeeded_record,
)
from gateway.store.scripts import Runner

_PER_CLIENT: Final = 100
_READS: Final = 3
_OWNED: Final = ord("1")
_TOGETHER: Final = 15  # what is claimed together ends together, sixteen mostly: see dispatch/lanes.py
_ARRAY_OF_6: Final = b"\x96"


class Finished(msgspec.Struct, frozen=True):
    """``owned`` False: the claim had been taken back, nothing changed. ``claimed``: what came along."""

    owned: bool
    claimed: Claimed | None


class _Asked(msgspec.Struct):
    """One claim on its way: how many tasks are wanted, and how many of them may be on their last chance."""

    want: int
    chances: int


class _Ended(Unshown, frozen=True):
    """One attempt's end on its way: what the script is told of it, and how many tasks are wanted in its place."""

    told: bytes
    want: int
    verdict: Literal["succeeded", "dead", "retry"]


class Claims:
    """The claims of this process, under its consumer name."""

    def __init__(self, runner: Runner, consumer: str, doorbell: Doorbell, payloads: Payloads) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._consumer = consumer
        self._doorbell = doorbell
        self._payloads = payloads
        self._claiming: Merger[_Asked, Claimed] = Merger(
            runner.keyspace.partition,
            self._claim,
            patience=runner.patience,
            at_once=at_once(confirmed=runner.durable),
        )
        self._finishing: Merger[_Ended, Finished] = Merger(
            runner.keyspace.partition, self._finish, patience=runner.patience, together=_TOGETHER
        )

    async def ready(self, limit: int) -> list[str]:
        """Clients that have something to claim, longest ready first."""

        async def of(partition: int) -> list[tuple[float, str]]:
            rows = await self._runner.command(
                "ZRANGE", self._keyspace.ready(partition), 0, limit - 1, "WITHSCORES", tries=_READS
            )
            return [(float(rows[at + 1]), rows[at].decode()) for at in range(0, len(rows), 2)]

        found = sorted(chain.from_iterable(await self._runner.over_partitions(of)))
        return [client_id for _, client_id in found[:limit]]

    def claim(self, client_id: str, want: int, chances: int | None = None) -> "asyncio.Future[Claimed]":
        """Start as many of the client's tasks as fit and are wanted; of those that one more death of a process would
        bury no more than ``chances`` (None: any number)."""
        return self._claiming.submit(client_id, _Asked(want, want if chances is None else chances))

    def _claim(self, partition: int, asked: dict[str, list[_Asked]]) -> Awaitable[list[Claimed | StoreUnavailable]]:
        args = (part for name, ones in asked.items() for one in ones for part in (name, one.want, one.chances))
        return self._claims(asked, self._runner.run_for_many("claim", partition, self._consumer, *args))

    async def _claims(
        self, asked: dict[str, list[_Asked]], reply: Awaitable[list[Any]]
    ) -> list[Claimed | StoreUnavailable]:
        now, *told = await reply
        named = [client_id for client_id, ones in asked.items() for _ in ones]
        return [
            self._runner.failed("claim", client_id, row)
            if isinstance(row, bytes)
            else self._claimed(client_id, row, now)
            for client_id, row in zip(named, told, strict=True)
        ]

    def finish(
        self, task: ClaimedTask, outcome: Outcome, *, retry_in: float | None, want: int = 0
    ) -> "asyncio.Future[Finished]":
        """Store what became of the attempt and free its slot. Safe to repeat after an unknown end.

        Of a client's attempts that end together, one brings what is claimed for all of them.
        """
        if self._runner.durable:
            want = 0  # a finish waits for nobody, and no task may start unconfirmed: it takes a claim of its own
        failed: Literal["dead", "retry"] = "dead" if retry_in is None else "retry"
        verdict: Literal["succeeded", "dead", "retry"] = "succeeded" if outcome.verdict is Verdict.DELIVERED else failed
        closed = self._payloads.closed
        size, kept = kept_fields(task, payload=verdict != "succeeded")
        attempt = encode_attempt(closed(task, as_last(outcome)))
        told = packed(verdict, task.queue, task.entry, task.task_id, size)
        if kept and verdict == "succeeded":
            told += succeeded_record(task, attempt, kept)
        else:
            failure = b"" if verdict == "succeeded" else encode_attempt(closed(task, as_earlier(outcome.attempt)))
            told += _ARRAY_OF_6 + packed(task.fence, int((retry_in or 0) * 1000), outcome.reason)
            told += as_text(attempt) + as_text(failure) + as_text(kept) + as_text(b"")
        return self._finishing.submit(task.client_id, _Ended(told, want, verdict))

    def _finish(self, partition: int, ended: dict[str, list[_Ended]]) -> Awaitable[list[Finished | StoreUnavailable]]:
        told: list[bytes] = []
        for client_id, ones in ended.items():
            told.append(packed(client_id, len(ones), sum(one.want for one in ones)))
            told += [one.told for one in ones]
        return self._finishes(ended, self._runner.run_for_many("finish", partition, self._consumer, b"".join(told)))

    async def _finishes(
        self, ended: dict[str, list[_Ended]], told: Awaitable[list[Any]]
    ) -> list[Finished | StoreUnavailable]:
        now, *reply = await told
        results: list[Finished | StoreUnavailable] = []
        for at, (client_id, ones) in enumerate(ended.items()):
            owned, claim = reply[2 * at : 2 * at + 2]
            if isinstance(claim, bytes):
                results += [self._runner.failed("finish", client_id, claim)] * len(ones)
                continue
            brought = self._claimed(client_id, claim, now)
            nothing = Claimed([], brought.limit, more=False, in_flight=brought.in_flight)
            came = b"1" in owned
            for one, mine in zip(ones, owned, strict=True):
                if mine == _OWNED:
                    metrics.finished(one.verdict)
                results.append(Finished(owned=mine == _OWNED, claimed=brought if one.want and came else None))
                if one.want:
                    brought = nothing
        return results

    def _claimed(self, client_id: str, reply: list[Any], now: int) -> Claimed:
        return read_claimed(client_id, reply, now, self._payloads.ready)

    async def renew(self, tasks: Sequence[ClaimedTask]) -> list[ClaimedTask]:
        """Renew the leases; returns the tasks that are not this process's any more."""
        chunks = _by_client(tasks)
        # All at once: one after the other, the round trips of many clients outlast a short lease on a busy machine.
        replies = await asyncio.gather(
            *(self._runner.run("renew", client_id, self._consumer, *_named(chunk)) for client_id, chunk in chunks)
        )
        pairs = zip(chunks, replies, strict=True)
        return [chunk[position - 1] for (_, chunk), reply in pairs for position in reply]

    async def hand_back(self, tasks: Sequence[ClaimedTask]) -> None:
        """Give claims back at once; counts toward neither retries nor deliveries."""
        await asyncio.gather(
            *(
                self._runner.run("hand_back", client_id, self._consumer, *_named(chunk))
                for client_id, chunk in _by_client(tasks)
            )
        )

    async def hand_back_unknown(self, client_id: str, known: Collection[ClaimedTask]) -> int:
        """Give back what is pending under this consumer and not among the ``known``: a reply was lost."""
        named = (part for task in known for part in (task.queue, task.entry))
        return int(await self._runner.run("recover", client_id, self._consumer, *named))

    async def promote_due(self, limit: int) -> float | None:
        """Move due tasks to their streams; returns the seconds until the next is due, None where none is scheduled."""
        now = await self._runner.now()  # each script judges again by its own node's

        async def of(partition: int) -> float | None:
            due = self._keyspace.due(partition)
            for client_id in await self._clients_until(due, now, limit):
                await self._runner.run("promote", client_id, _PER_CLIENT)
            first = await self._runner.command("ZRANGE", due, 0, 0, "WITHSCORES", tries=_READS)
            return max(0.0, (float(first[1]) - now) / 1000) if first else None

        waits = await self._runner.over_partitions(of)
        return min((wait for wait in waits if wait is not None), default=None)

    async def reclaim_lapsed(self, limit: int) -> int:
        """Take back claims whose lease has lapsed; returns how many, the buried ones included."""
        now = await self._runner.now()  # each script judges again by its own node's

        async def of(partition: int) -> int:
            lapsed = await self._clients_until(self._keyspace.leases(partition), now, limit)
            count = 0
            for client_id in lapsed:
                taken, buried = await self._runner.run("reclaim", client_id, _PER_CLIENT)
                metrics.finished("dead", buried)
                count += taken + buried
            return count

        return sum(await self._runner.over_partitions(of))

    async def listen(self, on_ready: Callable[[str], None], on_due: Callable[[], None]) -> None:
        """Hear the doorbell until cancelled."""
        await self._doorbell.listen_dispatch(on_ready, on_due)

    async def _clients_until(self, key: str, now: int, limit: int) -> list[str]:
        rows = await self._runner.command("ZRANGE", key, "-inf", now, "BYSCORE", "LIMIT", 0, limit, tries=_READS)
        return [row.decode() for row in rows]


def _by_client(tasks: Sequence[ClaimedTask]) -> list[tuple[str, list[ClaimedTask]]]:
    """The tasks of each client, in chunks a script call may hold."""
    groups: dict[str, list[ClaimedTask]] = defaultdict(list)
    for task in tasks:
        groups[task.client_id].append(task)
    return [
        (client_id, group[start : start + _PER_CLIENT])
        for client_id, group in groups.items()
        for start in range(0, len(group), _PER_CLIENT)
    ]


def _named(tasks: Sequence[ClaimedTask]) -> list[str | int]:
    return [part for task in tasks for part in (task.queue, task.entry, task.fence)]
