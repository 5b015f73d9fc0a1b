"""A plain Python model of what the store guarantees, and the machine that drives the real store beside it.

Time: the scripts use Redis's clock, which a test can't turn. But a script only ever compares the clock with moments it
has stored, so a clock that is D ahead and stored moments that are D back are the same to it; `Server.age` moves the
moments (lease starts, due times, window seconds, expiries, times to live). One tick is seven seconds, and what really
passes meanwhile is taken back a second at a time. So no moment is off by more than a second; every duration is three
seconds short of whole ticks, and no boundary depends on how fast the test runs.
"""

import time
from asyncio import AbstractEventLoop
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from gateway.models import ClaimedTask
from gateway.store import Store
from gateway.store.stored import Record

TICK = 7
SLACK = 3
LEASE = 4  # ticks
WINDOW = 8  # an admission counts for so many ticks: 56 s are less than 61, 63 are not
KEY_TTL = 4  # ticks
MAX_QUEUED = 20
MAX_QUEUES = 3
MAX_DELIVERIES = 3
DEFAULT_LIMIT = 3  # the default tier's max_concurrent


def seconds(ticks: int) -> int:
    """A duration that is over after so many ticks, and not before."""
    return ticks * TICK - SLACK


SETTINGS = {
    # On a busy machine a server may wait for its turn, which says nothing of the store.
    "REDIS_TIMEOUT": "60",
    "LEASE_SECONDS": str(seconds(LEASE)),
    "IDEMPOTENCY_TTL": str(seconds(KEY_TTL)),
    "MAX_QUEUED_PER_CLIENT": str(MAX_QUEUED),
    "MAX_QUEUES_PER_CLIENT": str(MAX_QUEUES),
    "MAX_DELIVERIES": str(MAX_DELIVERIES),
}
STATES = {
    "queued": "q",
    "running": "q",
    "scheduled": "s",
    "retrying": "r",
    "succeeded": "S",
    "dead": "D",
    "cancelled": "C",
}
ENDED = ("succeeded", "dead", "cancelled")
_decode = msgspec.msgpack.Decoder(Record).decode
_encode = msgspec.msgpack.encode
_T = TypeVar("_T")


@dataclass(eq=False)
class Claim:
    """A claim as its owner holds it; ``live`` until it is finished, handed back or taken back."""

    task: "Task"
    held: ClaimedTask
    consumer: int
    leased: int
    live: bool = True


@dataclass(eq=False)
class Task:
    """What the model knows of an accepted task. ``order`` is its place in its queue."""

    task_id: str
    queue: str
    bound: int
    expires: int | None
    state: str
    due: int = 0
    order: tuple[int, int] = (0, 0)
    attempts: int = 0
    crashes: int = 0
    claim: Claim | None = None
    returned: bool = False

    @property
    def last_chance(self) -> bool:
        """Whether it waits to be started apart from others of its kind, which no finish does."""
        return self.returned and self.crashes >= MAX_DELIVERIES - 1

    def expired(self, now: int) -> bool:
        """Whether it may not start any more."""
        return self.expires is not None and self.expires <= now and self.attempts + self.crashes == 0


