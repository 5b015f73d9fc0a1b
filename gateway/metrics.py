"""What Prometheus scrapes: every metric of the process, its names, its labels and their bounds. Plain
functions that the other layers call; who calls them and when is not decided here."""

import math
import os
from collections.abc import Collection, Hashable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

OTHER = "other"
# Values of one label (queue, tier) a client may occupy; further ones are `other`.
MAX_VALUES_PER_CLIENT = 32
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
# What the audit holds against each other: store/audit.lua has the words for all but the last, which is this process's.
INVARIANTS = (
    "active",
    "depth",
    "due",
    "ghost",
    "lease",
    "returned",
    "scheduled",
    "stranded",
    "window",
    "lanes",
)
_DEPTHS = ("queued", "scheduled", "running", "dead")

# A second series per counter and histogram that says when it was created doubles a scrape for nothing.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class _Children:
    """Label children by their values, each looked up once: `.labels()` costs more than the increment."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.cache: dict[Hashable, Any] = {}

    def __getitem__(self, label_values: tuple[str, ...]) -> Any:
        child = self.cache.get(label_values)
        if child is None:
            child = self.cache[label_values] = self.metric.labels(*label_values)
        return child


class _PerClient(_Children):
    """A counter by client and one more label; a client has at most `MAX_VALUES_PER_CLIENT` of those."""

    def __init__(self, metric: Any) -> None:
        super().__init__(metric)
        self.values: dict[str, int] = {}

    def bounded(self, client: str, value: str) -> Any:
        child = self.cache.get((client, value))
        if child is None:
            count = self.values.get(client, 0)
            if count >= MAX_VALUES_PER_CLIENT:
                return self[client, OTHER]
            self.values[client] = count + 1
            child = self[client, value]
        return child


class _Live(Collector):
    """The sum over worker processes, without what a worker has withdrawn.

    The library can't remove a label child from the files that workers share, so a withdrawn gauge is set
    to NaN there and left out here.
    """

    def __init__(self, folder: Path) -> None:
        self.of_all = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for metric in self.of_all.collect():  # type: ignore[no-untyped-call]
            metric.samples = [sample for sample in metric.samples if not math.isnan(sample.value)]
            yield metric


class _Metrics:
    """All metrics of one process, on a registry of their own."""

    def __init__(self, max_clients: int, folder: Path | None) -> None:
        self.max_clients = max_clients
        self.shared = folder is not None
        own = CollectorRegistry()
        self.registry = own
        if folder is None:
            prometheus_client.ProcessCollector(registry=own)
        else:
            self.registry = CollectorRegistry()
            self.registry.register(_Live(folder))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=own)

        def gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
            return Gauge(name, text, labels, registry=own, multiprocess_mode=mode)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(name, text, labels, registry=own, buckets=buckets)

        self.enqueued = _PerClient(counter("tasks_enqueued", "Tasks accepted.", "client_id", "queue"))
        self.limited = _PerClient(
            counter("rate_limit_exceeded", "Requests refused by the window.", "client_id", "tier")
        )
        self.attempts = _Children(
            counter("gateway_attempts", "Calls to targets, by what they meant.", "outcome", "status_class")
        )
        self.attempt_seconds = histogram(
            "gateway_attempt_duration_seconds", "Duration of calls to targets.", buckets=_LONG_SECONDS
        )
        self.start_delay = histogram(
            "gateway_start_delay_seconds", "Time from a task's due time to its start.", buckets=_LONG_SECONDS
        )
        self.in_flight = gauge("gateway_in_flight", "Calls to targets that are open now.")
        self.max_in_flight = gauge("gateway_max_in_flight", "Calls to targets that may be open at once.")
        # What Redis holds is the same for every worker: the last one to look is right, and the sum would
        # be wrong.
        self.depths = {
            state: _Children(
                gauge(
                    f"gateway_tasks_{state}",
                    f"Tasks {state}, by client; absent where a client has no tasks at all.",
                    "client_id",
                    mode="livemostrecent",
                )
            )
            for state in _DEPTHS
        }
        self.totals = _Children(
            gauge("gateway_tasks", "Tasks by state, over all clients.", "state", mode="livemostrecent")
        )
        self.oldest_waiting = gauge(
            "gateway_oldest_waiting_seconds",
            "For how long the task has been due that waits longest, over all clients; 0 where none waits.",
            mode="livemostrecent",
        )
        self.redis_seconds = _Children(
            histogram("gateway_redis_command_duration_seconds", "Redis round trips.", "operation")
        )
        self.redis_errors = _Children(counter("gateway_redis_errors", "Redis round trips that failed.", "operation"))
        self.pool_in_use = gauge("gateway_redis_pool_in_use", "Redis connections in use.")
        self.pool_size = gauge("gateway_redis_pool_size", "Redis connections there may be.")
        self.requests = _Children(
            counter("gateway_http_requests", "HTTP requests answered.", "route", "method", "status")
        )
        self.request_seconds = _Children(
            histogram("gateway_http_request_duration_seconds", "Duration of HTTP requests.", "route")
        )
        self.overrides = _Children(
            counter("gateway_overrides", "Requests that brought a rate limit of their own.", "result")
        )
        self.violations = _Children(
            counter(
                "gateway_invariant_violations", "Things that must agree and did not; 0 unless something broke.", "kind"
            )
        )
        for kind in INVARIANTS:
            self.violations[(kind,)].inc(0)  # so that an alert on an increase sees the first one
        self.refused = counter("gateway_egress_refused", "Calls refused by the egress rule.")
        info = gauge("gateway_build_info", "1, with the version as a label.", "version", mode="livemax")
        info.labels(_version()).set(1)

        self.clients: set[str] = set()
        # Clients whose depths are in the gauges now, by themselves or in `other`.
        self.shown: set[str] = set()
        # Clients past the cap that have tasks: their sum is what `other` shows.
        self.past_cap: dict[str, tuple[int, ...]] = {}
        self.past_cap_sum = (0,) * len(_DEPTHS)

    def label(self, client_id: str) -> str:
        """The client's own label if it is among the first that were seen, else `other`."""
        if client_id in self.clients:
            return client_id
        if len(self.clients) < self.max_clients:
            self.clients.add(client_id)
            return client_id
        return OTHER

    def set_depths(self, client_id: str, depths: tuple[int, ...]) -> None:
        if any(depths):
            self.shown.add(client_id)
        else:
            self.shown.discard(client_id)
        # A client without tasks takes no label: what is shown must not depend on who was looked at first.
        known = client_id in self.clients or (any(depths) and self.label(client_id) == client_id)
        if not known:
            before = self.past_cap.pop(client_id, (0,) * len(_DEPTHS))
            if any(depths):
                self.past_cap[client_id] = depths
            depths = tuple(total - old + new for total, old, new in zip(self.past_cap_sum, before, depths, strict=True))
            self.past_cap_sum = depths
            client_id = OTHER
        if any(depths):
            for state, depth in zip(_DEPTHS, depths, strict=True):
                self.depths[state][(client_id,)].set(depth)
        else:
            self.withdraw(client_id)

    def keep_depths(self, client_ids: Collection[str]) -> None:
        # What is gone from the list had no last look that said "nothing": its dead letters may just have expired.
        for client_id in self.shown.difference(client_ids):
            self.set_depths(client_id, (0,) * len(_DEPTHS))

    def withdraw(self, label: str) -> None:
        for children in self.depths.values():
            if (label,) not in children.cache:
                continue
            if self.shared:
                children.cache[(label,)].set(math.nan)
            else:
                del children.cache[(label,)]
                children.metric.remove(label)


