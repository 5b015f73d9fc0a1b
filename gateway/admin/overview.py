"""`/admin/overview`: all that an operator's first page needs, in one call whose cost does not grow with the clients."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.admin.redis import health_body
from gateway.admin.replicas import replica_body
from gateway.admin.usage import figures as usage_figures
from gateway.admin.usage import points, present
from gateway.keys import AppKeys
from gateway.metrics.tally import ADMITTED, DELIVERED, FAILED, REFUSED
from gateway.middleware.answers import json_answer, rfc3339
from gateway.middleware.explanation import explained
from gateway.settings import Settings
from gateway.store import Store
from gateway.store.figures import LIMITS, Figures
from gateway.store.replicas import Replica
from gateway.store.usage import EVERYBODY, HOUR, MINUTE, added

LISTED = 10
_LOOKED_AT = 3  # clients, for the task that waits longest: the snapshot is seconds old


async def show_overview(request: web.Request) -> web.StreamResponse:
    """200; the figures of all clients are those of the shared snapshot, the rest is read now."""
    store, settings = request.app[AppKeys.STORE], request.app[AppKeys.SETTINGS]
    figures, now = await asyncio.gather(store.figured.recent(), store.usages.now())
    end = (int(now) // MINUTE + 1) * MINUTE
    replicas = await store.replicas.all()
    minutes, refused, failed, failures, health, oldest = await asyncio.gather(
        store.usages.steps(EVERYBODY, end - HOUR, end, MINUTE),
        store.usages.most(REFUSED, now, LISTED),
        store.usages.most(FAILED, now, LISTED),
        store.usages.failures(now),
        store.health(),
        _oldest_waiting(store, figures),
    )
    body = {
        "at": rfc3339(figures.at),
        "sampled": figures.sampled,
        "totals": {
            "queued": figures.queued,
            "scheduled": figures.scheduled,
            "in_flight": figures.in_flight,
            "dead": figures.dead,
        },
        "clients": _clients(figures),
        "tiers": _tiers(figures, store.tiers.prices),
        "upgrade_candidates": figures.candidates,
        "minutes": points(minutes, end - HOUR, end, MINUTE),
        "last_hour": usage_figures(added(minutes.values())),
        "refused_most": [
            {**await _who(store, name), "refused": tally[REFUSED], "admitted": tally[ADMITTED]}
            for name, tally in refused
        ],
        "failed_most": [
            {**await _who(store, name), "failed": tally[FAILED], "delivered": tally[DELIVERED]}
            for name, tally in failed
        ],
        "failures": {
            "by_status": [{"status": name, "count": count} for name, count in failures.by_status[:LISTED]],
            "by_host": [{"host": name, "count": count} for name, count in failures.by_host[:LISTED]],
        },
        "waiting_longest": _waiting_longest(figures),
        "oldest_waiting": oldest,
        "saturation": _saturation(figures, replicas, settings),
        "replicas": [replica_body(replica) for replica in replicas],
        "redis": health_body(health),
    }
    return json_answer(body)


def _clients(figures: Figures) -> dict[str, int]:
    known = sum(tier.clients for tier in figures.tiers.values())
    enabled = sum(tier.enabled for tier in figures.tiers.values())
    return {"known": known, "enabled": enabled, "disabled": known - enabled, "active": figures.active}


def _tiers(figures: Figures, prices: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "tier": name,
            "clients": tier.clients,
            "enabled": tier.enabled,
            "price": prices.get(name),
            "revenue": prices[name] * tier.enabled if name in prices else None,
        }
        for name, tier in sorted(figures.tiers.items())
    ]


def _saturation(figures: Figures, replicas: list[Replica], settings: Settings) -> dict[str, Any]:
    """How far each limit is used: by all clients together, and by the one that has used most of its own."""
    return {
        "in_flight": figures.in_flight,
        "max_in_flight": sum(replica.max_in_flight for replica in replicas if replica.dispatches),
        "waiting": figures.queued + figures.scheduled + figures.in_flight,
        "max_queued": settings.max_queued,
        "clients": [
            {"limit": name, "highest": round(share, 4), "at_limit": clients}
            for name, share, clients in zip(LIMITS, figures.saturation, figures.at_limit, strict=True)
        ],
    }


def _waiting_longest(figures: Figures) -> list[dict[str, Any]]:
    return [
        {
            "client_id": client.client_id,
            "seconds": round(client.oldest_waiting or 0, 1),
            "queued": client.queued,
            "scheduled": client.scheduled,
            "in_flight": client.in_flight,
            "dead": client.dead,
        }
        for client in figures.longest[:LISTED]
    ]


async def _oldest_waiting(store: Store, figures: Figures) -> dict[str, Any] | None:
    """The task that waits longest, as it stands now, and why; None where none waits."""
    for row in _waiting_longest(figures)[:_LOOKED_AT]:
        client_id = row["client_id"]
        usage = await store.windows.usage(client_id)
        if usage.oldest_task is None:
            continue
        told = await explained(store, client_id, usage.oldest_task)
        if told is None:
            continue
        kept = ("client_id", "task_id", "queue", "constraint", "message", "since")
        return {**{name: told[name] for name in kept}, "seconds": round(usage.oldest_waiting or 0, 1)}
    return None


async def _who(store: Store, client_id: str) -> dict[str, str | None]:
    client = await present(store, client_id)
    return {"client_id": client_id, "tier": None if client is None else client.tier}


ROUTES = (web.get("/overview", show_overview),)
