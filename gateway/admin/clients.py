"""`/admin/clients/…`: what an operator does to a client's settings. Who an operator is, `gateway.middleware.admin`
decides; how settings are kept, `gateway.store.clients`."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gateway.admin.journal import note
from gateway.dispatch.allowed import wrong_entry
from gateway.errors import InvalidBody, NotFound
from gateway.keys import AppKeys
from gateway.middleware.answers import Pieces, json_answer, json_bytes, limit_body
from gateway.middleware.reading import (
    CLIENT_ID_FORMAT,
    client_id_of_query,
    is_client_id,
    page_limit,
    query,
    read_body,
)
from gateway.middleware.strict_json import NAME_PATTERN, decode_strictly
from gateway.models import CLIENT_ID_PATTERN, DEFAULT_TIER, QUEUE_PATTERN, Client, RateLimit
from gateway.store.clients import UnreadableClient

PAGE_MAX = 1000
HOSTS_MAX = 100
_TURN = 200  # clients that are worded in one turn of the event loop

Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
# The pattern as msgspec applies it; and as JSON Schema has it, where `$` is the very end.
Name = Annotated[str, Meta(pattern=NAME_PATTERN, extra_json_schema={"pattern": QUEUE_PATTERN})]
Host = Annotated[str, Meta(min_length=1, max_length=300)]
Ignored = Annotated[Any, Meta(description="ignored, so that what `get` answers can be posted back")]


class LimitBody(msgspec.Struct, forbid_unknown_fields=True):
    """Both numbers, or none."""

    max_concurrent: Annotated[Number, Meta(description="calls in flight at once", examples=[10])]
    requests_per_min: Annotated[Number, Meta(description="requests admitted in any 60 seconds", examples=[200])]


class SetBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `set` takes. What is left out keeps its value."""

    client_id: Annotated[
        str | None,
        Meta(description="required", examples=["my-service-123"], extra_json_schema={"pattern": CLIENT_ID_PATTERN}),
    ] = None
    tier: Annotated[Name | None, Meta(description="one that is not known needs a rate_limit", examples=["premium"])] = (
        None
    )
    rate_limit: Annotated[LimitBody | UnsetType | None, Meta(description="the client's own; null: its tier's")] = UNSET
    allowed_queues: Annotated[
        tuple[Name, ...] | UnsetType | None, Meta(description="null or empty: all", examples=[["default"]])
    ] = UNSET
    allowed_hosts: Annotated[
        Annotated[tuple[Host, ...], Meta(min_length=1, max_length=HOSTS_MAX)] | UnsetType | None,
        Meta(
            description="hosts that its tasks may call: names, `*.` and a name, addresses, networks, each with a port "
            "or without; null: all",
            examples=[["api.example.com"]],
        ),
    ] = UNSET
    enabled: Annotated[bool | None, Meta(description="a disabled client's new requests are 401")] = None
    created_at: Ignored = None
    updated_at: Ignored = None
    source: Annotated[
        Any, Meta(description="`tier`, as `get` answered it: limits posted back unchanged stay the tier's")
    ] = None


_SET = msgspec.json.Decoder(SetBody)
_FIELDS = {"$": SetBody.__struct_fields__, "$.rate_limit": LimitBody.__struct_fields__}


async def set_client(request: web.Request) -> web.StreamResponse:
    """200 with the whole client, created or updated."""
    settings = request.app[AppKeys.SETTINGS]
    body = decode_strictly(await read_body(request, settings.max_body_bytes), _SET, _FIELDS)
    if not body.client_id:
        msg = "$.client_id: say which client"
        raise InvalidBody(msg, error="client_id is required")
    if not is_client_id(body.client_id):
        message = f"$.client_id: {CLIENT_ID_FORMAT}"
        raise InvalidBody(message)
    if body.allowed_hosts is not UNSET and (wrong := wrong_entry(body.allowed_hosts or ())) is not None:
        message = f"$.allowed_hosts[{wrong[0]}]: {wrong[1]}"
        raise InvalidBody(message)
    change = merge(body, body.client_id, request.app[AppKeys.STORE].tiers.current)
    before: list[Client | None] = []

    def remembering(old: Client | None) -> Client:
        before.append(old)
        return change(old)

    client = await request.app[AppKeys.STORE].clients.update(body.client_id, remembering)
    old = None if before[-1] is None else client_body(before[-1])
    await note(request, "set", client.client_id, tier=client.tier, before=old, after=client_body(client))
    return json_answer(client_body(client))


def merge(body: SetBody, client_id: str, tiers: Mapping[str, RateLimit]) -> Callable[[Client | None], Client]:
    """What ``body`` makes of a client as it is (None: there is none yet). Raises `InvalidBody` for a tier that nobody
    knows and that comes without limits."""

    def change(old: Client | None) -> Client:
        now = datetime.now(UTC).replace(microsecond=0)
        tier = body.tier or (DEFAULT_TIER if old is None else old.tier)
        own = _own_limit(body, old, tier, tiers)
        if own is None and tier not in tiers:
            known = ", ".join(sorted(tiers))
            message = f"$.tier: {tier} is not a tier and needs a rate_limit; tiers are {known}"
            raise InvalidBody(message)
        kept = None if old is None else old.allowed_queues
        queues = kept if body.allowed_queues is UNSET else (body.allowed_queues or None)
        hosts = None if old is None else old.allowed_hosts
        enabled = old is None or old.enabled
        return Client(
            client_id=client_id,
            tier=tier,
            rate_limit=tiers[tier] if own is None else own,
            allowed_queues=queues,
            enabled=enabled if body.enabled is None else body.enabled,
            created_at=now if old is None else old.created_at,
            updated_at=now,
            source="tier" if own is None else "client",
            allowed_hosts=hosts if body.allowed_hosts is UNSET else body.allowed_hosts,
        )

    return change


