"""`/admin/tiers`: the tiers this gateway knows, the shipped ones and those of `TIERS_FILE`."""

from aiohttp import web

from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, limit_body


async def list_tiers(request: web.Request) -> web.StreamResponse:
    """200 with every tier by name."""
    tiers = request.app[AppKeys.SETTINGS].tiers
    return json_answer({"tiers": {name: limit_body(limit) for name, limit in tiers.items()}})


ROUTES = (web.get("/tiers", list_tiers),)