@dataclass
class ClientModel:
    """One client: its limit, its tasks, what its window has admitted, its idempotency keys."""

    limit: int = DEFAULT_LIMIT
    tasks: dict[str, Task] = field(default_factory=dict)
    admitted: list[tuple[int, int]] = field(default_factory=list)
    keys: dict[str, tuple[str, bytes, int]] = field(default_factory=dict)
    queues: set[str] = field(default_factory=set)

    def of(self, *states: str) -> list[Task]:
        """The tasks in these states."""
        return [task for task in self.tasks.values() if task.state in states]

    def used(self, now: int) -> int:
        """What counts in the window."""
        return sum(cost for at, cost in self.admitted if now - at <= WINDOW)

    def frees(self, now: int, cost: int, limit: int) -> int:
        """Ticks since the admission whose end makes room for ``cost``."""
        used = self.used(now)
        for at, counted in sorted(entry for entry in self.admitted if now - entry[0] <= WINDOW):
            used -= counted
            if used + cost <= limit:
                return now - at
        raise AssertionError("it would never fit")

    def fits(self, task: Task) -> bool:
        """Whether the task may start now, as far as the number of open calls goes."""
        return len(self.of("running")) < (task.bound or self.limit)

    def heads(self, *, spared: bool = False) -> list[Task]:
        """The first waiting tasks of each queue; several where their order among each other is open. ``spared``: those
        on their last chance are passed over."""
        waiting = [task for task in self.of("queued") if not (spared and task.last_chance)]
        first = {
            queue: min(task.order for task in waiting if task.queue == queue) for queue in {t.queue for t in waiting}
        }
        return [task for task in waiting if task.order == first[task.queue]]

    def startable(self, *, spared: bool = False) -> list[Task]:
        """Heads that may start now, whichever of its queue's possible heads is the one. One that is passed over may
        hold its queue up by its bound."""
        heads = self.heads(spared=spared)
        held_up = {task.queue for task in self.of("queued") if spared and task.last_chance}
        return [
            task
            for task in heads
            if task.queue not in held_up and all(self.fits(other) for other in heads if other.queue == task.queue)
        ]


class Server:
    """The real server, the stores of several dispatchers on it, and its clock."""

    def __init__(self, loop: AbstractEventLoop, raw: Any, stores: list[Store]) -> None:
        self.loop = loop
        self.raw = raw
        self.stores = stores
        self._since = 0.0

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """One call of the store, to its end."""
        return self.loop.run_until_complete(work)

    def reset(self) -> None:
        """An empty server."""
        self.raw.flushall()
        for store in self.stores:
            store.clients.forget()
        self._since = time.time()

    def hold(self) -> None:
        """Take back what really passed."""
        passed = int(time.time() - self._since)
        if passed:
            self.age(-passed)
            self._since += passed

    def age(self, seconds: int) -> None:
        """Move every stored moment back, which is all that the passing of time is to the scripts."""
        kinds: dict[str, list[bytes]] = {}
        for key in self.raw.keys("*"):
            kinds.setdefault(key.decode().split(":")[0], []).append(key)
        pipe = self.raw.pipeline()
        for name in ("scheduled", "due", "leases", "dead", "ended"):
            for key in kinds.get(name, ()):
                for member, score in self.raw.zrange(key, 0, -1, withscores=True):
                    pipe.zadd(key, {member: score - seconds * 1000})
        for key in kinds.get("stream", ()):
            self._age_leases(pipe, key, seconds)
        for key in kinds.get("counts", ()):
            fields = self.raw.hgetall(key)
            moments = {name: int(value) - seconds for name, value in fields.items() if name in (b"o", b"l")}
            moved = {int(name) - seconds: value for name, value in fields.items() if name.isdigit()}
            others = {name: value for name, value in fields.items() if not name.isdigit()}
            pipe.delete(key)
            pipe.hset(key, mapping={**others, **moments, **moved})
        for key in kinds.get("idempotency", ()):
            left = self.raw.pttl(key) - seconds * 1000
            pipe.pexpire(key, left) if left > 0 else pipe.delete(key)
        for key, record in self.records(kinds.get("task", [])):
            if record.expires:
                later = msgspec.structs.replace(record, expires=record.expires - seconds * 1000)
                pipe.set(key, _encode(later), keepttl=True)
        pipe.execute()

    def _age_leases(self, pipe: Any, key: bytes, seconds: int) -> None:
        group = f"client:{key.decode().split(':')[1]}"
        for row in self.raw.xpending_range(key, group, "-", "+", 1000) if self.raw.xinfo_groups(key) else ():
            # A little more than asked: what passes between the two commands must not make a lease younger.
            idle = max(0, row["time_since_delivered"] + seconds * 1000 + 5)
            pipe.xclaim(key, group, row["consumer"], 0, [row["message_id"]], idle=idle, justid=True)

    def records(self, keys: list[bytes]) -> list[tuple[bytes, Record]]:
        """The records of these keys; missing ones are left out."""
        found = self.raw.mget(keys) if keys else []
        return [(key, _decode(packed)) for key, packed in zip(keys, found, strict=True) if packed is not None]