def _version() -> str:
    try:
        return version("task-dispatch-gateway")
    except PackageNotFoundError:
        return "unknown"


_now = _Metrics(1000, None)


def configure(max_clients: int, multiprocess_dir: Path | None) -> None:
    """Start anew with METRICS_MAX_CLIENTS and, for `--workers`, the folder that the worker processes share.

    Called once, before anything is counted; earlier counts are dropped. With a folder, a worker's `render`
    answers for all workers: counters are summed, also those of workers that ended; gauges count living
    ones only (see `forget_process`).
    """
    global _now  # noqa: PLW0603 - the process has one set of metrics, as it has one log
    if multiprocess_dir is not None:
        # The library chooses between memory and files when it is imported, which may have happened already.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(multiprocess_dir)
        make_class: Any = values.MultiProcessValue
        if not getattr(values.ValueClass, "_multiprocess", False):
            cast("Any", values).ValueClass = make_class()
    _now = _Metrics(max_clients, multiprocess_dir)


def render() -> tuple[bytes, str]:
    """The exposition (Prometheus text format 0.0.4) and its content type."""
    return generate_latest(_now.registry), CONTENT_TYPE_PLAIN_0_0_4


def forget_process(pid: int, multiprocess_dir: Path) -> None:
    """Drop the gauges of a worker that has ended; its counters stay."""
    mark_process_dead(pid, str(multiprocess_dir))  # type: ignore[no-untyped-call]


