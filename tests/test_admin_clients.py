"""The operators' API: settings of clients, tiers, and that all of `/admin` is guarded."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target
from redis.asyncio import from_url
from structlog.testing import capture_logs
from yarl import URL

OWN = {"max_concurrent": 2, "requests_per_min": 7}


async def put(gw: Gateway, **fields: Any) -> tuple[int, Any]:
    status, body, _ = await gw.admin("POST", "/admin/clients/set", json=fields)
    return status, body


async def test_a_client_is_created_and_updated_in_parts(gateway: GatewayFactory, a_client: str) -> None:
    """What is left out keeps its value; a new tier brings its limits, null goes back to them."""
    gw = await gateway(dispatch=False)
    status, made = await put(gw, client_id=a_client)
    created = made.pop("created_at")
    assert created == made.pop("updated_at")
    assert (status, made) == (
        200,
        {
            "client_id": a_client,
            "tier": "default",
            "rate_limit": {"max_concurrent": 3, "requests_per_min": 50},
            "allowed_queues": None,
            "enabled": True,
            "source": "tier",
        },
    )
    _, body = await put(gw, client_id=a_client, rate_limit=OWN, allowed_queues=["a"], enabled=False)
    assert (body["rate_limit"], body["source"]) == (OWN, "client")
    _, body = await put(gw, client_id=a_client, enabled=True, tier=None)
    assert (body["rate_limit"], body["allowed_queues"], body["enabled"]) == (OWN, ["a"], True)
    _, body = await put(gw, client_id=a_client, tier="premium", allowed_queues=[])
    assert (body["rate_limit"]["requests_per_min"], body["source"]) == (1000, "tier")
    assert (body["allowed_queues"], body["created_at"]) == (None, created)
    await put(gw, client_id=a_client, rate_limit=OWN)
    _, body = await put(gw, client_id=a_client, rate_limit=None)
    assert (body["rate_limit"]["requests_per_min"], body["source"]) == (1000, "tier")


@pytest.mark.parametrize("limit", [None, OWN])
async def test_what_get_answers_can_be_posted_back(gateway: GatewayFactory, a_client: str, limit: Any) -> None:
    """Byte for byte, and nothing but `updated_at` changes."""
    gw = await gateway(dispatch=False)
    await put(gw, client_id=a_client, tier="premium", rate_limit=limit)
    path = f"/admin/clients/get?client_id={a_client}"
    key = {"X-Admin-Key": ADMIN_KEY}
    async with gw.client.get(path, headers=key) as answer:
        raw = await answer.read()
    headers = {**key, "Content-Type": "application/json"}
    async with gw.client.put("/admin/clients/set", data=raw, headers=headers) as answer:
        assert answer.status == 200
        after = await answer.json()
    assert {**after, "updated_at": 0} == {**json.loads(raw), "updated_at": 0}


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({}, "client_id is required", "$.client_id"),
        ({"client_id": ""}, "client_id is required", "$.client_id"),
        ({"client_id": "a b"}, "Invalid body", "$.client_id"),
        ({"client_id": "abc", "teir": "free"}, "Invalid body", "did you mean tier?"),
        ({"client_id": "abc", "tier": "fre"}, "Invalid body", "basic, default, enterprise, free, premium"),
        ({"client_id": "abc", "tier": "fre", "rate_limit": None}, "Invalid body", "$.tier"),
        ({"client_id": "abc", "rate_limit": {"max_concurrent": 1}}, "Invalid body", "requests_per_min"),
        (
            {"client_id": "abc", "rate_limit": {"max_concurrent": 0, "requests_per_min": 1}},
            "Invalid body",
            "$.rate_limit.max_concurrent",
        ),
        ({"client_id": "abc", "allowed_queues": ["a b"]}, "Invalid body", "$.allowed_queues"),
        ({"client_id": "abc", "enabled": "yes"}, "Invalid body", "$.enabled"),
        ({"client_id": None}, "client_id is required", "$.client_id"),
        ({"client_id": 5}, "Invalid body", "$.client_id"),
        ({"client_id": "abc", "tier": ""}, "Invalid body", "$.tier: must be 1 to 64"),
        ({"client_id": "abc", "rate_limit": {**OWN, "burst": 1}}, "Invalid body", "$.rate_limit.burst"),
        ({"client_id": "abc", "rate_limit": {**OWN, "max_concurrent": None}}, "Invalid body", "max_concurrent"),
        ({"client_id": "abc", "rate_limit": {**OWN, "max_concurrent": 2**70}}, "Invalid body", "max_concurrent"),
        ({"client_id": "abc", "allowed_queues": "a"}, "Invalid body", "$.allowed_queues"),
        ({"client_id": "abc", "allowed_queues": [None]}, "Invalid body", "$.allowed_queues[0]"),
    ],
)
async def test_wrong_settings_change_nothing(
    gateway: GatewayFactory, fields: dict[str, Any], error: str, named: str
) -> None:
    """400 that names the field, and no client afterwards."""
    gw = await gateway(dispatch=False)
    status, body = await put(gw, **fields)
    assert (status, body["error"]) == (400, error)
    assert named in body["message"]
    assert (await gw.admin("GET", "/admin/clients"))[1] == {"clients": [], "count": 0}


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b"{", {}, 400),
        (b'{"client_id": "abc", "tier": "\xff"}', {}, 400),
        (b'{"client_id": "abc", "tier": "\\ud800"}', {}, 400),
        (b'{"client_id": "abc", "client_id": "abd"}', {}, 400),
        (b'{"client_id": "abc", "created_at": NaN}', {}, 400),
        (b'{"client_id": "abc", "rate_limit": {"max_concurrent": 1e999, "requests_per_min": 1}}', {}, 400),
        (b'{"client_id": "abc", "created_at": ' + b"[" * 5000 + b"}", {}, 400),
        (b'{"client_id": "abc"}', {"Content-Type": "text/plain"}, 415),
        (b'{"client_id": "abc"}' + b" " * 1000, {"Content-Type": "text/plain"}, 413),
    ],
)
async def test_what_is_no_settings_body(
    gateway: GatewayFactory, raw: bytes, headers: dict[str, str], status: int
) -> None:
    """Refused with error and message, and no client afterwards."""
    gw = await gateway(dispatch=False, max_body_bytes="10000" if b"[[" in raw else "1000")
    sent = {"Content-Type": "application/json", "X-Admin-Key": ADMIN_KEY, **headers}
    got, body, _ = await gw.call("POST", "/admin/clients/set", data=raw, headers=sent)
    assert got == status
    assert body["error"]
    assert body["message"]
    assert (await gw.admin("GET", "/admin/clients"))[1]["count"] == 0


async def test_an_unreadable_record_is_left_alone(gateway: GatewayFactory, valkey: str) -> None:
    """It is no client in the list, 409 where it is asked for or changed, and stays as it is until it is deleted."""
    gw = await gateway(dispatch=False)
    redis = from_url(valkey)
    key = "client_config:broken"
    await redis.set(key, b'{"client_id": "broken", "enabled": "perhaps"}')
    await put(gw, client_id="whole")
    with capture_logs() as logs:
        listed = (await gw.admin("GET", "/admin/clients"))[1]
    assert ([client["client_id"] for client in listed["clients"]], listed["count"]) == (["whole"], 1)
    assert [entry["client"] for entry in logs if entry["event"] == "client_unreadable"] == ["broken"]
    assert (await gw.admin("GET", "/admin/clients/get?client_id=broken"))[0] == 409
    status, body = await put(gw, client_id="broken", tier="free")
    assert (status, body["error"]) == (409, "Conflict")
    assert await redis.get(key) == b'{"client_id": "broken", "enabled": "perhaps"}'
    assert (await gw.admin("DELETE", "/admin/clients/delete?client_id=broken"))[0] == 204
    assert await redis.get(key) is None
    await redis.aclose()


async def test_a_change_of_a_tier_reaches_its_clients(gateway: GatewayFactory, tmp_path: Path) -> None:
    """A client with its tier's limits has the new ones, one with limits of its own keeps them."""
    tiers = tmp_path / "tiers.json"
    tiers.write_text(json.dumps({"free": {"max_concurrent": 4, "requests_per_min": 40}}))
    gw = await gateway(dispatch=False)
    await put(gw, client_id="follows", tier="free")
    await put(gw, client_id="own", tier="free", rate_limit=OWN)
    after = await gateway(dispatch=False, tiers_file=str(tiers))
    _, listed, _ = await after.admin("GET", "/admin/clients")
    assert {client["client_id"]: client["rate_limit"] for client in listed["clients"]} == {
        "follows": {"max_concurrent": 4, "requests_per_min": 40},
        "own": OWN,
    }
    _, body, headers = await after.enqueue({"client_id": "follows", "task": {"url": "http://example.com/"}})
    assert (body["rate_limit"]["requests_per_min"], headers["X-RateLimit-Limit"]) == (40, "40")


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_what_is_queued_goes_on(gateway: GatewayFactory, target: Target, a_client: str, how: str) -> None:
    """New requests of a disabled client are 401; what it, or a deleted one, has queued is delivered all the same."""
    gw = await gateway()
    await put(gw, client_id=a_client, rate_limit={"max_concurrent": 1, "requests_per_min": 50})
    release = target.hold("/first")
    for path in ("/first", "/second"):
        task = {"client_id": a_client, "task": {"url": target.url + path}}
        assert (await gw.enqueue(task))[0] == 201
    await target.received(1)
    if how == "disabled":
        await put(gw, client_id=a_client, enabled=False)
        assert (await gw.enqueue(task))[0] == 401
    else:
        await gw.admin("DELETE", f"/admin/clients/delete?client_id={a_client}")
    release.set()
    assert {call["path"] for call in await target.received(2)} == {"/first", "/second"}


