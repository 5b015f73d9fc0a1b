"""The command line of the bench, and the order of a run: round by round, in each of them everybody in turn."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import costs, operators, report, scaling, scenarios
from bench.contestants import (
    FLOOR_CLIENT,
    FLOOR_SERVER,
    GATEWAY,
    LEAN_CLIENT,
    NAMES,
    PEERS,
)
from bench.machine import described
from bench.processes import ROOT, BenchError, free_port, listening, started
from bench.results import Results
from bench.scenarios import QUICK, Extent, Figures
from bench.target import Target

OUTPUT = ROOT / "build"
_BOUND_SECONDS = 20 * 60
_SLOW_ROUNDS = 2  # of the scenarios that take long and compare the gateway with itself

Step = tuple[str, str, Callable[[], Figures]]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway, its peers and the floors.")
    made.add_argument("--quick", action="store_true", help="one short round: for a look, not for conclusions")
    made.add_argument("--rounds", type=int, help="rounds (3; with --quick 1)", metavar="N")
    made.add_argument(
        "--only",
        help=f"only these, by comma: scenarios A to G, contestants ({', '.join(NAMES)}), or operators, or costs",
    )
    made.add_argument("--seconds", type=float, default=_BOUND_SECONDS, help="start nothing more after this long")
    made.add_argument("--publish", action="store_true", help="write docs/performance.md and its chart, too")
    made.add_argument(
        "--render", help="measure nothing; report on the build/bench.json of an earlier run", metavar="FILE"
    )
    return made


def chosen(only: str | None) -> tuple[set[str], set[str]]:
    """The scenarios and the contestants that ``--only`` names; all of a kind where it names none of that kind.

    >>> chosen("b,saq") == ({"B"}, {"SAQ"})
    True
    """
    by_name = {name.lower(): name for name in NAMES}
    wanted = [word.strip().lower() for word in (only or "").split(",") if word.strip()]
    letters = {word.upper() for word in wanted if word in set("abcdefg")}
    names = {by_name[word] for word in wanted if word in by_name}
    unknown = [word for word in wanted if word.upper() not in letters and word not in by_name]
    if unknown:
        raise BenchError(f"--only: {', '.join(unknown)} is neither a scenario (A to G) nor one of {', '.join(NAMES)}")
    return letters or set("ABCDEFG"), names or set(NAMES)


def steps(target: Target, extent: Extent, letters: set[str], names: set[str], number: int) -> Iterator[Step]:
    """What a round does, in order: (scenario, contestant, measurement)."""
    peers = [peer.name for peer in PEERS]
    groups = (
        ("A", "A", [FLOOR_SERVER, GATEWAY, *peers], scenarios.enqueue),
        ("B, D", "BD", [FLOOR_CLIENT, LEAN_CLIENT, GATEWAY, *peers], scenarios.dispatch),
        ("C", "C", [GATEWAY, *peers], scenarios.arrival),
    )
    for label, any_of, takers, measured in groups:
        if letters & set(any_of):
            for name in takers:
                if name in names:
                    yield label, name, partial(measured, name, target, extent)
    if GATEWAY in names and number < _SLOW_ROUNDS:
        for label, step in _own_steps(target, extent, number):
            if label in letters:
                yield label, GATEWAY, step


def _own_steps(target: Target, extent: Extent, number: int) -> Iterator[tuple[str, Callable[[], Figures]]]:
    for known in extent.known:
        yield "E", partial(scaling.clients, target, extent, known)
    yield "E", partial(scaling.backlog, target, extent)
    if number == 0:
        yield "F", partial(scaling.idle, target, extent)
    for workers in (1, 2):
        yield "G", partial(scaling.workers, target, extent, workers)


def measure(args: argparse.Namespace) -> Results:
    """The whole run. A step that fails is noted in the results and the run goes on."""
    letters, names = chosen(args.only)
    extent = QUICK if args.quick else Extent()
    rounds = args.rounds or (1 if args.quick else 3)
    results = Results(machine=described(), date=f"{datetime.now(UTC):%Y-%m-%d}", rounds=rounds, quick=args.quick)
    for peer in PEERS:
        reason = peer.unavailable()
        if reason is not None and peer.name in names:
            names = names - {peer.name}
            results.problems.append(f"{peer.name} was left out: {reason}")
    began = time.monotonic()
    with _target() as target:
        for number in range(rounds):
            for label, name, step in steps(target, extent, letters, names, number):
                spent = time.monotonic() - began
                if spent > args.seconds:
                    results.problems.append(
                        f"stopped after {spent:.0f} s, before {name} in {label}, round {number + 1}"
                    )
                    return results
                _tell(f"[{spent:4.0f} s] round {number + 1}/{rounds}  {label:4}  {name}")
                try:
                    results.add(name, step())
                except BenchError as problem:
                    results.problems.append(f"{label}, round {number + 1}: {problem}")
                    _tell(f"         {problem}")
    return results


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Run; 0 unless the gateway itself could not be measured."""
    args = parser().parse_args()
    if args.only in {"operators", "costs"}:
        return _by_itself(args.only, quick=args.quick)
    try:
        results = Results.from_json(json.loads(Path(args.render).read_text())) if args.render else measure(args)
    except BenchError as problem:
        _tell(str(problem))
        return 2
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "bench.json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    report.write(results, OUTPUT / "bench.md", OUTPUT / "bench.svg")
    if args.publish:
        report.write(results, ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg")
    print(report.summary(results))
    _tell("written: build/bench.json, build/bench.md, build/bench.svg")
    return 0 if results.figures else 1


def _by_itself(name: str, *, quick: bool) -> int:
    """What is measured apart from the contestants, and written to a file of its own."""
    try:
        if name == "operators":
            found = operators.run(quick=quick, tell=_tell)
        else:
            with _target() as target:
                found = costs.run(target, quick=quick, tell=_tell)
    except BenchError as problem:
        _tell(str(problem))
        return 2
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / f"{name}.md").write_text(f"{found}\n")
    print(found)
    return 0


@contextlib.contextmanager
def _target() -> Iterator[Target]:
    port = free_port()
    with started("target", [sys.executable, "-m", "bench.target", str(port)]) as process:
        listening(process, port)
        yield Target(port)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
