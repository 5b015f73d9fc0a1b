"""The gauges that tell of all clients. What Redis holds is the same for every process: where workers answer together,
the last one to look is right and the sum would be wrong."""

from collections.abc import Callable, Mapping

from prometheus_client import Gauge

from gateway.metrics.depths import DEPTHS, ClientLabels, Depths
from gateway.metrics.labels import Children


class Everyone:
    """What clients have, by client and in sum, and how many there are of which kind."""

    def __init__(self, gauge: Callable[..., Gauge], labels: ClientLabels, *, shared: bool) -> None:
        self.depths = Depths(
            {
                state: Children(
                    gauge(
                        f"gateway_tasks_{state}",
                        f"Tasks {state}, by client; absent where a client has no tasks at all.",
                        "client_id",
                    )
                )
                for state in DEPTHS
            },
            labels,
            shared=shared,
        )
        self.totals = Children(gauge("gateway_tasks", "Tasks by state, over all clients.", "state"))
        self.oldest_waiting = gauge(
            "gateway_oldest_waiting_seconds",
            "For how long the task has been due that waits longest, over all clients; 0 where none waits.",
        )
        self.active = gauge("gateway_active_clients", "Clients whose tasks wait or run.")
        self.clients = Children(gauge("gateway_clients", "Clients by tier and state.", "tier", "state"))
        self.tiers: set[str] = set()
        self.revenue = Children(
            gauge(
                "gateway_tier_revenue",
                "Enabled clients of a tier times its price, in the unit of the prices; absent where it has none.",
                "tier",
            )
        )
        self._shared = shared
        self.candidates = gauge(
            "gateway_upgrade_candidates",
            "Clients that were refused in more than 10 minutes of the last day.",
        )
        self.saturation = Children(
            gauge(
                "gateway_limit_saturation_ratio",
                "The largest share of a limit that any client has used.",
                "limit",
            )
        )
        self.at_limit = Children(gauge("gateway_clients_at_limit", "Clients that have used up a limit.", "limit"))

    def show_revenue(self, revenue: Mapping[str, float]) -> None:
        """By tier; a tier that has no price any more is withdrawn."""
        for (tier,) in [*self.revenue.cache]:
            if tier not in revenue:
                self.revenue.withdraw((tier,), shared=self._shared)
        for tier, sum_ in revenue.items():
            self.revenue[(tier,)].set(sum_)
