"""Who asks: reads and decodes the body, finds the client id in it or in `X-Client-ID`, and looks the client up.
The schema's complaint is handed on with the rest, so that a stranger learns nothing but 401."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import ClientRefused, InvalidBody, ServiceUnavailable
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.client_keys import check_client_key
from gateway.middleware.contracts import Asked, Decode, Given
from gateway.middleware.reading import CLIENT_ID_FORMAT, header, is_client_id, read_body
from gateway.models import Client
from gateway.settings import Settings
from gateway.store.clients import Clients, UnreadableClient

log = structlog.get_logger()

UNREADABLE_RETRY = 60  # seconds; somebody has to look


class ClientMiddleware:
    """Of one route: ``decode`` knows its body, ``batch`` which of the two size limits holds."""

    def __init__(self, decode: Decode, *, batch: bool = False) -> None:
        self._decode = decode
        self._batch = batch

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Puts the client and what it asks for on the request."""
        settings = request.app[AppKeys.SETTINGS]
        raw = await read_body(request, settings.max_batch_bytes if self._batch else settings.max_body_bytes)
        asked = self._decode(raw, Given(header(request, "Idempotency-Key"), time.time()))
        client_id = _client_id(request, asked, settings)
        await check_client_key(request, client_id)
        client, create = await _look_up(request, client_id, settings)
        request[RequestKeys.ASKED] = asked
        request[RequestKeys.CLIENT] = client
        request[RequestKeys.CREATE] = create
        return await handler(request)


def _client_id(request: web.Request, asked: Asked, settings: Settings) -> str:
    named = header(request, "X-Client-ID")
    given = asked.client_id
    if named and given not in ("", None) and given != named:
        msg = "$.client_id: differs from the header X-Client-ID; give one, or the same twice"
        raise InvalidBody(msg)
    chosen = named or given
    if chosen in ("", None):
        if settings.legacy_client_id is None:
            msg = "client_id is required"
            raise ClientRefused(msg, "$.client_id: say who asks, here or in the header X-Client-ID")
        log.warning("legacy_client_used", client=settings.legacy_client_id, path=request.path)
        return settings.legacy_client_id
    if not isinstance(chosen, str) or not is_client_id(chosen):
        msg = "invalid client_id format"
        raise ClientRefused(msg, f"$.client_id: {CLIENT_ID_FORMAT}")
    return chosen


async def _look_up(request: web.Request, client_id: str, settings: Settings) -> tuple[Client, bool]:
    """The client, and whether admitting its task is to create it."""
    clients = request.app[AppKeys.STORE].clients
    client = await known_client(clients, client_id)
    if client is None:
        if not settings.auto_create_clients:
            msg = "unknown client"
            raise ClientRefused(
                msg,
                f"client {client_id} does not exist; an operator creates it",
                extra=_who(client_id),
            )
        return clients.new(client_id), True
    if not client.enabled:
        msg = "client is disabled"
        raise ClientRefused(
            msg,
            f"client {client_id} is disabled; an operator enables it",
            extra=_who(client_id),
        )
    return client, False


async def known_client(clients: Clients, client_id: str) -> Client | None:
    """The client, None where there is none. Settings that can't be read are the operator's affair, not the caller's:
    503, since a 409 or 400 would tell it to give the task up."""
    try:
        return await clients.get(client_id)
    except UnreadableClient:
        msg = f"the settings of client {client_id} can't be read; an operator has to mend them"
        raise ServiceUnavailable(msg, retry_after=UNREADABLE_RETRY, extra=_who(client_id)) from None


def _who(client_id: str) -> dict[str, str]:
    return {"client_id": client_id}