async def test_listing(gateway: GatewayFactory) -> None:
    """Sorted, filtered, in pages; `count` is all that match."""
    gw = await gateway(dispatch=False)
    for name in ("ccc", "aaa", "bbb"):
        await put(gw, client_id=name, tier="free", enabled=name != "bbb")

    async def ids(query: str) -> tuple[list[str], int, Any]:
        _, body, _ = await gw.admin("GET", "/admin/clients" + query)
        return [client["client_id"] for client in body["clients"]], body["count"], body.get("next_cursor")

    assert await ids("") == (["aaa", "bbb", "ccc"], 3, None)
    assert await ids("?enabled=false") == (["bbb"], 1, None)
    assert await ids("?tier=premium") == ([], 0, None)
    first, count, cursor = await ids("?limit=2")
    assert (first, count) == (["aaa", "bbb"], 3)
    assert (await ids(f"?limit=2&cursor={cursor}"))[0] == ["ccc"]
    assert await ids("?tier=free&enabled=true&limit=1") == (["aaa"], 2, "aaa")
    assert await ids("?limit=3") == (["aaa", "bbb", "ccc"], 3, None)
    for wrong in ("?limit=0", "?limit=x", "?enabled=maybe", "?teir=free", "?limit=1&limit=2", "?limit=1&cursor=a%20b"):
        status, body, _ = await gw.admin("GET", "/admin/clients" + wrong)
        assert (status, body["error"]) == (400, "Invalid query")


