"""`/admin/clients/keys`: by what a client shows that it is the one it says. Each key is shown once, when it is made."""

import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.admin.clients import existing, truth
from gateway.admin.journal import note
from gateway.errors import InvalidBody, NotFound
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer
from gateway.middleware.reading import client_id_of_query, query
from gateway.store.client_keys import ClientKey, ClientKeys

_KNOWN = ("client_id", "key_id")
_OF_NEW = ("client_id", "required")
_KEY_ID = re.compile(r"key_[0-9a-f]{8}", re.ASCII)


async def show(request: web.Request) -> web.StreamResponse:
    """200 with the keys' ids, and whether the client needs one; 404 for an unknown client that needs none."""
    client_id = client_id_of_query(request)
    keyring = await request.app[AppKeys.STORE].client_keys.get(client_id)
    if not keyring.required:
        await existing(request, client_id)
    keys = [_shown(key) for key in keyring.keys]
    return json_answer({"client_id": client_id, "required": keyring.required, "keys": keys})


async def create(request: web.Request) -> web.StreamResponse:
    """201 with the key, in this answer alone; 409 where the client has two."""
    client = await existing(request, client_id_of_query(request, _OF_NEW))
    required = truth("required", query(request, "required", _OF_NEW) or "true")
    return await _made(
        request, "create_client_key", client.client_id, await _keys(request).create(client.client_id, required=required)
    )


async def rotate(request: web.Request) -> web.StreamResponse:
    """201 with a new key; the newest before it stays valid, an older one does not. 409 where the client has none."""
    client = await existing(request, client_id_of_query(request))
    return await _made(request, "rotate_client_key", client.client_id, await _keys(request).rotate(client.client_id))


async def require(request: web.Request) -> web.StreamResponse:
    """204: the client needs a key from now on; 409 where it has none."""
    client_id = client_id_of_query(request)
    await _keys(request).require(client_id)
    await note(request, "require_client_key", client_id)
    return web.Response(status=204)


async def revoke(request: web.Request) -> web.StreamResponse:
    """204: it opens nothing from now on; 404 where the client has none of this id."""
    client_id = client_id_of_query(request, _KNOWN)
    key_id = query(request, "key_id", _KNOWN)
    if key_id is None or not _KEY_ID.fullmatch(key_id):
        msg = "key_id: must be one of those that GET /admin/clients/keys shows"
        raise InvalidBody(msg, error="Invalid query")
    if not await _keys(request).revoke(client_id, key_id):
        msg = f"client {client_id} has no key {key_id}"
        raise NotFound(msg, error="Key not found")
    await note(request, "revoke_client_key", client_id, before={"key_id": key_id})
    return web.Response(status=204)


async def release(request: web.Request) -> web.StreamResponse:
    """204: the client has no keys and needs none; also where that was so."""
    client_id = client_id_of_query(request)
    if await _keys(request).release(client_id):
        await note(request, "release_client_key", client_id)
    return web.Response(status=204)


def _keys(request: web.Request) -> ClientKeys:
    return request.app[AppKeys.STORE].client_keys


async def _made(request: web.Request, action: str, client_id: str, made: tuple[ClientKey, str]) -> web.StreamResponse:
    key, text = made
    await note(request, action, client_id, after=_shown(key))
    body = {"client_id": client_id, **_shown(key), "key": text}
    return json_answer(body, 201, {"Cache-Control": "no-store"})


def _shown(key: ClientKey) -> dict[str, Any]:
    return {"key_id": key.key_id, "created_at": datetime.fromtimestamp(key.created_at // 1_000_000, UTC)}


ROUTES = (
    web.get("/clients/keys", show),
    web.post("/clients/keys", create),
    web.post("/clients/keys/rotate", rotate),
    web.post("/clients/keys/require", require),
    web.post("/clients/keys/release", release),
    web.delete("/clients/keys", revoke),
)
