"""Clients as Redis keeps them: records of others, changes by several at once, deletion, pages."""

import asyncio
from typing import Any

import msgspec
import pytest
from conftest import until
from stores import Key, Opened, admit, limit, one_claim, outcome, spec

from gateway.models import (
    Client,
    RateLimit,
    Verdict,
)
from gateway.store.clients import UnreadableClient


async def test_deleting_a_client_cancels_what_waits_where_asked(opened: Opened) -> None:
    """250 waiting tasks, scheduled and queued, are cancelled; what runs goes on under default's limits."""
    store = await opened()
    running = await one_claim(store)
    for number in range(250):
        await admit(store, delay=60 * (number % 2))
    assert await store.clients.delete("acme", cancel_tasks=True) == 250
    usage = await store.windows.usage("acme")
    assert (usage.in_flight, usage.queued, usage.scheduled) == (1, 0, 0)
    assert (await store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None)).owned
    assert await store.clients.get("acme") is None


async def test_records_of_other_programs_are_read(opened: Opened, raw: Any, key: Key) -> None:
    """Nanoseconds, offsets, an empty tier, null limits: read all the same, and listed."""
    store = await opened()
    await raw.set(
        key("client_config:foreign", "foreign"),
        '{"client_id":"foreign","tier":"","rate_limit":null,"allowed_queues":null,"enabled":true,'
        '"created_at":"2024-01-15T12:30:00.123456789+02:00","updated_at":"2024-01-15T10:30:00Z"}',
    )
    client = await store.clients.get("foreign")
    assert client is not None
    assert (client.tier, client.rate_limit, client.source) == ("default", RateLimit(3, 50), "tier")
    assert client.created_at.isoformat() == "2024-01-15T10:30:00+00:00"
    page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
    assert [entry.client_id for entry in page.clients] == ["foreign"]


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"enabled": "yes"}',
        '{"rate_limit": {"max_concurrent": "x"}}',
        '{"rate_limit": {"max_concurrent": 1}}',
        '{"allowed_queues": "default"}',
        '{"tier": 5}',
        '{"created_at": "0001-01-01T00:00:00+05:00"}',
    ],
)
async def test_a_record_that_can_not_be_read_is_never_overwritten(
    opened: Opened, raw: Any, key: Key, text: str
) -> None:
    """It is refused on reading, skipped in lists, and neither a set nor auto-creation replaces it."""
    store = await opened()
    await raw.set(key("client_config:broken", "broken"), text)
    with pytest.raises(UnreadableClient):
        await store.clients.get("broken")
    with pytest.raises(UnreadableClient):
        await store.clients.update("broken", lambda _: store.clients.new("broken"))
    await store.tasks.admit("broken", spec(), create=True)
    assert await raw.get(key("client_config:broken", "broken")) == text
    page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
    assert page.clients == []


async def test_a_change_of_settings_reaches_other_replicas(opened: Opened) -> None:
    """What one replica cached is dropped when another changes it."""
    one, other = await opened(), await opened()
    await limit(one, "acme", 4)
    await other.doorbell.subscribed.wait()
    assert (await other.clients.get("acme") or one.clients.new("x")).rate_limit.max_concurrent == 4
    await limit(one, "acme", 9)

    async def seen() -> bool:
        client = await other.clients.get("acme")
        return client is not None and client.rate_limit.max_concurrent == 9

    await until(seen)


async def test_two_admins_at_once_lose_nothing(opened: Opened) -> None:
    """Twenty concurrent increments of one limit, through two stores, add up."""
    stores = [await opened(), await opened()]
    await limit(stores[0], "acme", 1)

    def increment(client: Client | None) -> Client:
        assert client is not None
        more = RateLimit(client.rate_limit.max_concurrent + 1, client.rate_limit.requests_per_min)
        return msgspec.structs.replace(client, rate_limit=more)

    await asyncio.gather(*(store.clients.update("acme", increment) for store in stores * 5))
    client = await stores[0].clients.get("acme")
    assert client is not None
    assert client.rate_limit.max_concurrent == 11


async def test_pages_of_clients_join_to_the_whole_list(opened: Opened) -> None:
    """Paging by cursor lists each client once, sorted, and every page says how many match."""
    store = await opened()
    for name in ("delta", "alpha", "charlie", "bravo", "echo"):
        await limit(store, name, 2)
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.clients.page(after=cursor, limit=2, tier=None, enabled=None)
        assert page.count == 5
        names += [client.client_id for client in page.clients]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert names == ["alpha", "bravo", "charlie", "delta", "echo"]