async def test_get_and_delete(gateway: GatewayFactory, a_client: str) -> None:
    """404 for an unknown client; 204 with or without one; logged."""
    gw = await gateway(dispatch=False)
    path = f"?client_id={a_client}"
    status, body, _ = await gw.admin("GET", "/admin/clients/get" + path)
    assert (status, body["error"]) == (404, "Client not found")
    status, body, _ = await gw.admin("GET", "/admin/clients/get")
    assert (status, body["error"]) == (400, "client_id query parameter is required")
    with capture_logs() as logs:
        await put(gw, client_id=a_client, tier="free")
        assert (await gw.admin("DELETE", "/admin/clients/delete" + path))[0] == 204
    assert (await gw.admin("DELETE", "/admin/clients/delete" + path))[0] == 204
    assert (await gw.admin("GET", "/admin/clients/get" + path))[0] == 404
    actions = [entry for entry in logs if entry["event"] == "admin_action"]
    assert [(entry["action"], entry["client"]) for entry in actions] == [("set", a_client), ("delete", a_client)]


async def test_delete_may_cancel_what_waits(gateway: GatewayFactory, a_client: str) -> None:
    """With cancel_tasks=true the queued task is cancelled, without it stays."""
    gw = await gateway(dispatch=False)
    path = f"/admin/clients/delete?client_id={a_client}"
    body = {"client_id": a_client, "task": {"url": "http://example.com/"}}
    _, kept, _ = await gw.enqueue(body)
    await gw.admin("DELETE", path)
    task = f"/v1/tasks/{kept['task_id']}?client_id={a_client}"
    assert (await gw.call("GET", task))[1]["state"] == "queued"
    await gw.admin("DELETE", path + "&cancel_tasks=true")
    status, after, _ = await gw.call("GET", task)
    assert status == 404 or after["state"] == "cancelled"


