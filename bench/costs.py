"""What parts of the gateway cost a task: the instructions of its process with and without each part (see
`bench.without`), beside all of them and those of Valkey, for taking a task in and for calling it; and the CPU of what
it does every few seconds (see `bench.rounds`)."""

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from bench import contestants, counted, payload, rounds
from bench.contestants import GATEWAY, Command
from bench.counted import Counter
from bench.load import Callers, fill, spread
from bench.processes import BenchError, Process, free_port, listening
from bench.scenarios import CLIENTS, CONNECTIONS, ENQUEUE, running
from bench.target import Target
from bench.valkey import Valkey, valkey
from bench.without import NOTHING
from gateway.store.keyspace import Keyspace

PARTS: Final = ("recording", "monitoring", "security")  # of bench.without
_TASKS: Final = 50 * CONNECTIONS
_WARM: Final = 10 * CONNECTIONS  # before anything is counted
_RUNS: Final = 3  # of which the middle one tells: others' work on the machine changes who waits for whom
_SECONDS: Final = 300.0
_TOTALS: Final = Keyspace("").totals(0)
# Callgrind slows a process down some fifty times: nobody may take it for dead.
_SLOW: Final = {"LEASE_SECONDS": "600", "REDIS_TIMEOUT": "60", "LOG_LEVEL": "warning"}

Measure = Callable[[Target, str, Counter, int], None]


class Share(NamedTuple):
    """Instructions a task: the gateway's, what of them is a part's, and Valkey's beside them."""

    whole: float
    part: float
    redis: float

    def line(self, part: str, way: str) -> str:
        """The row of the table.

        >>> Share(200_000, 4_000, 200_000).line("security", "calling")
        '| security | calling | 200.0 | 4.00 | 2.0 % | 1.0 % |'
        """
        own, both = self.part / self.whole * 100, self.part / (self.whole + self.redis) * 100
        return f"| {part} | {way} | {self.whole / 1000:.1f} | {self.part / 1000:.2f} | {own:.1f} % | {both:.1f} % |"


_HEAD: Final = """\
Thousands of instructions a task, counted by valgrind's callgrind, without what the kernel does.

| part |  | gateway | of them the part's | share of the gateway | of it and Valkey |
| --- | --- | --- | --- | --- | --- |"""


def run(target: Target, *, quick: bool, tell: Callable[[str], None]) -> str:
    """The tables, as Markdown."""
    lines = []
    lacking = counted.missing()
    if lacking is None:
        lines += [_HEAD, *_shares(target, runs=1 if quick else _RUNS, tell=tell)]
    else:
        lines.append(f"What a task costs was not counted: {lacking}.")
    tell("what is done every few seconds")
    return "\n".join([*lines, "", rounds.table(turns=3 if quick else 20)])


def _shares(target: Target, *, runs: int, tell: Callable[[str], None]) -> Iterator[str]:
    for way, own, redis in (("taking in", _taking, _taking_redis), ("calling", _calling, _calling_redis)):
        tell(f"{way}, Valkey")
        of_redis = _middle(redis, target, NOTHING, runs)
        tell(f"{way}, all of it")
        whole = _middle(own, target, NOTHING, runs)
        for part in PARTS:
            tell(f"{way}, without {part}")
            yield Share(whole, whole - _middle(own, target, part, runs), of_redis).line(part, way)


def _middle(measure: Measure, target: Target, part: str, runs: int) -> float:
    found = []
    for _ in range(runs):
        with counted.counter() as counter:
            measure(target, part, counter, _TASKS)
            found.append(counter.collected() / _TASKS)
    return statistics.median(found)


def _taking(target: Target, part: str, counter: Counter, tasks: int) -> None:
    with valkey(CLIENTS) as redis, _api(redis, target, part, counter) as (process, port), _callers(port, target) as ask:
        ask(_WARM, process)
        with counter.counting(process):
            ask(tasks, process)


def _taking_redis(target: Target, part: str, counter: Counter, tasks: int) -> None:
    with (
        valkey(CLIENTS, counter.of) as redis,
        _api(redis, target, part) as (process, port),
        _callers(port, target) as ask,
    ):
        ask(_WARM, process)
        with counter.counting(redis.process):
            ask(tasks, process)


def _calling(target: Target, part: str, counter: Counter, tasks: int) -> None:
    target.ask("reset")
    with (
        valkey(CLIENTS) as redis,
        _api(redis, target, NOTHING) as (_, port),
        running(GATEWAY, counter.of(_dispatcher(redis, target, part))) as process,
    ):
        fill(port, spread(CLIENTS, CLIENTS), target.url, _WARM)
        _called(process, target, redis, _WARM)
        with counter.counting(process):
            with _stopped(process):
                fill(port, spread(CLIENTS, CLIENTS), target.url, tasks)
            _called(process, target, redis, _WARM + tasks)


def _calling_redis(target: Target, part: str, counter: Counter, tasks: int) -> None:
    target.ask("reset")
    with valkey(CLIENTS, counter.of) as redis, _api(redis, target, NOTHING) as (_, port):
        fill(port, spread(CLIENTS, CLIENTS), target.url, tasks)
        with counter.counting(redis.process), running(GATEWAY, _dispatcher(redis, target, part)) as process:
            _called(process, target, redis, tasks)


@contextlib.contextmanager
def _api(redis: Valkey, target: Target, part: str, counter: Counter | None = None) -> Iterator[tuple[Process, int]]:
    port = free_port()
    made = _without(contestants.gateway(redis.url, port, target.url, role="api"), part)
    with running(GATEWAY, counter.of(made) if counter else made) as process:
        listening(process, port, _SECONDS)
        yield process, port


def _dispatcher(redis: Valkey, target: Target, part: str) -> Command:
    return _without(contestants.gateway(redis.url, free_port(), target.url, role="dispatcher"), part)


def _without(made: Command, part: str) -> Command:
    python, _, _, *rest = made.argv
    return Command([python, "-m", "bench.without", part, *rest], {**made.env, **_SLOW})


@contextlib.contextmanager
def _callers(port: int, target: Target) -> Iterator[Callable[[int, Process], None]]:
    """Ask so often: all callers at once, again and again. Where the gateway stands still until each has asked, it has
    the same to do at once in each run."""
    bodies = [payload.single(client, payload.task(target.url)).encode() for client in spread(CLIENTS, CLIENTS)]
    with Callers(port, ENQUEUE, bodies, CONNECTIONS) as callers:

        def ask(count: int, process: Process) -> None:
            for _ in range(count // CONNECTIONS):
                with _stopped(process):
                    callers.ask()
                callers.hear()

        yield ask


@contextlib.contextmanager
def _stopped(process: Process) -> Iterator[None]:
    os.kill(process.popen.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.popen.pid, signal.SIGCONT)


def _called(process: Process, target: Target, redis: Valkey, count: int) -> None:
    """Wait until so many calls were made, and what came of the last of them is stored."""
    end = time.monotonic() + _SECONDS
    while target.ask("stats")["count"] < count or redis.call("HGET", _TOTALS, "n") != b"0":
        process.check()
        if time.monotonic() > end:
            raise BenchError(f"fewer than {count} calls have ended after {_SECONDS:g} s")
        time.sleep(0.1)
