"""`/admin/tiers`: the tiers there are, shipped, of `TIERS_FILE`, and those stored here, which go before."""

import re
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gateway.admin.clients import LimitBody, truth
from gateway.admin.journal import note
from gateway.errors import Conflict, InvalidBody, NotFound
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, limit_body
from gateway.middleware.reading import query, read_body
from gateway.middleware.strict_json import decode_strictly
from gateway.models import QUEUE_PATTERN, RateLimit
from gateway.store import Store
from gateway.store.rounds import TierFigures

_NAME = re.compile(QUEUE_PATTERN)


class TierBody(LimitBody, forbid_unknown_fields=True):
    """What a tier is from now on."""

    price: Annotated[
        Annotated[float, Meta(ge=0)] | UnsetType | None,
        Meta(description="in any unit, for the revenue; left out: the one it has, null: none", examples=[49.5]),
    ] = UNSET


_DECODER = msgspec.json.Decoder(TierBody)
_FIELDS = {"$": TierBody.__struct_fields__}


async def list_tiers(request: web.Request) -> web.StreamResponse:
    """200 with every tier by name; with `figures=true` also where each is from and how many clients it has, by the
    shared snapshot."""
    store = request.app[AppKeys.STORE]
    tiers = {name: _tier_body(store, name) for name in store.tiers.current}
    if truth("figures", query(request, "figures", ("figures",)) or "false"):
        counted = (await store.figured.recent()).tiers
        for name, body in tiers.items():
            tier = counted.get(name, TierFigures(0, 0))
            body |= {"source": store.tiers.origin(name), "clients": tier.clients, "enabled": tier.enabled}
            if "price" in body:
                body["revenue"] = body["price"] * tier.enabled
    return json_answer({"tiers": tiers})


async def set_tier(request: web.Request) -> web.StreamResponse:
    """200 with the tier as it holds from now on, for each of its clients and on every replica."""
    query(request, "", ())
    name = request.match_info["name"]
    if not _NAME.fullmatch(name):
        msg = "name: must be 1 to 64 of the characters A-Z a-z 0-9 _ -"
        raise InvalidBody(msg, error="Invalid path")
    raw = await read_body(request, request.app[AppKeys.SETTINGS].max_body_bytes)
    given = decode_strictly(raw, _DECODER, _FIELDS)
    store = request.app[AppKeys.STORE]
    before = _shown(store, name)
    await store.set_tier(name, RateLimit(given.max_concurrent, given.requests_per_min), given.price)
    after = _shown(store, name)
    await note(request, "set_tier", None, tier=name, before=before, after=after)
    return json_answer(after)


async def delete_tier(request: web.Request) -> web.StreamResponse:
    """204; or 200 with what holds in its place, where TIERS_FILE or the gateway itself has a tier of this name."""
    query(request, "", ())
    name = request.match_info["name"]
    store, settings = request.app[AppKeys.STORE], request.app[AppKeys.SETTINGS]
    origin = store.tiers.origin(name)
    if origin is None:
        msg = f"there is no tier {name[:64]}"
        raise NotFound(msg, error="Tier not found")
    if origin != "stored":
        where = "shipped with the gateway" if origin == "shipped" else "of TIERS_FILE"
        msg = f"tier {name} is {where} and can't be deleted; PUT stores other numbers before it"
        raise Conflict(msg)
    if name not in settings.tiers:
        used = (await store.clients.page(after=None, limit=1, tier=name, enabled=None)).count
        if used:
            msg = f"{used} clients are of tier {name}; give them another one first (GET /admin/clients?tier={name})"
            raise Conflict(msg, error="Tier in use", extra={"clients": used})
    before = _shown(store, name)
    await store.set_tier(name, None)
    after = _shown(store, name)
    await note(request, "delete_tier", None, tier=name, before=before, after=after)
    return web.Response(status=204) if after is None else json_answer(after)


def _shown(store: Store, name: str) -> dict[str, Any] | None:
    if name not in store.tiers.current:
        return None
    return {"name": name, **_tier_body(store, name), "source": store.tiers.origin(name)}


def _tier_body(store: Store, name: str) -> dict[str, Any]:
    """The price is there where the tier has one."""
    body: dict[str, Any] = limit_body(store.tiers.current[name])
    if name in store.tiers.prices:
        body["price"] = store.tiers.prices[name]
    return body


ROUTES = (
    web.get("/tiers", list_tiers),
    web.put("/tiers/{name}", set_tier),
    web.delete("/tiers/{name}", delete_tier),
)