async def test_tiers(gateway: GatewayFactory) -> None:
    """The shipped five."""
    gw = await gateway(dispatch=False)
    _, body, _ = await gw.admin("GET", "/admin/tiers")
    assert body["tiers"]["free"] == {"max_concurrent": 1, "requests_per_min": 10}
    assert set(body["tiers"]) == {"free", "basic", "premium", "enterprise", "default"}


@pytest.mark.parametrize(
    "path", ["/admin", "/admin/", "/admin/nope", "/admin/clients", "/admin/clients/set", "/%61dmin/tiers"]
)
async def test_every_admin_path_is_guarded(gateway: GatewayFactory, path: str) -> None:
    """Without the key even an unknown path is 401, and with ADMIN_PORT none is on the public listener."""
    gw = await gateway(dispatch=False)
    async with gw.client.get(URL(gw.url + path, encoded=True)) as answer:
        assert (answer.status, (await answer.json())["error"]) == (401, "Unauthorized")
    apart = await gateway(dispatch=False, admin_port="1")
    async with apart.client.get(URL(apart.url + path, encoded=True), headers={"X-Admin-Key": ADMIN_KEY}) as answer:
        assert answer.status == 404


async def test_clients_are_found_by_a_part_of_their_id(gateway: GatewayFactory) -> None:
    """`search` finds it anywhere and in any case, together with the other filters and over pages."""
    gw = await gateway(dispatch=False)
    for name, tier in (("acme-billing", "free"), ("ACME-orders", "basic"), ("globex", "free"), ("the-acme", "free")):
        await gw.admin("PUT", "/admin/clients/set", json={"client_id": name, "tier": tier})

    async def found(query: str) -> tuple[list[str], int, str | None]:
        status, body, _ = await gw.admin("GET", f"/admin/clients?{query}")
        assert status == 200, body
        return [client["client_id"] for client in body["clients"]], body["count"], body.get("next_cursor")

    assert await found("search=acme") == (["ACME-orders", "acme-billing", "the-acme"], 3, None)
    assert await found("search=acme&tier=free&limit=1") == (["acme-billing"], 2, "acme-billing")
    assert await found("search=acme&tier=free&limit=1&cursor=acme-billing") == (["the-acme"], 2, None)
    assert await found("search=nobody&limit=5") == ([], 0, None)


async def test_a_page_reads_no_settings_but_its_own(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients there are, a page of two decodes two, and a filter decodes those that are shown."""
    gw = await gateway(dispatch=False)
    for number in range(20):
        await gw.admin(
            "PUT", "/admin/clients/set", json={"client_id": f"client-{number:02}", "enabled": number % 2 == 0}
        )
    decoded: list[str] = []
    clients = gw.store.clients
    original = clients._decode
    monkeypatch.setattr(clients, "_decode", lambda name, text: decoded.append(name) or original(name, text))
    for query, names in (("", ["client-00", "client-01"]), ("&enabled=false", ["client-01", "client-03"])):
        decoded.clear()
        await gw.admin("GET", f"/admin/clients?limit=2{query}")
        assert decoded == names
