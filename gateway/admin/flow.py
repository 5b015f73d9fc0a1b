"""`/admin/clients/pause`, `resume` and `usage`: whether a client's tasks start, and how it stands at this moment."""

import re
from typing import Any

from aiohttp import web

from gateway.admin.clients import existing
from gateway.admin.journal import note
from gateway.errors import InvalidBody
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, limit_body
from gateway.middleware.reading import client_id_of_query, query
from gateway.models import QUEUE_PATTERN, Client

_KNOWN = ("client_id", "queue")


async def pause(request: web.Request) -> web.StreamResponse:
    """200; what runs goes on, what waits does not start, what is enqueued is accepted."""
    return await _change(request, paused=True)


async def resume(request: web.Request) -> web.StreamResponse:
    """200; the same where nothing was paused."""
    return await _change(request, paused=False)


async def _change(request: web.Request, *, paused: bool) -> web.StreamResponse:
    client_id = client_id_of_query(request, _KNOWN)
    queue = query(request, "queue", _KNOWN) or ""
    if queue and not re.fullmatch(QUEUE_PATTERN, queue):
        msg = "queue: must be 1 to 64 of the characters A-Z a-z 0-9 _ -; leave it out for all"
        raise InvalidBody(msg, error="Invalid query")
    client = await existing(request, client_id)
    await request.app[AppKeys.STORE].clients.pause(client_id, queue, paused=paused)
    await note(request, "pause" if paused else "resume", client_id, tier=client.tier, queue=queue or None)
    return await _answer(request, client)


async def usage(request: web.Request) -> web.StreamResponse:
    """200 with the figures, 404 for an unknown client."""
    return await _answer(request, await existing(request, client_id_of_query(request)))


async def _answer(request: web.Request, client: Client) -> web.StreamResponse:
    seen = await request.app[AppKeys.STORE].windows.usage(client.client_id)
    body: dict[str, Any] = {
        "client_id": client.client_id,
        "tier": client.tier,
        "rate_limit": limit_body(client.rate_limit),
        "paused": "" in seen.paused,
        "paused_queues": sorted(seen.paused - {""}),
        "current_usage": seen.window.used,
        "in_flight": seen.in_flight,
        "queued": seen.queued,
        "oldest_waiting": None if seen.oldest_waiting is None else round(seen.oldest_waiting, 1),
        "scheduled": seen.scheduled,
        "dead": seen.dead,
    }
    return json_answer(body)


ROUTES = (
    web.post("/clients/pause", pause),
    web.post("/clients/resume", resume),
    web.get("/clients/usage", usage),
)
