"""Stored tiers: they hold for every client of theirs, for admissions and starts, on each replica, until they go."""

import json
import re
from pathlib import Path

import msgspec
from commands import run
from conftest import ADMIN_KEY, GatewayFactory, Target, until
from deployments import Deployment
from stores import Opened, admit, collect_once

from gateway.models import Client, RateLimit
from gateway.store import Store


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


async def test_prices(gateway: GatewayFactory, tmp_path: Path) -> None:
    """A price that is stored goes before the one of TIERS_FILE, is kept where none is given, taken away by null, and
    heard by every replica; list, overview and metric tell the same revenue; what is no price is refused."""
    file = tmp_path / "tiers.json"
    limits = {"max_concurrent": 7, "requests_per_min": 70}
    file.write_text(json.dumps({"silver": {**limits, "price": 9.5}}))
    gw, other = await gateway(dispatch=False, tiers_file=str(file)), await gateway(dispatch=False, tiers_file=str(file))
    await other.store.doorbell.subscribed.wait()
    for number in range(3):
        client = {"client_id": f"client-{number}", "tier": "silver", "enabled": number < 2}
        await gw.admin("PUT", "/admin/clients/set", json=client)

    async def revenue() -> float | None:
        await collect_once(gw.store)
        tiers = (await gw.admin("GET", "/admin/overview"))[1]["tiers"]
        [told] = [tier["revenue"] for tier in tiers if tier["tier"] == "silver"]
        listed = (await gw.admin("GET", "/admin/tiers?figures=true"))[1]["tiers"]["silver"]
        assert (listed["clients"], listed["enabled"], listed.get("revenue")) == (3, 2, told)
        async with gw.client.get("/metrics") as answer:
            found = re.findall(r'^gateway_tier_revenue\{tier="silver"\} (.*)$', await answer.text(), re.MULTILINE)
        assert list(map(float, found)) == ([] if told is None else [told])
        return told

    async def priced(price: float | None) -> None:
        async def heard() -> bool:
            return other.store.tiers.prices.get("silver") == price

        await until(heard)

    assert await revenue() == 19
    assert "price" in (await gw.admin("PUT", "/admin/tiers/silver", json=limits))[1]
    assert await revenue() == 19
    assert (await gw.admin("PUT", "/admin/tiers/silver", json={**limits, "price": 20}))[1]["price"] == 20
    await priced(20)
    assert (await gw.admin("PUT", "/admin/tiers/silver", json=limits))[1]["price"] == 20
    assert await revenue() == 40
    assert "price" not in (await gw.admin("PUT", "/admin/tiers/silver", json={**limits, "price": None}))[1]
    await priced(None)
    assert await revenue() is None
    of_file = {"name": "silver", **limits, "source": "file", "price": 9.5}
    assert (await gw.admin("DELETE", "/admin/tiers/silver"))[1] == of_file
    await priced(9.5)
    for wrong in (-1, "9", True, [], 10**400):
        status, told, _ = await gw.admin("PUT", "/admin/tiers/silver", json={**limits, "price": wrong})
        assert (status, "$.price" in told["message"]) == (400, True), told
    assert (await gw.admin("GET", "/admin/tiers"))[1]["tiers"]["silver"] == {**limits, "price": 9.5}


async def test_the_commands(gateway: GatewayFactory) -> None:
    """`gateway tiers`, `tiers set` and `tiers delete` show and do it."""
    gw = await gateway(dispatch=False)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    limits = ("--max-concurrent", "7", "--requests-per-min", "70")
    assert "stored" in (await run("tiers", "set", "gold", *limits, env=env)).out
    assert json.loads((await run("tiers", "--json", env=env)).out)["tiers"]["gold"]["max_concurrent"] == 7
    assert "49.5" in (await run("tiers", "set", "gold", *limits, "--price", "49.5", env=env)).out
    assert "49.5" in (await run("tiers", env=env)).out
    assert "price" not in json.loads((await run("tiers", "set", "gold", *limits, "--no-price", "--json", env=env)).out)
    assert "deleted gold" in (await run("tiers", "delete", "gold", env=env)).out
    refused = await run("tiers", "delete", "gold", env=env)
    assert (refused.code, "no tier gold" in refused.err) == (1, True)
