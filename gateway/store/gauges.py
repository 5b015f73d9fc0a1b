"""Keeps the depth gauges true: what waits, runs and is dead, by client and in all, read from Redis and nowhere else."""

import asyncio
from typing import Final

import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store import Store

log = structlog.get_logger()

SECONDS: Final = 5.0
# One look is bounded: with more clients than this at work, the totals are those of the longest active ones.
CLIENTS: Final = 2000
_AT_ONCE: Final = 50


async def collect_once(store: Store) -> None:
    """Read the figures of the active clients and set the gauges."""
    queued = scheduled = dead = 0
    oldest = 0.0
    clients = await store.claims.active(CLIENTS)
    for start in range(0, len(clients), _AT_ONCE):
        chunk = clients[start : start + _AT_ONCE]
        for client_id, usage in zip(chunk, await asyncio.gather(*map(store.windows.usage, chunk)), strict=True):
            metrics.depths(client_id, usage.queued, usage.scheduled, usage.in_flight, usage.dead)
            oldest = max(oldest, usage.oldest_waiting or 0.0)
            queued += usage.queued
            scheduled += usage.scheduled
            dead += usage.dead
    metrics.keep_depths(clients)
    metrics.totals(queued, scheduled, dead)
    metrics.oldest_waiting(oldest)


async def keep_gauges(store: Store) -> None:
    """Collect every few seconds until cancelled; while Redis is away the gauges keep what they had."""
    while True:
        try:
            await collect_once(store)
        except StoreUnavailable as error:
            log.debug("gauges_not_read", error=error.message)
        await asyncio.sleep(SECONDS)
