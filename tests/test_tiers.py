"""Stored tiers: they hold for every client of theirs, for admissions and starts, on each replica, until they go."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
from commands import run
from conftest import ADMIN_KEY, GatewayFactory, Target, until
from deployments import Deployment
from stores import admit

from gateway.models import Client, RateLimit
from gateway.store import Store

Opened = Callable[..., Awaitable[Store]]


@pytest.fixture
async def opened(deployment: Deployment) -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:

        async def open_() -> Store:
            return await stack.enter_async_context(deployment.store())

        yield open_


async def of_tier(store: Store, tier: str) -> None:
    def change(client: Client | None) -> Client:
        return msgspec.structs.replace(client or store.clients.new("acme"), tier=tier)

    await store.clients.update("acme", change)


async def test_every_replica_starts_as_many_as_the_tier_now_allows(opened: Opened) -> None:
    """More at once where it was raised, though every call of the client still runs; fewer where it was lowered; and a
    process that starts later never goes by the shipped numbers."""
    one, other = await opened(), await opened()
    for store in (one, other):
        await store.doorbell.subscribed.wait()
    await of_tier(one, "free")
    for _ in range(6):
        await admit(one)
    assert len((await other.claims.claim("acme", 10)).tasks) == 1
    assert await other.claims.ready(10) == []
    await one.set_tier("free", RateLimit(3, 700))

    async def heard() -> bool:
        return other.tiers.current["free"] == RateLimit(3, 700) and await other.claims.ready(10) == ["acme"]

    await until(heard)
    client = await other.clients.get("acme")
    assert client is not None
    assert (client.rate_limit, client.source) == (RateLimit(3, 700), "tier")
    assert len((await other.claims.claim("acme", 10)).tasks) == 2
    await one.set_tier("free", RateLimit(2, 700))
    late = await opened()
    assert (await late.claims.claim("acme", 10)).limit == 2
    await one.set_tier("free", None)
    assert one.tiers.origin("free") == "shipped"
    assert one.tiers.current["free"] == RateLimit(1, 10)


async def test_what_was_changed_by_hand_is_read_too(opened: Opened, deployment: Deployment) -> None:
    """A tier that another program wrote holds after the next look; one that can't be read is left out."""
    store = await opened()
    async with deployment.raw() as raw:
        key = deployment.keyspace.tiers
        await raw.hset(key, "gold", '{"max_concurrent": 9, "requests_per_min": 90}')
        await raw.hset(key, "free", "nonsense")
    await store.tiers.refresh()
    assert store.tiers.current["gold"] == RateLimit(9, 90)
    assert store.tiers.current["free"] == RateLimit(1, 10)


async def test_over_http(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Stored, used, refused to be deleted while a client is of it, deleted; the next request goes by each change; the
    audit log has before and after."""
    gw, other = await gateway(dispatch=False), await gateway(dispatch=False)
    await other.store.doorbell.subscribed.wait()
    gold = {"max_concurrent": 7, "requests_per_min": 2}
    status, told, _ = await gw.admin("PUT", "/admin/tiers/gold", json=gold)
    assert (status, told) == (200, {"name": "gold", **gold, "source": "stored"})
    assert (await gw.admin("GET", "/admin/tiers"))[1]["tiers"]["gold"] == gold
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "tier": "gold"})
    body = {"client_id": a_client, "task": {"url": f"{target.url}/x"}}
    assert (await gw.enqueue(body))[1]["rate_limit"] == gold
    await gw.admin("PUT", "/admin/tiers/gold", json={**gold, "requests_per_min": 1})
    assert (await gw.enqueue(body))[0] == 429

    async def heard() -> bool:
        return (await other.enqueue(body))[0] == 429

    await until(heard)
    status, refused, _ = await gw.admin("DELETE", "/admin/tiers/gold")
    assert (status, refused["error"], refused["clients"]) == (409, "Tier in use", 1)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "tier": "free"})
    assert (await gw.admin("DELETE", "/admin/tiers/gold"))[0] == 204
    assert (await gw.admin("DELETE", "/admin/tiers/gold"))[0] == 404
    await gw.admin("PUT", "/admin/tiers/free", json={"max_concurrent": 4, "requests_per_min": 40})
    status, told, _ = await gw.admin("DELETE", "/admin/tiers/free")
    shipped = {"name": "free", "max_concurrent": 1, "requests_per_min": 10, "source": "shipped"}
    assert (status, told) == (200, shipped)
    assert (await gw.admin("DELETE", "/admin/tiers/free"))[0] == 409
    assert (await gw.admin("PUT", "/admin/tiers/a%20b", json=gold))[0] == 400
    entries = (await gw.admin("GET", "/admin/audit"))[1]["entries"]
    assert [entry["action"] for entry in entries if entry["client_id"] is None] == [
        *("delete_tier", "set_tier", "delete_tier", "set_tier", "set_tier")
    ]
    assert (entries[0]["before"]["requests_per_min"], entries[0]["after"]) == (40, shipped)


async def test_the_commands(gateway: GatewayFactory) -> None:
    """`gateway tiers`, `tiers set` and `tiers delete` show and do it."""
    gw = await gateway(dispatch=False)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    limits = ("--max-concurrent", "7", "--requests-per-min", "70")
    assert "stored" in (await run("tiers", "set", "gold", *limits, env=env)).out
    assert json.loads((await run("tiers", "--json", env=env)).out)["tiers"]["gold"]["max_concurrent"] == 7
    assert "deleted gold" in (await run("tiers", "delete", "gold", env=env)).out
    refused = await run("tiers", "delete", "gold", env=env)
    assert (refused.code, "no tier gold" in refused.err) == (1, True)
