"""`GET /v1/rate-limit`: a client's policy and what it has used of it."""

from aiohttp import web

from gateway.errors import NotFound
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, limit_body
from gateway.middleware.client import known_client
from gateway.middleware.reading import client_id_of_query
from gateway.middleware.window import window_headers
from gateway.models import DEFAULT_TIER, Client, Source


async def rate_limit(request: web.Request) -> web.StreamResponse:
    """200; consumes nothing and creates nobody."""
    client_id = client_id_of_query(request)
    store = request.app[AppKeys.STORE]
    client = await known_client(store.clients, client_id)
    if client is None:
        message = f"client {client_id} does not exist"
        raise NotFound(message, error="Client not found")
    limit = client.rate_limit
    usage = await store.windows.usage(client_id)
    body = {
        "client_id": client_id,
        "tier": client.tier,
        "rate_limit": limit_body(limit),
        "source": source(client, known=client.tier in store.tiers.current),
        "current_usage": usage.window.used,
        "remaining": max(0, limit.requests_per_min - usage.window.used),
        "reset": usage.window.reset,
        "in_flight": usage.in_flight,
        "queued": usage.queued,
    }
    return json_answer(body, headers=window_headers(usage.window, limit.requests_per_min))


def source(client: Client, *, known: bool) -> Source:
    """Whose numbers hold: the client's own, its tier's, or the default's, where the tier is that or is gone."""
    if client.source == "client":
        return "client"
    return "tier" if known and client.tier != DEFAULT_TIER else "default"
