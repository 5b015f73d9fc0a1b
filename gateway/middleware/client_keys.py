"""Whether who asks is the client it names: a client that was given a key, or with REQUIRE_CLIENT_KEY any, shows one."""

import asyncio
from typing import Literal

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway import metrics
from gateway.errors import ClientRefused, TooManyRequests
from gateway.keys import AppKeys
from gateway.middleware.callers import address_of
from gateway.middleware.reading import client_id_of_query, header
from gateway.store import Store
from gateway.store.client_keys import PREFIX, Keyring

log = structlog.get_logger()

_BEARER = "bearer "
_HOW = "Authorization: Bearer <key>, or X-Client-Key: <key>"


@web.middleware
async def own_client(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Of the routes that name their client in the query."""
    await check_client_key(request, client_id_of_query(request))
    return await handler(request)


async def check_client_key(request: web.Request, client_id: str) -> None:
    """Raises `ClientRefused` unless the request may speak for this client. Asked before anything else is told of the
    client, so that without its key nobody learns whether it is known or enabled."""
    app = request.app
    store = app[AppKeys.STORE]
    keyring = store.client_keys.cached(client_id) or await _read(store, client_id)
    shown = header(request, "X-Client-Key"), header(request, hdrs.AUTHORIZATION)
    required, guesses = app[AppKeys.SETTINGS].require_client_key, app[AppKeys.CLIENT_GUESSES]
    if guesses.concern(client_id) and _is_looked_at(keyring, _given(*shown), required=required):
        try:
            guesses.refuse(_caller(request), client_id)
        except TooManyRequests:
            _tell(client_id, "guesses")
            raise
    if shows_its_key(keyring, *shown, required=required):
        return
    if _given(*shown) is None:
        raise _refused(client_id, "missing", "client key is required", f"send the client's key as {_HOW}")
    await guesses.wrong(_caller(request), client_id)
    raise _refused(client_id, "invalid", "invalid client key", f"the key is none of client {client_id}'s")


def _caller(request: web.Request) -> str:
    return str(address_of(request, request.app[AppKeys.SETTINGS].trusted_proxies) or request.remote)


async def _read(store: Store, client_id: str) -> Keyring:
    """Together with the client's settings, which are wanted next: both reads then share a round trip."""
    keyring, _ = await asyncio.gather(
        store.client_keys.get(client_id), store.clients.get(client_id), return_exceptions=True
    )
    if isinstance(keyring, BaseException):
        raise keyring
    return keyring


def shows_its_key(keyring: Keyring, key: str | None, authorization: str | None, *, required: bool) -> bool:
    """Whether a request with these two headers may speak for the client whose keyring this is."""
    given = _given(key, authorization)
    if given is None:
        return not (keyring.required or required)
    return not _is_looked_at(keyring, given, required=required) or keyring.holds(given)


def _is_looked_at(keyring: Keyring, given: str | None, *, required: bool) -> bool:
    """Whether it matters which key that is: where none is needed, what is no key of ours is for somebody else to read,
    as ever."""
    return given is not None and (keyring.required or required or given.startswith(PREFIX))


def _given(key: str | None, authorization: str | None) -> str | None:
    if key:
        return key
    if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    return authorization[len(_BEARER) :].strip() or None


def _refused(client_id: str, kind: Literal["missing", "invalid"], reason: str, message: str) -> ClientRefused:
    _tell(client_id, kind)
    return ClientRefused(reason, message, extra={"client_id": client_id}, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


def _tell(client_id: str, kind: Literal["missing", "invalid", "guesses"]) -> None:
    metrics.client_key_refused(kind)
    log.warning("client_key_refused", client=client_id, reason=kind)
