"""`/admin/clients/pause`, `resume`, `usage`, `active` and `/admin/queues/purge`: whether a client's tasks start, how it
and its queues stand at this moment, and the end of what waits in a queue."""

import asyncio
import re
from typing import Any

from aiohttp import web

from gateway.admin.choosing import paging
from gateway.admin.clients import existing
from gateway.admin.journal import note
from gateway.errors import InvalidBody
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, limit_body
from gateway.middleware.reading import client_id_of_query, query
from gateway.models import QUEUE_PATTERN, Client
from gateway.store import Store
from gateway.store.clients import UnreadableClient
from gateway.store.windows import RECENT_SECONDS
from gateway.task_filter import TaskFilter

ACTIVE_MAX = 200
_KNOWN = ("client_id", "queue")
_PAGING = ("limit", "cursor")


async def pause(request: web.Request) -> web.StreamResponse:
    """200; what runs goes on, what waits does not start, what is enqueued is accepted."""
    return await _change(request, paused=True)


async def resume(request: web.Request) -> web.StreamResponse:
    """200; the same where nothing was paused."""
    return await _change(request, paused=False)


async def _change(request: web.Request, *, paused: bool) -> web.StreamResponse:
    client_id = client_id_of_query(request, _KNOWN)
    queue = _queue(request)
    client = await existing(request, client_id)
    await request.app[AppKeys.STORE].clients.pause(client_id, queue, paused=paused)
    await note(request, "pause" if paused else "resume", client_id, tier=client.tier, queue=queue or None)
    return await _answer(request, client)


async def usage(request: web.Request) -> web.StreamResponse:
    """200 with the figures, 404 for an unknown client."""
    return await _answer(request, await existing(request, client_id_of_query(request)))


async def active(request: web.Request) -> web.StreamResponse:
    """200 with the figures of a page of clients that have tasks, or had some lately."""
    place, limit = paging(request, _PAGING, most=ACTIVE_MAX)
    store = request.app[AppKeys.STORE]
    names, next_cursor = await store.listing.clients(place, limit)
    clients = [await _known(store, name) for name in names]
    shown = await asyncio.gather(*(_figures(request, client) for client in clients))
    return json_answer({"clients": shown, "next_cursor": next_cursor})


async def _known(store: Store, client_id: str) -> Client:
    """The client; one whose settings are gone, or can't be read, as what it has queued is treated."""
    try:
        return await store.clients.get(client_id) or store.clients.new(client_id)
    except UnreadableClient:
        return store.clients.new(client_id)


async def _answer(request: web.Request, client: Client) -> web.StreamResponse:
    return json_answer(await _figures(request, client))


async def _figures(request: web.Request, client: Client) -> dict[str, Any]:
    windows = request.app[AppKeys.STORE].windows
    seen, standings = await asyncio.gather(windows.usage(client.client_id), windows.standings(client.client_id))
    limit = client.rate_limit
    return {
        "client_id": client.client_id,
        "tier": client.tier,
        "rate_limit": limit_body(limit),
        "paused": "" in seen.paused,
        "paused_queues": sorted(seen.paused - {""}),
        "current_usage": seen.window.used,
        "remaining": max(0, limit.requests_per_min - seen.window.used),
        "in_flight": seen.in_flight,
        "queued": seen.queued,
        "queued_bytes": standings.queued_bytes,
        "oldest_waiting": None if seen.oldest_waiting is None else round(seen.oldest_waiting, 1),
        "scheduled": seen.scheduled,
        "dead": seen.dead,
        "recent": {"seconds": RECENT_SECONDS, "ended": standings.ended, "dead": standings.dead},
        "error_rate": round(standings.dead / standings.ended, 4) if standings.ended else None,
        "queues": [
            {
                "queue": queue.name,
                "paused": queue.paused,
                "queued": queue.queued,
                "in_flight": queue.in_flight,
                "oldest_waiting": _waits(queue.oldest_waiting, seen.window.now),
            }
            for queue in standings.queues
        ],
    }


def _waits(since: int | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since / 1000), 1)


async def purge_queue(request: web.Request) -> web.StreamResponse:
    """200 with how many tasks of the queue were cancelled, delayed and retrying ones included; what runs goes on."""
    client_id, queue = client_id_of_query(request, _KNOWN), _queue(request)
    if not queue:
        msg = f"say which queue: {request.path}?client_id={client_id}&queue=…"
        raise InvalidBody(msg, error="Invalid query")
    wanted = TaskFilter(client_id=client_id, queue=queue)
    done = await request.app[AppKeys.STORE].steering.all("cancel", wanted)
    await note(request, "purge_queue", client_id, queue=queue, tasks=done)
    return json_answer({"client_id": client_id, "queue": queue, "tasks": done})


def _queue(request: web.Request) -> str:
    queue = query(request, "queue", _KNOWN) or ""
    if queue and not re.fullmatch(QUEUE_PATTERN, queue):
        msg = "queue: must be 1 to 64 of the characters A-Z a-z 0-9 _ -; leave it out for all"
        raise InvalidBody(msg, error="Invalid query")
    return queue


ROUTES = (
    web.post("/clients/pause", pause),
    web.post("/clients/resume", resume),
    web.get("/clients/usage", usage),
    web.get("/clients/active", active),
    web.post("/queues/purge", purge_queue),
)
