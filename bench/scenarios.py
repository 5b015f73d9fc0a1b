"""The scenarios that everybody takes part in: A enqueue, B dispatch, C from 201 to arrival, D memory. Each function
measures one contestant once, on a Valkey of its own, and returns figures by name."""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bench import contestants, payload
from bench.contestants import FLOOR_CLIENT, FLOOR_SERVER, GATEWAY, LEAN_CLIENT, PEERS, Command, Peer
from bench.load import bodies_file, fill, require_201, spread, wrk
from bench.processes import ROOT, BenchError, Process, free_port, listening, started
from bench.target import Target
from bench.valkey import Valkey, valkey

CLIENTS = 100
CONNECTIONS = 64
BATCH_CONNECTIONS = 4
ENQUEUE = "/v1/enqueue"
BATCH = "/v1/enqueue/batch"
_PACE = 200  # a second, scenario C
_WARM_SECONDS = 1.0
_WARM_SHARE = 0.05  # of the tasks; arrives before dispatch is measured
_START_SECONDS = 30.0
_FLOOR_CALLS = 20_000

Figures = dict[str, float]


@dataclass(frozen=True)
class Extent:
    """How long and how much; ``QUICK`` is for a look, not for conclusions."""

    enqueue_seconds: float = 4
    single_seconds: float = 2
    tasks: int = 20_000
    drain_seconds: float = 8
    pace_seconds: float = 8
    idle_seconds: float = 20
    known: tuple[int, ...] = (100, 10_000, 100_000)
    backlog: int = 1_000_000


QUICK = Extent(
    enqueue_seconds=1,
    single_seconds=1,
    tasks=3_000,
    drain_seconds=3,
    pace_seconds=2,
    idle_seconds=3,
    known=(100, 10_000),
    backlog=20_000,
)


class Spent(NamedTuple):
    """CPU seconds of the contestant and of its Valkey at a moment."""

    own: float
    redis: float

    @classmethod
    def now(cls, process: Process, redis: Valkey | None) -> "Spent":
        """So far."""
        return cls(process.cpu(), redis.process.cpu() if redis else 0.0)

    def per_thousand(self, before: "Spent", count: int) -> "Spent":
        """What a thousand cost since ``before``."""
        return Spent((self.own - before.own) * 1000 / count, (self.redis - before.redis) * 1000 / count)


@contextlib.contextmanager
def running(name: str, command: Command, port: int | None = None) -> Iterator[Process]:
    """The command, once it listens."""
    with started(name, command.argv, command.env) as process:
        if port is not None:
            listening(process, port)
        yield process


def peer_named(name: str) -> Peer:
    """The peer of that name."""
    return next(peer for peer in PEERS if peer.name == name)


# --- A ------------------------------------------------------------------------------------------------


