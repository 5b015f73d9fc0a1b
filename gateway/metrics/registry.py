"""Every metric of the process: its name, its labels, its buckets, how the values of workers are put together."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.metrics.depths import DEPTHS, ClientLabels, Depths
from gateway.metrics.labels import Children, Live, PerClient
from gateway.metrics.tally import BOUNDS

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG_SECONDS = BOUNDS
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

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(name, text, labels, registry=own, buckets=buckets)

        self.enqueued = PerClient(counter("tasks_enqueued", "Tasks accepted.", "client_id", "queue"))
        self.limited = PerClient(counter("rate_limit_exceeded", "Requests refused by the window.", "client_id", "tier"))
        self.full = Children(
            counter("gateway_queue_full", "Requests refused since too much of the client waits.", "client_id")
        )
        self.attempts = Children(
            counter("gateway_attempts", "Calls to targets, by what they meant.", "outcome", "status_class")
        )
        self.attempt_seconds = histogram(
            "gateway_attempt_duration_seconds", "Duration of calls to targets.", buckets=_LONG_SECONDS
        )
        self.finished = Children(
            counter(
                "gateway_tasks_finished", "Attempts whose outcome was stored, by what became of the task.", "result"
            )
        )
        for result in ("succeeded", "retry", "dead"):
            self.finished[(result,)].inc(0)  # so that a rate sees the first one
        self.start_delay = histogram(
            "gateway_start_delay_seconds", "Time from a task's due time to its start.", buckets=_LONG_SECONDS
        )
        self.in_flight = gauge("gateway_in_flight", "Calls to targets that are open now.")
        self.max_in_flight = gauge("gateway_max_in_flight", "Calls to targets that may be open at once.")
        self.labels = ClientLabels(max_clients)
        # What Redis holds is the same for every worker: the last one to look is right, and the sum would
        # be wrong.
        self.depths = Depths(
            {
                state: Children(
                    gauge(
                        f"gateway_tasks_{state}",
                        f"Tasks {state}, by client; absent where a client has no tasks at all.",
                        "client_id",
                        mode="livemostrecent",
                    )
                )
                for state in DEPTHS
            },
            self.labels,
            shared=folder is not None,
        )
        self.totals = Children(
            gauge("gateway_tasks", "Tasks by state, over all clients.", "state", mode="livemostrecent")
        )
        self.oldest_waiting = gauge(
            "gateway_oldest_waiting_seconds",
            "For how long the task has been due that waits longest, over all clients; 0 where none waits.",
            mode="livemostrecent",
        )
        self.active = gauge("gateway_active_clients", "Clients whose tasks wait or run.", mode="livemostrecent")
        self.clients = Children(
            gauge("gateway_clients", "Clients by tier and state.", "tier", "state", mode="livemostrecent")
        )
        self.tiers: set[str] = set()
        self.revenue = Children(
            gauge(
                "gateway_tier_revenue",
                "Enabled clients of a tier times its price, in the unit of the prices; absent where it has none.",
                "tier",
                mode="livemostrecent",
            )
        )
        self.candidates = gauge(
            "gateway_upgrade_candidates",
            "Clients that were refused in more than 10 minutes of the last day.",
            mode="livemostrecent",
        )
        self.saturation = Children(
            gauge(
                "gateway_limit_saturation_ratio",
                "The largest share of a limit that any client has used.",
                "limit",
                mode="livemostrecent",
            )
        )
        self.at_limit = Children(
            gauge("gateway_clients_at_limit", "Clients that have used up a limit.", "limit", mode="livemostrecent")
        )
        self.redis_seconds = Children(
            histogram("gateway_redis_command_duration_seconds", "Redis round trips.", "operation")
        )
        self.redis_errors = Children(counter("gateway_redis_errors", "Redis round trips that failed.", "operation"))
        self.pool_in_use = gauge("gateway_redis_pool_in_use", "Redis connections in use.")
        self.pool_size = gauge("gateway_redis_pool_size", "Redis connections there may be.")
        self.requests = Children(
            counter("gateway_http_requests", "HTTP requests answered.", "route", "method", "status")
        )
        self.request_seconds = Children(
            histogram("gateway_http_request_duration_seconds", "Duration of HTTP requests.", "route")
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


def _version() -> str:
    try:
        return version("task-dispatch-gateway")
    except PackageNotFoundError:
        return "unknown"
