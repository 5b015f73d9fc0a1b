"""`/admin/dead`: what was given up, by client, error and time; looked at, put back on its queue, removed for good."""

from aiohttp import web

from gateway.admin.journal import note
from gateway.admin.views import letter_body
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer
from gateway.middleware.reading import client_id_of_query, moment, page_limit, query
from gateway.models import DeadFilter

PAGE = 50
PAGE_MAX = 500
_FILTERS = ("client_id", "task_id", "error", "after", "before")
_LISTING = (*_FILTERS, "limit", "cursor")


async def list_dead(request: web.Request) -> web.StreamResponse:
    """200 with a page, newest first; a page may be short of its limit where few match, and still have a next."""
    client_id = client_id_of_query(request, _LISTING)
    limit = page_limit(query(request, "limit", _LISTING), PAGE_MAX) or PAGE
    cursor = query(request, "cursor", _LISTING)
    wanted = _wanted(request, _LISTING)
    page = await request.app[AppKeys.STORE].dead.page(client_id, wanted, cursor=cursor, limit=limit)
    return json_answer({"tasks": [letter_body(letter) for letter in page.letters], "next_cursor": page.next_cursor})


async def replay(request: web.Request) -> web.StreamResponse:
    """200 with how many are queued again, as if they had just been enqueued."""
    return await _do(request, "replay")


async def purge(request: web.Request) -> web.StreamResponse:
    """200 with how many were removed."""
    return await _do(request, "purge")


async def _do(request: web.Request, action: str) -> web.StreamResponse:
    client_id = client_id_of_query(request, _FILTERS)
    wanted = _wanted(request, _FILTERS)
    dead = request.app[AppKeys.STORE].dead
    done = await (dead.replay if action == "replay" else dead.purge)(client_id, wanted)
    await note(request, f"{action}_dead", client_id, tasks=done)
    return json_answer({"client_id": client_id, "tasks": done})


def _wanted(request: web.Request, known: tuple[str, ...]) -> DeadFilter:
    after, before = (moment(name, query(request, name, known)) for name in ("after", "before"))
    return DeadFilter(query(request, "task_id", known), query(request, "error", known), after, before)


ROUTES = (
    web.get("/dead", list_dead),
    web.delete("/dead", purge),
    web.post("/dead/replay", replay),
)