def enqueue(name: str, target: Target, extent: Extent) -> Figures:
    """A: what one server process takes in; nothing is dispatched meanwhile."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        if name == FLOOR_SERVER:
            redis, command = None, contestants.floor_server(port)
        else:
            redis = stack.enter_context(valkey(CLIENTS))
            command = (
                contestants.gateway(redis.url, port, target.url, role="api")
                if name == GATEWAY
                else peer_named(name).serve(redis.url, port)
            )
        server = stack.enter_context(running(name, command, port))
        task, clients = payload.task(target.url), spread(CLIENTS, CLIENTS)
        file = stack.enter_context(bodies_file(payload.single(client, task) for client in clients))
        url = f"http://127.0.0.1:{port}"
        require_201(port, ENQUEUE, payload.single(clients[0], task))
        wrk(url + ENQUEUE, file, CONNECTIONS, _WARM_SECONDS)
        alone = wrk(url + ENQUEUE, file, 1, extent.single_seconds)
        before = Spent.now(server, redis)
        crowd = wrk(url + ENQUEUE, file, CONNECTIONS, extent.enqueue_seconds)
        cost = Spent.now(server, redis).per_thousand(before, crowd.requests)
        require_201(port, ENQUEUE, payload.single(clients[0], task))
        figures = {
            "enqueue_rate": crowd.rate,
            "enqueue_p50": crowd.p50,
            "enqueue_p99": crowd.p99,
            "enqueue_cpu": cost.own,
            "enqueue_redis_cpu": cost.redis,
            "alone_rate": alone.rate,
            "alone_p50": alone.p50,
            "alone_p99": alone.p99,
        }
        if name == GATEWAY:
            figures |= _batches(server, redis, url, target, extent)
        return figures


def _batches(server: Process, redis: Valkey | None, url: str, target: Target, extent: Extent) -> Figures:
    task = payload.task(target.url)
    with bodies_file(payload.batch(client, task) for client in spread(CLIENTS, CLIENTS)) as file:
        before = Spent.now(server, redis)
        load = wrk(url + BATCH, file, BATCH_CONNECTIONS, extent.enqueue_seconds)
    tasks = load.requests * payload.BATCH
    cost = Spent.now(server, redis).per_thousand(before, tasks)
    return {"batch_rate": tasks / load.seconds, "batch_cpu": cost.own, "batch_redis_cpu": cost.redis}


# --- B and D ------------------------------------------------------------------------------------------


def dispatch(name: str, target: Target, extent: Extent) -> Figures:
    """B: one process calls the target for tasks that were queued before it started; D: what those take in Valkey."""
    target.ask("reset")
    if name in (FLOOR_CLIENT, LEAN_CLIENT):
        # They need no queueing, and few calls are over before a loop this fast can be measured.
        calls = max(extent.tasks, _FLOOR_CALLS)
        with running(name, contestants.floor_client(name, target.url, calls)) as process:
            return drained(process, None, target, calls, extent.drain_seconds)
    with valkey(CLIENTS) as redis:
        before = redis.used_memory()
        _queue(name, redis, target, extent.tasks)
        size = (redis.used_memory() - before) / extent.tasks
        port = free_port()
        command = (
            contestants.gateway(redis.url, port, target.url, role="dispatcher")
            if name == GATEWAY
            else peer_named(name).work(redis.url)
        )
        with running(name, command) as process:
            return drained(process, redis, target, extent.tasks, extent.drain_seconds) | {"task_bytes": size}


def _queue(name: str, redis: Valkey, target: Target, tasks: int) -> None:
    if name == GATEWAY:
        port = free_port()
        with running(name, contestants.gateway(redis.url, port, target.url, role="api"), port):
            fill(port, spread(CLIENTS, CLIENTS), target.url, tasks)
        return
    command = peer_named(name).load(redis.url, tasks, target.url)
    with started(f"{name}'s loader", command.argv, command.env) as loader:
        try:
            code = loader.popen.wait(120)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{name} did not queue {tasks} tasks within 120 s") from None
        if code:
            loader.check()


def drained(process: Process, redis: Valkey | None, target: Target, total: int, seconds: float) -> Figures:
    """Rate and cost of the calls from the first 5 % of them on, until all came or the seconds are over."""
    end = time.monotonic() + _START_SECONDS
    while (start := target.ask("stats"))["count"] < total * _WARM_SHARE:
        process.check()
        if time.monotonic() > end:
            raise BenchError(f"{process.name}: {start['count']} of {total} tasks after {_START_SECONDS:g} s")
        time.sleep(0.002)
    before = Spent.now(process, redis)
    end = time.monotonic() + seconds
    while (stop := target.ask("stats"))["count"] < total and time.monotonic() < end:
        time.sleep(0.01)
    finished = stop["count"] >= total
    if finished:
        time.sleep(0.1)  # what the last calls are still owed: their outcomes are stored after the answer
    count = stop["count"] - start["count"]
    if count <= 0:
        raise BenchError(f"{process.name} stopped calling after {stop['count']} of {total} tasks")
    cost = Spent.now(process, redis).per_thousand(before, count)
    return {
        "dispatch_rate": count * 1e9 / ((stop["last"] if finished else stop["now"]) - start["now"]),
        "dispatch_cpu": cost.own,
        "dispatch_redis_cpu": cost.redis,
    }


# --- C ------------------------------------------------------------------------------------------------


def arrival(name: str, target: Target, extent: Extent) -> Figures:
    """C: from the 201 to the call's arrival, at a steady pace far below anybody's limit."""
    target.ask("reset")
    port = free_port()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(valkey(CLIENTS))
        if name == GATEWAY:
            command = contestants.gateway(redis.url, port, target.url)
        else:
            peer = peer_named(name)
            command = peer.serve(redis.url, port)
            stack.enter_context(running(name, peer.work(redis.url)))
        stack.enter_context(running(name, command, port))
        clients = spread(CLIENTS, CLIENTS)
        # One that arrives proves that the worker is there, too.
        require_201(port, ENQUEUE, payload.single(clients[0], payload.task(target.url)))
        _wait_for(target, 1)
        count = round(_PACE * extent.pace_seconds)
        bodies = (payload.single(clients[n % CLIENTS], payload.task(target.url, n)) for n in range(count))
        file = stack.enter_context(bodies_file(bodies))
        argv = [sys.executable, "-m", "bench.arrivals", str(port), ENQUEUE, str(_PACE), str(file)]
        done = subprocess.run(
            argv, cwd=ROOT, capture_output=True, text=True, timeout=extent.pace_seconds + 30, check=False
        )
        if done.returncode:
            raise BenchError(f"{name}: {done.stderr.strip()[-200:]}")
        _wait_for(target, count + 1)
        return delays(json.loads(done.stdout), dict(target.ask("arrivals")))


def delays(answered: list[int], arrived: dict[int, int]) -> Figures:
    """Milliseconds from each answer to the arrival of its call; below zero where the call was faster than the answer.

    >>> delays([0, 0], {0: 1_000_000, 1: 3_000_000})
    {'arrival_p50': 2.0, 'arrival_p99': 2.98}
    """
    waits = [(arrived[number] - moment) / 1e6 for number, moment in enumerate(answered)]
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {"arrival_p50": statistics.median(waits), "arrival_p99": round(cuts[98], 6)}


def _wait_for(target: Target, count: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while (seen := target.ask("stats")["count"]) < count:
        if time.monotonic() > end:
            raise BenchError(f"{seen} of {count} tasks arrived within {_START_SECONDS:g} s")
        time.sleep(0.02)
