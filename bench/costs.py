"""What parts of the gateway cost a task: each is taken away and put back while the gateway is under load (see
`bench.without`)."""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from bench import contestants, payload
from bench.contestants import GATEWAY, Command
from bench.load import bodies_file, fill, spread, wrk
from bench.processes import BenchError, free_port
from bench.scenarios import CLIENTS, CONNECTIONS, ENQUEUE, running
from bench.target import Target
from bench.valkey import valkey

PARTS: Final = ("monitoring", "security")  # of bench.without, which changes what it is imported beside
_SECONDS: Final = 40.0
_CALLS: Final = 400_000
_LEAST: Final = 100  # tasks of a window that counts
_DRAIN_SECONDS: Final = 90.0

Window = tuple[bool, int, float]  # with the part, tasks, CPU seconds


class Share(NamedTuple):
    """Microseconds of the process a task, with the part; what of them is the part's, and how sure that is (the standard
    error of the mean over the pairs of windows)."""

    whole: float
    part: float
    error: float
    pairs: int


def share(windows: list[Window]) -> Share:
    """Each window with the part beside the one after it, without: the mean of the differences.

    >>> share([(True, 1000, 0.050), (False, 1000, 0.049), (True, 2000, 0.100), (False, 1000, 0.048)])
    Share(whole=50.0, part=1.5, error=0.5, pairs=2)
    """
    costs = [(there, spent / count * 1e6 if count >= _LEAST else None) for there, count, spent in windows]
    pairs = [
        (more, less)
        for (there, more), (beside, less) in pairwise(costs)
        if there and not beside and more is not None and less is not None
    ]
    if len(pairs) < 2:
        raise BenchError(f"{len(pairs)} pairs of windows under load are too few to say anything")
    gaps = [more - less for more, less in pairs]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5
    return Share(
        round(statistics.mean(more for more, _ in pairs), 2),
        round(statistics.mean(gaps), 2),
        round(error, 2),
        len(pairs),
    )


def run(target: Target, *, quick: bool, tell: Callable[[str], None]) -> str:
    """The table, as Markdown."""
    lines = [_HEAD]
    for part in PARTS:
        for what, measure in (("taking in", _taking), ("calling", _calling)):
            tell(f"{part}, {what}")
            found = share(measure(part, target, quick=quick))
            lines.append(
                f"| {part} | {what} | {found.whole:.1f} | {found.part:.2f} ± {found.error:.2f} "
                f"| {found.part / found.whole:.1%} ± {found.error / found.whole:.1%} | {found.pairs} |"
            )
    return "\n".join(lines)


_HEAD: Final = """\
Microseconds of the process's CPU a task, and what of them is a part's: taken away and put back every 0.2 s under load,
the mean of the differences with its standard error.

| part | | µs a task | of them the part's | share | pairs |
| --- | --- | --- | --- | --- | --- |"""


def _taking(part: str, target: Target, *, quick: bool) -> list[Window]:
    with _noted(part) as (command, file), contextlib.ExitStack() as stack:
        redis, port = stack.enter_context(valkey(CLIENTS)), free_port()
        bodies = (payload.single(client, payload.task(target.url)) for client in spread(CLIENTS, CLIENTS))
        tasks = stack.enter_context(bodies_file(bodies))
        made = command(contestants.gateway(redis.url, port, target.url, role="api"))
        with running(GATEWAY, made, port):
            wrk(f"http://127.0.0.1:{port}{ENQUEUE}", tasks, CONNECTIONS, _SECONDS / 10 if quick else _SECONDS)
        return _read(file)


def _calling(part: str, target: Target, *, quick: bool) -> list[Window]:
    target.ask("reset")
    calls = _CALLS // 10 if quick else _CALLS
    with _noted(part) as (command, file), valkey(CLIENTS) as redis:
        port = free_port()
        with running(GATEWAY, contestants.gateway(redis.url, port, target.url, role="api"), port):
            fill(port, spread(CLIENTS, CLIENTS), target.url, calls)
        made = command(contestants.gateway(redis.url, free_port(), target.url, role="dispatcher"))
        with running(GATEWAY, made) as process:
            end = time.monotonic() + _DRAIN_SECONDS
            while target.ask("stats")["count"] < calls and time.monotonic() < end:
                process.check()
                time.sleep(0.1)
        return _read(file)


@contextlib.contextmanager
def _noted(part: str) -> Iterator[tuple[Callable[[Command], Command], Path]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "windows.json"

        def command(made: Command) -> Command:
            python, _, _, *rest = made.argv
            return Command([python, "-m", "bench.without", part, file, *rest], made.env)

        yield command, file


def _read(file: Path) -> list[Window]:
    return [(there, count, spent) for there, count, spent in json.loads(file.read_text())]
