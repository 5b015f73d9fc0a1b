"""The figures of a run: medians with their spread, and what must hold of them."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from bench.contestants import FLOOR_CLIENT, FLOOR_SERVER, GATEWAY, PYTHON_PEERS
from bench.payload import BATCH, TASK_BYTES

# Measured elsewhere, on a machine where bare aiohttp cost 0.080 s per 1,000: net/http with Asynq doing the same job.
# Machines differ, so it is the ratio to bare aiohttp that is carried over.
ASYNQ_PER_FLOOR = 0.162 / 0.080


class Seen(NamedTuple):
    """One figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass
class Results:
    """Everything a run found; ``figures`` is by contestant, then by name: a value for each round."""

    machine: dict[str, str]
    date: str
    rounds: int
    quick: bool
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, contestant: str, figures: dict[str, float]) -> None:
        """Note what a step measured."""
        kept = self.figures.setdefault(contestant, {})
        for name, value in figures.items():
            kept.setdefault(name, []).append(value)

    def seen(self, contestant: str, name: str) -> Seen | None:
        """Median, lowest and highest of a figure; None where it was not measured."""
        values = self.figures.get(contestant, {}).get(name)
        return Seen(statistics.median(values), min(values), max(values)) if values else None

    def median(self, contestant: str, *names: str) -> float | None:
        """The sum of the medians of these figures, None where one is missing."""
        found = [self.seen(contestant, name) for name in names]
        return sum(one.median for one in found if one) if all(found) else None

    def to_json(self) -> dict[str, Any]:
        """As build/bench.json has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Results":
        """What `to_json` made."""
        return cls(**stored)


class Check(NamedTuple):
    """One line of what must hold: ``value`` against ``bound``, at least or at most it; None: not measured."""

    scenario: str
    what: str
    value: float | None
    bound: float | None
    at_least: bool
    form: str = "{:.2f}"

    @property
    def holds(self) -> bool | None:
        """Whether it does; None where a side is missing."""
        if self.value is None or self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def ratio(value: float | None, base: float | None) -> float | None:
    """value / base, None where that can't be said."""
    return value / base if value is not None and base else None


def checks(results: Results) -> list[Check]:
    """Every line, in the order of the scenarios."""
    return [*_enqueue_checks(results), *_dispatch_checks(results), *_scaling_checks(results)]


def _best(results: Results, name: str, *, most: bool, among: tuple[str, ...]) -> float | None:
    found = [value for peer in among if (value := results.median(peer, name)) is not None]
    if not found:
        return None
    return max(found) if most else min(found)


def _enqueue_checks(results: Results) -> list[Check]:
    rate = results.median(GATEWAY, "enqueue_rate")
    cpu = results.median(GATEWAY, "enqueue_cpu", "enqueue_redis_cpu")
    floor_cpu = results.median(FLOOR_SERVER, "enqueue_cpu")
    bullmq_cpu = results.median("BullMQ", "enqueue_cpu", "enqueue_redis_cpu")
    alone, floor_alone = results.median(GATEWAY, "alone_p50"), results.median(FLOOR_SERVER, "alone_p50")
    added = alone - floor_alone if alone is not None and floor_alone is not None else None
    best = _best(results, "enqueue_rate", most=True, among=PYTHON_PEERS)
    return [
        Check("A", "rate, of bare aiohttp", ratio(rate, results.median(FLOOR_SERVER, "enqueue_rate")), 0.70, True),
        Check("A", "rate, times the best Python peer", ratio(rate, best), 4, True),
        Check("A", "rate, times BullMQ", ratio(rate, results.median("BullMQ", "enqueue_rate")), 1, True),
        Check("A", "CPU with Redis, of bare aiohttp (Asynq: 2.03)", ratio(cpu, floor_cpu), ASYNQ_PER_FLOOR, False),
        Check("A", "CPU with Redis, of BullMQ", ratio(cpu, bullmq_cpu), 1, False),
        Check(
            "A", f"tasks a second in batches of {BATCH}, times single",
            ratio(results.median(GATEWAY, "batch_rate"), rate), 8, True,
        ),
        Check("A", "one connection: added ms at p50 over bare aiohttp", added, 0.4, False),
    ]  # fmt: skip


def _dispatch_checks(results: Results) -> list[Check]:
    rate = results.median(GATEWAY, "dispatch_rate")
    p50, p99 = results.median(GATEWAY, "arrival_p50"), results.median(GATEWAY, "arrival_p99")
    peers = (*PYTHON_PEERS, "BullMQ")
    best = _best(results, "dispatch_rate", most=True, among=PYTHON_PEERS)
    size = results.median(GATEWAY, "task_bytes")
    floor = results.median(FLOOR_CLIENT, "dispatch_rate")
    return [
        Check("B", "rate, times the plain aiohttp client", ratio(rate, floor), 1.5, True),
        Check("B", "rate, times the best Python peer", ratio(rate, best), 5, True),
        Check("B", "rate, times BullMQ", ratio(rate, results.median("BullMQ", "dispatch_rate")), 1, True),
        Check("C", "201 to arrival, ms at p50", p50, 1.5, False),
        Check("C", "201 to arrival, ms at p99", p99, 4, False),
        Check("C", "p50, against the best peer's", p50, _best(results, "arrival_p50", most=False, among=peers), False),
        Check("C", "p99, against the best peer's", p99, _best(results, "arrival_p99", most=False, among=peers), False),
        Check("D", "bytes of Valkey a task", size, 1.5 * TASK_BYTES + 150, False, "{:.0f}"),
        Check(
            "D", "bytes of Valkey a task, against the best peer's",
            size, _best(results, "task_bytes", most=False, among=peers), False, "{:.0f}",
        ),
    ]  # fmt: skip


def _scaling_checks(results: Results) -> list[Check]:
    costs = {
        name: results.median(GATEWAY, name)
        for name in results.figures.get(GATEWAY, {})
        if name.startswith("known_") or name == "backlog_cpu"
    }
    known = sorted((int(name.split("_")[1]), name) for name in costs if name.startswith("known_"))
    smallest = costs[known[0][1]] if known else None
    most = costs[known[-1][1]] if known else None
    two = ratio(results.median(GATEWAY, "workers_2_cpu"), results.median(GATEWAY, "workers_1_cpu"))
    return [
        Check("E", "cost at the most clients, times the fewest", ratio(most, smallest), 1.15, False),
        Check(
            "E", "cost at the long backlog, times the smallest", ratio(costs.get("backlog_cpu"), smallest), 1.15, False
        ),
        Check("F", "idle: share of a core", results.median(GATEWAY, "idle_cpu"), 0.01, False, "{:.4f}"),
        Check("F", "idle: resident MB", results.median(GATEWAY, "idle_mb"), 150, False, "{:.0f}"),
        Check("G", "two workers' CPU per task, times one's", two, 1.1, False),
    ]
