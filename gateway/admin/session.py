"""`/admin/session`: who is asking; the dashboard's login and logout."""

from datetime import UTC, datetime
from time import time
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from gateway.admin_keys import NO_KEY, AdminKey
from gateway.errors import Conflict
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.answers import json_answer
from gateway.middleware.reading import read_body
from gateway.middleware.session_cookie import LONGEST_SECONDS, Session
from gateway.middleware.sessions import begin, give, refuse_other_pages, renew, session_of, take_back
from gateway.middleware.strict_json import decode_strictly

log = structlog.get_logger()

_LARGEST = 8192  # bytes of a login


class LoginBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a login takes."""

    key: Annotated[str, Meta(min_length=1, description="an admin key, as the header X-Admin-Key has it")]


_LOGIN = msgspec.json.Decoder(LoginBody)
_FIELDS = {"$": LoginBody.__struct_fields__}


async def show(request: web.Request) -> web.StreamResponse:
    """200 with who asks."""
    return json_answer(_body(request[RequestKeys.ADMIN_KEY], request.get(RequestKeys.SESSION)))


async def recognise(request: web.Request) -> web.StreamResponse:
    """200 for whoever opens the dashboard: who it is, or a role of null where it has to log in first."""
    keyring = request.app[AppKeys.KEYRING]
    if not keyring.required:
        return json_answer(_body(NO_KEY, None))
    found = await session_of(request, keyring)
    if found is None:
        return json_answer({"key": None, "role": None, "expires_at": None})
    request[RequestKeys.SESSION], key = found
    return json_answer(_body(key, found[0]))


async def login(request: web.Request) -> web.StreamResponse:
    """200 and the cookie; 401 for a wrong key, 409 where the gateway has none."""
    keyring = request.app[AppKeys.KEYRING]
    refuse_other_pages(request)
    body = decode_strictly(await read_body(request, _LARGEST), _LOGIN, _FIELDS)
    if not keyring.required:
        msg = "the gateway has no admin key, so there is nothing to log in with: /admin is open from here"
        raise Conflict(msg)
    key = await keyring.judge(body.key, request[RequestKeys.ADDRESS], request.path, where="$.key")
    session = begin(request, key)
    log.info("admin_login", key=key.name, address=request[RequestKeys.ADDRESS])
    response = json_answer(_body(key, session))
    await give(request, response, session, key)
    return response


async def logout(request: web.Request) -> web.StreamResponse:
    """204; the cookie is unset, and holds no more wherever else it may be."""
    response = web.Response(status=204)
    session = request.pop(RequestKeys.SESSION, None)
    if session is not None:
        left = session.began + LONGEST_SECONDS - int(time())
        await request.app[AppKeys.STORE].sessions.end(session.id, max(1, left))
        log.info("admin_logout", key=session.key, address=request[RequestKeys.ADDRESS])
    take_back(request, response)
    return response


async def keep_session(request: web.Request, response: web.StreamResponse) -> None:
    """Renews the session that an answer belongs to; a signal of the application, so that it holds for every answer."""
    await renew(request, response)


def _body(key: AdminKey, session: Session | None) -> dict[str, Any]:
    return {
        "key": key.name,
        "role": str(key.role),
        "expires_at": None if session is None else datetime.fromtimestamp(session.ends, UTC),
    }


ROUTES = (
    web.get("/session", show),
    web.post("/session", login),
    web.delete("/session", logout),
    web.get("/ui/session", recognise),
)
