"""`/admin/dead`: what was given up, by client, error and time; looked at, put back on its queue, removed for good."""

from typing import Final

import msgspec
from aiohttp import web

from gateway.admin.choosing import FILTERS, chosen, filter_of_query, newest_first, paging
from gateway.admin.jobs import create
from gateway.admin.journal import note
from gateway.admin.views import operators_body
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer
from gateway.models import State
from gateway.store.steering import Action

_FILTERS: Final = tuple(name for name in FILTERS if name != "state")
_LISTING: Final = (*_FILTERS, "order", "limit", "cursor")


async def list_dead(request: web.Request) -> web.StreamResponse:
    """200 with a page; it may be short of its limit where few match, and still have a next."""
    wanted = msgspec.structs.replace(chosen(filter_of_query(request, _LISTING)), states=frozenset({State.DEAD}))
    place, limit = paging(request, _LISTING)
    newest = newest_first(request, _LISTING)
    page = await request.app[AppKeys.STORE].listing.page(wanted, cursor=place, limit=limit, newest=newest)
    return json_answer({"tasks": [operators_body(task) for task in page.tasks], "next_cursor": page.next_cursor})


async def replay(request: web.Request) -> web.StreamResponse:
    """200 with how many are queued again, as if they had just been enqueued; without a client 202 with a job."""
    return await _do(request, "replay")


async def purge(request: web.Request) -> web.StreamResponse:
    """200 with how many were removed; without a client 202 with a job."""
    return await _do(request, "purge")


async def _do(request: web.Request, action: Action) -> web.StreamResponse:
    given = filter_of_query(request, _FILTERS)
    wanted = chosen(given)
    if wanted.client_id is None:  # of all clients that may take a while
        return await create(request, action, given, dry_run=False)
    done = await request.app[AppKeys.STORE].steering.all(action, wanted)
    await note(request, f"{action}_dead", wanted.client_id, queue=wanted.queue, tasks=done)
    return json_answer({"client_id": wanted.client_id, "tasks": done})


ROUTES = (
    web.get("/dead", list_dead),
    web.delete("/dead", purge),
    web.post("/dead/replay", replay),
)
