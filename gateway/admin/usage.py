"""`/admin/usage` and `/admin/upgrade-candidates`: what clients did, by minute and hour, and who outgrows its tier."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.errors import InvalidBody
from gateway.keys import AppKeys
from gateway.metrics.tally import ADMITTED, DELIVERED, FAILED, REFUSED, REFUSED_MINUTES, Tally, empty, quantile
from gateway.middleware.answers import json_answer, limit_body
from gateway.middleware.reading import CLIENT_ID_FORMAT, is_client_id, moment, page_limit, query
from gateway.models import DEFAULT_TIER, Client, RateLimit
from gateway.store import Store
from gateway.store.clients import UnreadableClient
from gateway.store.figures import CANDIDATE_MINUTES
from gateway.store.usage import DAY, EVERYBODY, HOUR, KEPT, MINUTE, added

PAGE = 50
PAGE_MAX = 500
MINUTES_MAX = 1440
_STEPS = {"minute": MINUTE, "hour": HOUR}
_SPANS = {MINUTE: HOUR, HOUR: DAY}  # what is shown unless `from` says otherwise
_KNOWN = ("client_id", "from", "to", "step")
_CANDIDATES = ("minutes", "limit")


async def show_usage(request: web.Request) -> web.StreamResponse:
    """200 with every step of the stretch, also those in which nothing happened."""
    client_id, step_name = query(request, "client_id", _KNOWN), query(request, "step", _KNOWN) or "minute"
    if client_id is not None and not is_client_id(client_id):
        msg = f"client_id: {CLIENT_ID_FORMAT}"
        raise InvalidBody(msg, error="Invalid query")
    if step_name not in _STEPS:
        raise InvalidBody("step: must be minute or hour", error="Invalid query")
    asked = [moment(name, query(request, name, _KNOWN)) for name in ("from", "to")]
    usages = request.app[AppKeys.STORE].usages
    step = _STEPS[step_name]
    start, end = stretch(await usages.now(), step, *asked)
    found = await usages.steps(client_id or EVERYBODY, start, end, step)
    body = {
        "client_id": client_id,
        "step": step_name,
        "from": _time(start),
        "to": _time(end),
        "points": points(found, start, end, step),
        "total": figures(added(found.values())),
    }
    return json_answer(body)


def stretch(now: float, step: int, first: int | None, last: int | None) -> tuple[int, int]:
    """From when until when, in Unix seconds at the edges of steps and within what is kept; ``first`` and ``last`` are
    what was asked for, in Unix ms. Raises `InvalidBody` where nothing lies between them.

    >>> stretch(7230.5, 60, None, None)
    (3660, 7260)
    """
    newest = (int(now) // step + 1) * step
    end = newest if last is None else min(newest, -(-last // (1000 * step)) * step)
    start = end - _SPANS[step] if first is None else first // (1000 * step) * step
    start = max(start, newest - KEPT[step])
    if start >= end:
        msg = "from: must be earlier than to, and not after now; minutes are kept for a day, hours for 90 days"
        raise InvalidBody(msg, error="Invalid query")
    return start, end


def points(found: Mapping[int, Tally], start: int, end: int, step: int) -> list[dict[str, Any]]:
    """Every step as the API shows it, oldest first."""
    nothing = figures(empty())
    return [{"at": _time(at), **(figures(found[at]) if at in found else nothing)} for at in range(start, end, step)]


def figures(tally: Tally) -> dict[str, Any]:
    """A tally as the API shows it; durations in seconds."""
    return {
        "admitted": tally[ADMITTED],
        "refused": tally[REFUSED],
        "delivered": tally[DELIVERED],
        "failed": tally[FAILED],
        "duration_p50": quantile(tally, 0.5),
        "duration_p95": quantile(tally, 0.95),
    }


async def list_candidates(request: web.Request) -> web.StreamResponse:
    """200 with the clients that were refused in more minutes of the last day than ``minutes``, most first."""
    text = query(request, "minutes", _CANDIDATES)
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) <= 4 and int(text) <= MINUTES_MAX):
        msg = f"minutes: must be a whole number from 0 to {MINUTES_MAX}"
        raise InvalidBody(msg, error="Invalid query")
    minutes = CANDIDATE_MINUTES if text is None else int(text)
    limit = page_limit(query(request, "limit", _CANDIDATES), PAGE_MAX) or PAGE
    store = request.app[AppKeys.STORE]
    now = await store.usages.now()
    found = await store.usages.candidates(minutes, now)
    listed = []
    for client_id, tally in found[:limit]:
        client = await present(store, client_id)
        listed.append(
            {
                "client_id": client_id,
                "tier": None if client is None else client.tier,
                "rate_limit": None if client is None else limit_body(client.rate_limit),
                "refused_minutes": tally[REFUSED_MINUTES],
                "refused": tally[REFUSED],
                "admitted": tally[ADMITTED],
                "next_tier": None if client is None else next_tier(client.rate_limit, store.tiers.current),
            }
        )
    since = _time((int(now) // HOUR + 1) * HOUR - DAY)
    return json_answer({"minutes": minutes, "since": since, "candidates": listed, "count": len(found)})


def next_tier(limit: RateLimit, tiers: Mapping[str, RateLimit]) -> str | None:
    """The smallest tier that has more requests a minute, and no fewer calls at once; None: there is none. `default` is
    what a client has that nobody gave a tier, so nobody is moved up to it.

    >>> next_tier(RateLimit(3, 50), {"free": RateLimit(1, 10), "big": RateLimit(9, 900), "basic": RateLimit(5, 100)})
    'basic'
    """
    larger = [
        (tier.requests_per_min, tier.max_concurrent, name)
        for name, tier in tiers.items()
        if name != DEFAULT_TIER
        and tier.requests_per_min > limit.requests_per_min
        and tier.max_concurrent >= limit.max_concurrent
    ]
    return min(larger)[2] if larger else None


async def present(store: Store, client_id: str) -> Client | None:
    """The client as it is now, None where it is gone or can't be read."""
    try:
        return await store.clients.get(client_id)
    except UnreadableClient:
        return None


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


ROUTES = (
    web.get("/usage", show_usage),
    web.get("/upgrade-candidates", list_candidates),
)
