"""Keeps the gauges true that tell of all clients: they show the snapshot that the processes share (see `figures`), as
`/admin/overview` does."""

import asyncio
from collections.abc import Mapping

import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store import Store
from gateway.store.figures import LIMITS, SECONDS, Figures

log = structlog.get_logger()


def show(figures: Figures, prices: Mapping[str, float]) -> None:
    """Set the gauges."""
    for client in figures.clients:
        metrics.depths(client.client_id, *client.depths)
    metrics.keep_depths([client.client_id for client in figures.clients])
    metrics.rest_of_depths(*figures.rest)
    metrics.totals(figures.queued, figures.scheduled, figures.in_flight, figures.dead)
    metrics.oldest_waiting(figures.oldest_waiting)
    metrics.active_clients(figures.active)
    metrics.upgrade_candidates(figures.candidates)
    for limit, share, clients in zip(LIMITS, figures.saturation, figures.at_limit, strict=True):
        metrics.saturation(limit, share, clients)
    metrics.tiers({name: (tier.enabled, tier.clients - tier.enabled) for name, tier in figures.tiers.items()}, prices)


async def keep_gauges(store: Store) -> None:
    """Show every few seconds what is shared, or look it up in turn, until cancelled; while Redis is away the gauges
    keep what they had."""
    while True:
        try:
            show(await store.figured.latest(store.consumer), store.tiers.prices)
        except StoreUnavailable as error:
            log.debug("gauges_not_read", error=error.message)
        except Exception:
            log.exception("gauges_failed")  # on one odd record; the others are to be counted again
        await asyncio.sleep(SECONDS)
