"""The long versions: `make soak`, or `python -m faults` in tests/. Writes a table; fails where one does not hold."""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from .accounts import Accounts
from .backends import BACKENDS
from .faults import FAULTS, over_topologies, suffer
from .isolation import beside
from .run import METERED_LIMIT

COLUMNS = ("fault", "tasks sent", "accepted", "delivered", "dead", "lost", "repeated", "cut down", "starved")
COLUMNS += ("most open / limit", "exempt", "most in 60 s / limit", "no answer (made)", "refused", "seconds", "holds")
LOSSES = ("failover with DURABILITY=none", "accepted", "lost", "repeated", "most open / limit", "most in 60 s / limit")
FAILOVERS = ("sentinel_failover", "replicas_behind", "cluster_failover")
WAITS = ("beside", "queued tasks", "samples", "alone p50 (ms)", "alone p99", "beside p50", "beside p99", "within 2x")


def row(name: str, accounts: Accounts, sent: int, limit: int) -> list[str]:
    most = max((most for client, most in accounts.most_open.items() if client.startswith("client-")), default=0)
    refused = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(accounts.refused.items()))
    return [
        name.replace("_", " "),
        str(sent),
        str(accounts.accepted),
        str(accounts.delivered),
        str(accounts.dead),
        str(accounts.lost_count),
        str(accounts.extras),
        str(accounts.extras_allowed),
        str(accounts.starved),
        f"{most} / {limit}",
        str(accounts.exempt),
        f"{accounts.most_in_a_window} / {METERED_LIMIT}",
        f"{accounts.unknown} ({accounts.unknown_made})",
        refused,
        str(accounts.seconds),
        "; ".join(accounts.problems()[:3]) or "yes",
    ]


def say(text: str) -> None:
    """How far it has come."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


Row = tuple[list[str], bool]  # and whether it holds


async def faults(names: list[str], topologies: list[str], tasks: int, rate: float, folder: Path) -> AsyncIterator[Row]:
    """Every fault under long load."""
    for name, topology in over_topologies():
        if name not in names or topology not in topologies:
            continue
        own = FAULTS[name].plan
        many = {
            "tasks": tasks,
            "per_second": rate,
            "batch": 20,
            "clients": 20,
            "concurrent": 5,
            "lease": 5,
            "patient": 60,
        }
        if name == "targets_misbehave":  # most of its calls last a second
            many |= {
                "tasks": tasks // 5,
                "per_second": rate / 5,
                "batch": 1,
                "clients": 10,
                "concurrent": 20,
                "call_ms": 10,
            }
        if name == "poison":
            many |= {"tasks": tasks // 10}
        if name == "few_open_files":
            many |= {"tasks": tasks // 5, "per_second": own.per_second, "clients": 1, "concurrent": 100, "batch": 1}
            many |= {"call_ms": own.call_ms}
        if name == "replies_dropped":  # each lost reply breaks a connection that many calls share
            many |= {"tasks": tasks // 10, "per_second": rate / 4, "batch": 1}
        say(f"{name} ({topology}) ...")
        accounts = await suffer(FAULTS[name], folder / f"{name}-{topology}", scale=20, topology=topology, **many)
        sent = (
            accounts.accepted
            + accounts.unknown
            + sum(n for status, n in accounts.refused.items() if status not in (0, 503))
        )
        say(f"  {accounts}")
        yield row(f"{name} ({topology})", accounts, sent, int(many["concurrent"])), not accounts.problems()


async def losses(tasks: int, rate: float, folder: Path) -> AsyncIterator[Row]:
    """What failovers lose where nobody waits for replicas: measured, nothing is promised."""
    for name in FAILOVERS:
        say(f"losses: {name} ...")
        plan: dict[str, Any] = {"tasks": tasks // 5, "per_second": rate / 2, "clients": 20, "concurrent": 5, "lease": 5}
        accounts = await suffer(FAULTS[name], folder / f"losses-{name}", scale=2, settings={}, **plan)
        say(f"  {accounts}")
        most = max(most for client, most in accounts.most_open.items() if client.startswith("client-"))
        counts = [str(count) for count in (accounts.accepted, accounts.lost_count, accounts.extras)]
        limits = [f"{most} / {plan['concurrent']}", f"{accounts.most_in_a_window} / {METERED_LIMIT}"]
        yield [name.replace("_", " "), *counts, *limits], True


async def isolation(backlog: int, samples: int, folder: Path) -> AsyncIterator[Row]:
    """What a client with a task a second waits, alone and beside others; at most twice as long is what must hold."""
    for name, at_cap in (("a backlog at a hanging target", False), ("a full process, five clients hang", True)):
        say(f"isolation: {name} ...")
        alone, crowded = await beside(
            folder / f"isolation-{at_cap}", backlog=backlog, samples=samples, interval=1, at_cap=at_cap
        )
        holds = crowded.p(0.99) <= 2 * alone.p(0.99)
        figures = [f"{waits.p(share) * 1000:.2f}" for waits in (alone, crowded) for share in (0.5, 0.99)]
        yield [name, str(backlog), str(samples), *figures, "yes" if holds else "no"], holds


async def main() -> int:
    task = asyncio.current_task()
    assert task is not None
    # The processes of a run go with it, however it ends.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="faults by their names, losses, isolation; all by default")
    parser.add_argument(
        "--topologies", nargs="+", choices=list(BACKENDS), default=list(BACKENDS), help="all by default"
    )
    parser.add_argument("--tasks", type=int, default=30_000, help="tasks a fault, at least")
    parser.add_argument("--rate", type=float, default=600, help="tasks a second")
    parser.add_argument("--backlog", type=int, default=100_000, help="queued tasks beside which isolation is measured")
    parser.add_argument("--samples", type=int, default=120, help="seconds of each measurement of isolation")
    parser.add_argument("--output", type=Path, default=Path("build/soak.md"), help="where the table goes")
    given = parser.parse_args()
    unknown = set(given.names) - {*FAULTS, "losses", "isolation"}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}, losses, isolation")
    names = given.names or [*FAULTS, "losses", "isolation"]
    chosen = [name for name in names if name in FAULTS]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    tables: list[tuple[tuple[str, ...], list[list[str]]]] = []
    failed = 0
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as folder:
        parts = [(COLUMNS, faults(chosen, given.topologies, given.tasks, given.rate, Path(folder)))] if chosen else []
        if "losses" in names:
            parts.append((LOSSES, losses(given.tasks, given.rate, Path(folder))))
        if "isolation" in names:
            parts.append((WAITS, isolation(given.backlog, given.samples, Path(folder))))
        for columns, results in parts:
            tables.append((columns, []))
            async for cells, holds in results:
                tables[-1][1].append(cells)
                failed += not holds
                given.output.write_text("\n".join(table(*one) for one in tables))
    sys.stdout.write(given.output.read_text())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
