"""`/admin/clients/signing`: the secrets that sign a client's deliveries. Each is shown once, when it is made."""

import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.admin.clients import existing
from gateway.admin.journal import note
from gateway.errors import InvalidBody, NotFound
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer
from gateway.middleware.reading import client_id_of_query, is_client_id, page_limit, query
from gateway.store.signing import SigningSecret

_KNOWN = ("client_id", "secret_id")
_PAGE = 500  # clients of one call; each costs a read
_SECRET_ID = re.compile(r"sec_[0-9a-f]{8}", re.ASCII)


async def show(request: web.Request) -> web.StreamResponse:
    """200 with what there is, without the secrets; 404 for an unknown client."""
    client = await existing(request, client_id_of_query(request))
    found = await request.app[AppKeys.STORE].signing.get(client.client_id)
    return json_answer({"client_id": client.client_id, "secrets": [_shown(secret) for secret in found]})


async def create(request: web.Request) -> web.StreamResponse:
    """201 with the secret, in this answer alone; 409 where the client has two."""
    client = await existing(request, client_id_of_query(request))
    made, text = await request.app[AppKeys.STORE].signing.create(client.client_id)
    await note(request, "create_signing_secret", client.client_id, after=_shown(made))
    body = {"client_id": client.client_id, **_shown(made), "secret": text}
    return json_answer(body, 201, {"Cache-Control": "no-store"})


async def remove(request: web.Request) -> web.StreamResponse:
    """204: it signs nothing from now on; 404 where the client has none of this id."""
    client_id = client_id_of_query(request, _KNOWN)
    secret_id = query(request, "secret_id", _KNOWN)
    if secret_id is None or not _SECRET_ID.fullmatch(secret_id):
        msg = "secret_id: must be one of those that GET /admin/clients/signing shows"
        raise InvalidBody(msg, error="Invalid query")
    if not await request.app[AppKeys.STORE].signing.remove(client_id, secret_id):
        msg = f"client {client_id} has no signing secret {secret_id}"
        raise NotFound(msg, error="Secret not found")
    await note(request, "delete_signing_secret", client_id, before={"secret_id": secret_id})
    return web.Response(status=204)


async def reseal(request: web.Request) -> web.StreamResponse:
    """200: a page of clients' secrets are stored as TASK_ENCRYPTION_KEYS says now; told are those that can't be."""
    text, cursor = (query(request, name, ("limit", "cursor")) for name in ("limit", "cursor"))
    if cursor is not None and not is_client_id(cursor):
        msg = "cursor: must be the next_cursor of the call before"
        raise InvalidBody(msg, error="Invalid query")
    store = request.app[AppKeys.STORE]
    ids, going_on = await store.clients.ids(after=cursor, limit=page_limit(text, _PAGE) or _PAGE)
    done = await store.signing.reseal(ids)
    if done.secrets:
        await note(request, "reseal_signing_secrets", None, after={"resealed": done.secrets})
    unreadable = [
        {"client_id": client_id, "secret_id": secret.secret_id, "reason": secret.unreadable}
        for client_id, secret in done.unreadable
    ]
    body = {"clients": len(ids), "resealed": done.secrets, "unreadable": unreadable, "next_cursor": going_on}
    return json_answer(body)


def _shown(secret: SigningSecret) -> dict[str, Any]:
    return {
        "secret_id": secret.secret_id,
        "created_at": datetime.fromtimestamp(secret.created_at // 1_000_000, UTC),
        "sealed_with": secret.sealed_with,
        "unreadable": secret.unreadable,
    }


ROUTES = (
    web.get("/clients/signing", show),
    web.post("/clients/signing", create),
    web.delete("/clients/signing", remove),
    web.post("/clients/signing/reseal", reseal),
)
