"""Every metric of the process: its name, its labels, its buckets, how the values of workers are put together."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.metrics.depths import ClientLabels
from gateway.metrics.everyone import Everyone
from gateway.metrics.labels import OTHER, Children, Live
from gateway.metrics.sums import Also, ClientCounts, Counts, Durations, LabelValues, Level
from gateway.metrics.tally import BOUNDS
from gateway.metrics.usage import Counting
from gateway.models import Verdict

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
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

# A second series per counter and histogram that says when it was created doubles a scrape for nothing.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


Key = TypeVar("Key", bound=Hashable)
Answered = tuple[str, str, int]
# How a call ended: delivered with this status; or otherwise, with which verdict (to hash one takes a call in Python).
Ended = int | None | tuple[Verdict, int | None]


class Registry:
    """All metrics of one process, on a registry of their own."""

    def __init__(self, max_clients: int, folder: Path | None, counting: Counting) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.shared = folder is not None
        if folder is None:
            prometheus_client.ProcessCollector(registry=own)
        else:
            self.registry = CollectorRegistry()
            self.registry.register(Live(folder))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=own)

        def gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
            return Gauge(name, text, labels, registry=own, multiprocess_mode=mode)

        def by_client(metric: Counter, also: Callable[[str, int], None]) -> ClientCounts:
            self.sums.append(made := ClientCounts(metric, self.labels, also))
            return made

        def durations(
            name: str,
            text: str,
            *names: str,
            labels: Callable[[Key], LabelValues],
            bounds: Sequence[float] = SECONDS,
            also: Also[Key] = _alone,
        ) -> Durations[Key]:
            histogram = Histogram(name, text, names, registry=own, buckets=bounds)
            self.durations.append(made := Durations(histogram, bounds, labels, also))
            return made

        self.sums: list[Counts | ClientCounts | Level] = []
        self.durations: list[Durations[Any]] = []
        self.labels = ClientLabels(max_clients)
        self.enqueued = by_client(counter("tasks_enqueued", "Tasks accepted.", "client_id", "queue"), counting.admitted)
        self.limited = by_client(
            counter("rate_limit_exceeded", "Requests refused by the window.", "client_id", "tier"), counting.refused
        )
        self.full = Children(
            counter("gateway_queue_full", "Requests refused since too much of the client waits.", "client_id")
        )
        attempts = Children(
            counter("gateway_attempts", "Calls to targets, by what they meant.", "outcome", "status_class")
        )
        self.attempts: Durations[Ended] = durations(
            "gateway_attempt_duration_seconds",
            "Duration of calls to targets.",
            labels=_no_labels,
            bounds=BOUNDS,
            also=lambda key, count: attempts[_attempt(key)].inc(count),
        )
        self.finished = Counts(
            counter(
                "gateway_tasks_finished", "Attempts whose outcome was stored, by what became of the task.", "result"
            )
        )
        self.sums.append(self.finished)
        for result in ("succeeded", "retry", "dead"):
            self.finished[result] = 0  # so that a rate sees the first one
        self.start_delay: Durations[None] = durations(
            "gateway_start_delay_seconds", "Time from a task's due time to its start.", labels=_no_labels, bounds=BOUNDS
        )
        self.in_flight = Level(gauge("gateway_in_flight", "Calls to targets that are open now."))
        self.sums.append(self.in_flight)
        self.max_in_flight = gauge("gateway_max_in_flight", "Calls to targets that may be open at once.")
        self.everyone = Everyone(partial(gauge, mode="livemostrecent"), self.labels, shared=self.shared)
        self.redis_seconds = durations(
            "gateway_redis_command_duration_seconds", "Redis round trips.", "operation", labels=_itself
        )
        self.redis_errors = Children(counter("gateway_redis_errors", "Redis round trips that failed.", "operation"))
        self.pool_in_use = gauge("gateway_redis_pool_in_use", "Redis connections in use.")
        self.pool_size = gauge("gateway_redis_pool_size", "Redis connections there may be.")
        requests = Children(counter("gateway_http_requests", "HTTP requests answered.", "route", "method", "status"))
        self.requests: Durations[Answered] = durations(
            "gateway_http_request_duration_seconds",
            "Duration of HTTP requests.",
            "route",
            labels=lambda key: key[:1],
            also=lambda key, count: requests[_request(key)].inc(count),
        )
        self.admin_denied = Children(
            counter("gateway_admin_denied", "Calls of operators that were not let in.", "reason")
        )
        self.connections_refused = Children(
            counter("gateway_connections_refused", "Connections that were refused or ended.", "reason")
        )
        self.overrides = Children(
            counter("gateway_overrides", "Requests that brought a rate limit of their own.", "result")
        )
        self.violations = Children(
            counter(
                "gateway_invariant_violations", "Things that must agree and did not; 0 unless something broke.", "kind"
            )
        )
        for kind in INVARIANTS:
            self.violations[(kind,)].inc(0)  # so that an alert on an increase sees the first one
        self.client_keys_refused = Children(
            counter("gateway_client_keys_refused", "Requests without the key that their client needs.", "reason")
        )
        self.usage_lost = counter(
            "gateway_usage_lost", "Requests and calls that are missing in the usage that Redis keeps of their clients."
        )
        self.refused = Children(
            counter("gateway_egress_refused", "Targets refused by the egress rule, and where.", "reason", "stage")
        )
        info = gauge("gateway_build_info", "1, with the version as a label.", "version", mode="livemax")
        info.labels(_version()).set(1)

    def settle(self) -> None:
        """Hand on what was added up since the last time."""
        for each in self.sums:
            each.settle()
        self.settle_durations()

    def settle_durations(self) -> None:
        """The same of the durations alone."""
        for each in self.durations:
            each.settle()


def _alone(_: Key, __: int) -> None:
    """Nobody else is told."""


def _no_labels(_: Key) -> LabelValues:
    return ()


def _itself(key: str) -> LabelValues:
    return (key,)


def _attempt(key: Ended) -> LabelValues:
    verdict, status = key if isinstance(key, tuple) else (Verdict.DELIVERED, key)
    return verdict, "none" if status is None else f"{status // 100}xx"


def answered(route: str, method: str, status: int) -> Answered:
    """The key of a request; odd methods share one."""
    return route, method if method in _METHODS else OTHER, status


def _request(key: Answered) -> LabelValues:
    route, method, status = key
    return route, method, str(status)


def _version() -> str:
    try:
        return version("task-dispatch-gateway")
    except PackageNotFoundError:
        return "unknown"