def _own_limit(body: SetBody, old: Client | None, tier: str, tiers: Mapping[str, RateLimit]) -> RateLimit | None:
    """The client's own limit from now on, None: its tier's."""
    given = body.rate_limit
    if given is None:
        return None
    if given is UNSET:
        keeps = old is not None and old.source == "client" and tier == old.tier
        return old.rate_limit if keeps and old is not None else None
    asked = RateLimit(given.max_concurrent, given.requests_per_min)
    if body.source == "tier":
        # What `get` answered, posted back: the tier's numbers stay the tier's, or the client would be cut off
        # from later changes of its tier. Numbers that were edited meanwhile are its own.
        shown = {tiers.get(tier)} | ({old.rate_limit} if old is not None and old.source == "tier" else set())
        return None if asked in shown and tier in tiers else asked
    return asked


async def get_client(request: web.Request) -> web.StreamResponse:
    """200, or 404."""
    return json_answer(client_body(await existing(request, client_id_of_query(request))))


async def existing(request: web.Request, client_id: str) -> Client:
    """The client; raises `NotFound`."""
    client = await request.app[AppKeys.STORE].clients.get(client_id)
    if client is None:
        message = f"client {client_id} does not exist"
        raise NotFound(message, error="Client not found")
    return client


async def list_clients(request: web.Request) -> web.StreamResponse:
    """Every client, or a page of them; `next_cursor` is there where a page was asked for."""
    known = ("limit", "cursor", "tier", "enabled", "search")
    limit_text, cursor, tier, enabled, search = (query(request, name, known) for name in known)
    limit = page_limit(limit_text, PAGE_MAX)
    if cursor is not None and not is_client_id(cursor):
        msg = "cursor: must be the next_cursor of an earlier page"
        raise InvalidBody(msg, error="Invalid query")
    page = await request.app[AppKeys.STORE].clients.page(
        after=cursor,
        limit=limit,
        tier=tier,
        enabled=None if enabled is None else truth("enabled", enabled),
        search=search,
    )
    told = [b'{"clients":[']
    while page.clients:  # without a limit they may be many: others have their turn, also while they are forgotten
        some, page.clients[:_TURN] = page.clients[:_TURN], []
        told += (b"" if len(told) == 1 else b",", json_bytes([client_body(client) for client in some])[1:-1])
        await asyncio.sleep(0)
    rest: dict[str, Any] = {"count": page.count}
    if limit is not None:
        rest["next_cursor"] = page.next_cursor
    told.append(b"]," + json_bytes(rest)[1:])
    return web.Response(body=Pieces(told), content_type="application/json")


async def delete_client(request: web.Request) -> web.StreamResponse:
    """204, whether there was one or not."""
    known = ("client_id", "cancel_tasks")
    client_id = client_id_of_query(request, known)
    cancel = truth("cancel_tasks", query(request, "cancel_tasks", known) or "false")
    store = request.app[AppKeys.STORE]
    try:
        old = await store.clients.get(client_id)
    except UnreadableClient:
        old = None
    before = None if old is None else client_body(old)
    # First: who comes back under this id must neither sign with what is left, nor speak for its tasks without a key.
    await store.signing.remove(client_id)
    await store.client_keys.close(client_id)
    cancelled = await store.clients.delete(client_id, cancel_tasks=cancel)
    await note(request, "delete", client_id, before=before, tasks=cancelled)
    return web.Response(status=204)


def client_body(client: Client) -> dict[str, Any]:
    """A client as the API shows it; what is not set goes unmentioned but in the fields that every client has."""
    body: dict[str, Any] = {
        "client_id": client.client_id,
        "tier": client.tier,
        "rate_limit": limit_body(client.rate_limit),
        "allowed_queues": None if client.allowed_queues is None else list(client.allowed_queues),
        "enabled": client.enabled,
        "created_at": client.created_at.astimezone(UTC),
        "updated_at": client.updated_at.astimezone(UTC),
        "source": client.source,
    }
    if client.allowed_hosts is not None:
        body["allowed_hosts"] = list(client.allowed_hosts)
    return body


def truth(name: str, text: str) -> bool:
    """A query parameter that is true or false."""
    if text not in {"true", "false"}:
        message = f"{name}: must be true or false"
        raise InvalidBody(message, error="Invalid query")
    return text == "true"


ROUTES = (
    web.post("/clients/set", set_client),
    web.put("/clients/set", set_client),
    web.get("/clients/get", get_client),
    web.get("/clients", list_clients),
    web.delete("/clients/delete", delete_client),
)