def enqueued(client_id: str, queue: str) -> None:
    """One task was accepted."""
    _now.enqueued.bounded(_now.label(client_id), queue).inc()


def rate_limited(client_id: str, tier: str) -> None:
    """One request was refused by the window."""
    _now.limited.bounded(_now.label(client_id), tier).inc()


def attempt(verdict: str, status: int | None, seconds: float) -> None:
    """One call to a target ended; ``status`` None where there was no answer (class `none`)."""
    status_class = "none" if status is None else f"{status // 100}xx"
    _now.attempts[str(verdict), status_class].inc()
    _now.attempt_seconds.observe(seconds)


def started_after(seconds: float) -> None:
    """A task started this long after it was due."""
    _now.start_delay.observe(seconds)


def http_request(route: str, method: str, status: int, seconds: float) -> None:
    """One request was answered. ``route`` is the pattern, never the path; odd methods count as `other`."""
    _now.requests[route, method if method in _METHODS else OTHER, str(status)].inc()
    _now.request_seconds[(route,)].observe(seconds)


def redis_call(operation: str, seconds: float) -> None:
    """One round trip to Redis; ``operation`` is from a closed set."""
    _now.redis_seconds[(operation,)].observe(seconds)


def redis_error(operation: str) -> None:
    """One round trip failed."""
    _now.redis_errors[(operation,)].inc()


def set_in_flight(n: int) -> None:
    """Open calls of this process."""
    _now.in_flight.set(n)


def set_max_in_flight(n: int) -> None:
    """How many calls this process may have open."""
    _now.max_in_flight.set(n)


def set_pool(in_use: int, size: int) -> None:
    """Redis connections of this process."""
    _now.pool_in_use.set(in_use)
    _now.pool_size.set(size)


def depths(client_id: str, queued: int, scheduled: int, in_flight: int, dead: int) -> None:
    """What Redis holds of a client. All zero: its gauges go away, which is also how a deleted client's do."""
    _now.set_depths(client_id, (queued, scheduled, in_flight, dead))


def keep_depths(client_ids: Collection[str]) -> None:
    """Withdraw the depths of every client that is not one of these."""
    _now.keep_depths(client_ids)


def totals(queued: int, scheduled: int, dead: int) -> None:
    """What Redis holds of all clients."""
    for state, n in (("queued", queued), ("scheduled", scheduled), ("dead", dead)):
        _now.totals[(state,)].set(n)


def oldest_waiting(seconds: float) -> None:
    """How long the task waits that waits longest, of all clients."""
    _now.oldest_waiting.set(seconds)


def invariant_violated(kind: str) -> None:
    """The audit found two things that must agree and don't; ``kind`` is one of `INVARIANTS`."""
    _now.violations[(kind,)].inc()


def override(result: Literal["applied", "refused"]) -> None:
    """A request brought a rate limit of its own."""
    _now.overrides[(result,)].inc()


def egress_refused() -> None:
    """The egress rule refused a call."""
    _now.refused.inc()
