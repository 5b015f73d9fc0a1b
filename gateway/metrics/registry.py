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
from gateway.metrics.sums import ClientValues, Counts, Durations, LabelValues, Level
from gateway.metrics.tally import BOUNDS

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
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


class Registry:
    """All metrics of one process, on a registry of their own."""

    def __init__(self, max_clients: int, folder: Path | None) -> None:
        own = CollectorRegistry()
        self.registry = own
        if folder is None:
            prometheus_client.ProcessCollector(registry=own)
        else:
            self.registry = CollectorRegistry()
            self.registry.register(Live(folder))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=own)

        def gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
            return Gauge(name, text, labels, registry=own, multiprocess_mode=mode)

        def counts(metric: Counter, labels: Callable[[Key], LabelValues]) -> Counts[Key]:
            self.sums.append(made := Counts(metric, labels))
            return made

        def durations(
            name: str, text: str, *names: str, labels: Callable[[Key], LabelValues], bounds: Sequence[float] = _SECONDS
        ) -> Durations[Key]:
            histogram = Histogram(name, text, names, registry=own, buckets=bounds)
            self.sums.append(made := Durations(histogram, bounds, labels))
            return made

        self.sums: list[Counts[Any] | Durations[Any] | Level] = []
        self.labels = ClientLabels(max_clients)
        self.enqueued = counts(
            counter("tasks_enqueued", "Tasks accepted.", "client_id", "queue"), ClientValues(self.labels).of
        )
        self.limited = counts(
            counter("rate_limit_exceeded", "Requests refused by the window.", "client_id", "tier"),
            ClientValues(self.labels).of,
        )
        self.full = Children(
            counter("gateway_queue_full", "Requests refused since too much of the client waits.", "client_id")
        )
        self.attempts = counts(
            counter("gateway_attempts", "Calls to targets, by what they meant.", "outcome", "status_class"), _attempt
        )
        self.attempt_seconds = durations(
            "gateway_attempt_duration_seconds", "Duration of calls to targets.", labels=_no_labels, bounds=BOUNDS
        )
        self.finished = counts(
            counter(
                "gateway_tasks_finished", "Attempts whose outcome was stored, by what became of the task.", "result"
            ),
            _itself,
        )
        for result in ("succeeded", "retry", "dead"):
            self.finished.add(result, 0)  # so that a rate sees the first one
        self.start_delay = durations(
            "gateway_start_delay_seconds", "Time from a task's due time to its start.", labels=_no_labels, bounds=BOUNDS
        )
        self.in_flight = Level(gauge("gateway_in_flight", "Calls to targets that are open now."))
        self.sums.append(self.in_flight)
        self.max_in_flight = gauge("gateway_max_in_flight", "Calls to targets that may be open at once.")
        self.everyone = Everyone(partial(gauge, mode="livemostrecent"), self.labels, shared=folder is not None)
        self.redis_seconds = durations(
            "gateway_redis_command_duration_seconds", "Redis round trips.", "operation", labels=_itself
        )
        self.redis_errors = Children(counter("gateway_redis_errors", "Redis round trips that failed.", "operation"))
        self.pool_in_use = gauge("gateway_redis_pool_in_use", "Redis connections in use.")
        self.pool_size = gauge("gateway_redis_pool_size", "Redis connections there may be.")
        self.requests = counts(
            counter("gateway_http_requests", "HTTP requests answered.", "route", "method", "status"), _request
        )
        self.request_seconds = durations(
            "gateway_http_request_duration_seconds", "Duration of HTTP requests.", "route", labels=_itself
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


def _no_labels(_: None) -> LabelValues:
    return ()


def _itself(key: str) -> LabelValues:
    return (key,)


def _attempt(key: tuple[str, int | None]) -> LabelValues:
    verdict, status = key
    return verdict, "none" if status is None else f"{status // 100}xx"


def _request(key: tuple[str, str, int]) -> LabelValues:
    route, method, status = key
    return route, method if method in _METHODS else OTHER, str(status)


def _version() -> str:
    try:
        return version("task-dispatch-gateway")
    except PackageNotFoundError:
        return "unknown"
