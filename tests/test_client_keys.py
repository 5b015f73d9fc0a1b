"""Client keys: who has one is who it says, on every route and every replica, and operators change them."""

import asyncio
import hashlib
import hmac
import json
from typing import Any

import pytest
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from deployments import Deployment
from test_cli import run

from gateway import metrics
from gateway.store.client_keys import ClientKey, Keyring, digest

HOOK = "http://192.0.2.1/hook"


async def client(gw: Gateway, name: str) -> str:
    """The address of the client's keys, once there is such a client."""
    assert (await gw.admin("PUT", "/admin/clients/set", json={"client_id": name}))[0] == 200
    return f"/admin/clients/keys?client_id={name}"


async def key(gw: Gateway, where: str) -> dict[str, Any]:
    """A key of the client, fresh from the answer that shows it."""
    status, made, _ = await gw.admin("POST", where)
    assert status == 201, made
    return dict(made)


def shows(text: str) -> dict[str, Any]:
    return {"headers": {"X-Client-Key": text}}


async def enqueue(gw: Gateway, name: str, text: str | None = None) -> int:
    """The status of an enqueue that shows this key, or none."""
    body = {"client_id": name, "task": {"url": HOOK}, "delay": 60}
    return (await gw.enqueue(body, **({} if text is None else shows(text))))[0]


async def routes(gw: Gateway, name: str, task_id: str, **kwargs: Any) -> list[tuple[int, Any, Any]]:
    """What every route of the clients' API answers to a request for this client; the last one cancels the task."""
    item = {"task": {"url": HOOK}, "delay": 60}
    task = f"/v1/tasks/{task_id}"
    query = f"?client_id={name}"
    return [
        await gw.call("POST", "/v1/enqueue", json={"client_id": name, **item}, **kwargs),
        await gw.call("POST", "/v1/enqueue/batch", json={"client_id": name, "tasks": [item]}, **kwargs),
        await gw.call("GET", task + query, **kwargs),
        await gw.call("GET", f"{task}/explain{query}", **kwargs),
        await gw.call("GET", f"/v1/rate-limit{query}", **kwargs),
        await gw.call("DELETE", task + query, **kwargs),
    ]


async def test_a_client_with_a_key_is_believed_with_it_alone(gateway: GatewayFactory, a_client: str) -> None:
    """On every route: without the key, with a wrong, another client's or half a key it is 401 and nothing changes."""
    gw = await gateway(dispatch=False)
    mine = (await key(gw, await client(gw, a_client)))["key"]
    theirs = (await key(gw, await client(gw, "somebody-else")))["key"]
    body = {"client_id": a_client, "task": {"url": HOOK}, "delay": 60}
    _, told, _ = await gw.enqueue(body, **shows(mine))
    task_id = told["task_id"]
    attacks: tuple[dict[str, Any], ...] = (
        {},
        {"headers": {"X-Client-Key": ""}},
        {"headers": {"Authorization": f"Basic {mine}"}},
        {"headers": {"Authorization": mine}},
        shows(theirs),
        shows(mine[:-1]),
        shows(mine.upper()),
        shows(digest(mine).hex()),
        {"headers": {"X-Client-Key": theirs, "Authorization": f"Bearer {mine}"}},
        {"headers": [("X-Client-Key", mine), ("X-Client-Key", theirs)]},
        {"headers": {"X-Client-Key": "ключ"}},
        {"headers": {"X-Admin-Key": ADMIN_KEY}},
    )
    for attack in attacks:
        for status, refused, headers in await routes(gw, a_client, task_id, **attack):
            assert status == 401, attack
            assert refused["error"] in {
                "Client validation failed: client key is required",
                "Client validation failed: invalid client key",
            }
            assert headers["WWW-Authenticate"] == "Bearer"
            assert mine not in str(refused)
    for proof in (shows(mine), {"headers": {"Authorization": f"bearer  {mine}"}}):
        assert [answer[0] for answer in await routes(gw, a_client, task_id, **proof)][:5] == [201, 201, 200, 200, 200]
    usage = (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}", **shows(mine)))[1]
    assert usage["current_usage"] == 5, "what was refused consumed nothing"


async def test_a_client_sees_and_cancels_its_own_tasks_only(gateway: GatewayFactory, a_client: str) -> None:
    """With its own key and its own id, another's task is 404 on every route, and stays."""
    gw = await gateway(dispatch=False)
    mine = (await key(gw, await client(gw, a_client)))["key"]
    theirs = (await key(gw, await client(gw, "somebody-else")))["key"]
    body = {"client_id": "somebody-else", "task": {"url": HOOK}, "delay": 60}
    task_id = (await gw.enqueue(body, **shows(theirs)))[1]["task_id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/explain")):
        asked = f"/v1/tasks/{task_id}{path}?client_id={a_client}"
        assert (await gw.call(method, asked, **shows(mine)))[0] == 404
    asked = f"/v1/tasks/{task_id}?client_id=somebody-else"
    assert (await gw.call("GET", asked, **shows(theirs)))[1]["state"] == "scheduled"


async def test_keys_rotate_with_two_valid(gateway: GatewayFactory, a_client: str) -> None:
    """The next one and the one before are valid together; the one before that is not, nor one that is revoked."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    turn = where.replace("/keys", "/keys/rotate")
    assert (await gw.admin("POST", turn))[0] == 409, "there is none that another could follow"
    first, second = await key(gw, where), await key(gw, turn)
    assert [await enqueue(gw, a_client, each["key"]) for each in (first, second)] == [201, 201]
    assert (await gw.admin("POST", where))[0] == 409, "two are what there may be"
    third = await key(gw, turn)
    assert [await enqueue(gw, a_client, each["key"]) for each in (first, second, third)] == [401, 201, 201]
    assert (await gw.admin("DELETE", f"{where}&key_id={second['key_id']}"))[0] == 204
    assert (await gw.admin("DELETE", f"{where}&key_id={second['key_id']}"))[0] == 404
    assert [await enqueue(gw, a_client, each["key"]) for each in (second, third)] == [401, 201]
    told = (await gw.admin("GET", where))[1]
    assert (told["required"], [each["key_id"] for each in told["keys"]]) == (True, [third["key_id"]])


async def test_a_client_without_its_last_key_is_closed_until_it_is_released(
    gateway: GatewayFactory, a_client: str
) -> None:
    """To revoke a leaked key, or to delete the client, opens nothing to whoever names it; releasing it does."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    leaked = await key(gw, where)
    assert await enqueue(gw, a_client, leaked["key"]) == 201
    assert (await gw.admin("DELETE", f"{where}&key_id={leaked['key_id']}"))[0] == 204
    assert [await enqueue(gw, a_client), await enqueue(gw, a_client, leaked["key"])] == [401, 401]
    made = await key(gw, where)
    assert await enqueue(gw, a_client, made["key"]) == 201
    assert (await gw.admin("DELETE", f"/admin/clients/delete?client_id={a_client}"))[0] == 204
    assert [await enqueue(gw, a_client), await enqueue(gw, a_client, made["key"])] == [401, 401]
    assert (await gw.admin("GET", where))[1] == {"client_id": a_client, "required": True, "keys": []}
    assert (await gw.admin("POST", where))[0] == 404, "a key is for a client that there is"
    assert (await gw.admin("POST", where.replace("/keys", "/keys/release")))[0] == 204
    assert await enqueue(gw, a_client) == 201


async def test_a_key_that_is_offered_need_not_be_shown_yet(gateway: GatewayFactory, a_client: str) -> None:
    """So that callers come to send theirs one by one; a wrong one is refused all the same, and from the day that the
    key is required only the right one counts. What was only offered leaves the client open when it is revoked."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    require = where.replace("/keys", "/keys/require")
    assert (await gw.admin("POST", require))[0] == 409, "it would close the client"
    offered = await key(gw, f"{where}&required=false")
    second = await key(gw, where.replace("/keys", "/keys/rotate"))
    assert (await gw.admin("GET", where))[1]["required"] is False
    texts = (None, offered["key"], second["key"], offered["key"] + "x")
    assert [await enqueue(gw, a_client, text) for text in texts] == [201, 201, 201, 401]
    assert (await gw.admin("DELETE", f"{where}&key_id={offered['key_id']}"))[0] == 204
    assert [await enqueue(gw, a_client, text) for text in texts] == [201, 401, 201, 401]
    assert (await gw.admin("POST", require))[0] == 204
    assert [await enqueue(gw, a_client, text) for text in texts] == [401, 401, 201, 401]
    assert (await gw.admin("POST", f"{where}&required=perhaps"))[0] == 400
    await client(gw, "another")
    other = await key(gw, "/admin/clients/keys?client_id=another&required=false")
    await gw.admin("DELETE", f"/admin/clients/keys?client_id=another&key_id={other['key_id']}")
    assert await enqueue(gw, "another") == 201


async def test_nothing_changes_for_clients_without_keys(gateway: GatewayFactory, a_client: str) -> None:
    """Whatever else they send as credentials is ignored; `{}` is 401 and a malformed body 400, as ever; but a key is
    somebody's, and opens no other client."""
    gw = await gateway(dispatch=False)
    theirs = (await key(gw, await client(gw, "somebody-else")))["key"]
    body = {"client_id": a_client, "task": {"url": HOOK}, "delay": 60}
    for headers in ({"Authorization": "Bearer eyJhbGciOi"}, {"Authorization": "Basic eDp5"}, {"X-Client-Key": "x"}):
        assert (await gw.enqueue(body, headers=headers))[0] == 201
    assert (await gw.enqueue({}))[1]["error"] == "Client validation failed: client_id is required"
    assert (await gw.enqueue({"client_id": a_client}))[0] == 400
    assert (await gw.enqueue({"client_id": "somebody-else"}))[0] == 401, "who asks is judged before what is asked"
    assert await enqueue(gw, a_client, theirs) == 401
    assert (await gw.enqueue(body, headers={"Authorization": f"Bearer {theirs}"}))[0] == 401


async def test_all_clients_need_a_key_where_the_operator_says_so(gateway: GatewayFactory, a_client: str) -> None:
    """With REQUIRE_CLIENT_KEY known, unknown and disabled clients are one and the same 401, and nobody is created."""
    gw = await gateway(dispatch=False, require_client_key="true", legacy_client_id="legacy-one")
    mine = (await key(gw, await client(gw, a_client)))["key"]
    await client(gw, "without-key")
    assert (await gw.admin("PUT", "/admin/clients/set", json={"client_id": "disabled", "enabled": False}))[0] == 200
    errors = set()
    for name in ("unknown-one", "without-key", "disabled"):
        for text in (None, mine):
            body = {"client_id": name, "task": {"url": HOOK}}
            status, refused, _ = await gw.enqueue(body, **({} if text is None else shows(text)))
            assert status == 401
            errors.add((text is None, refused["error"]))
    assert len(errors) == 2
    assert (await gw.enqueue({"task": {"url": HOOK}}))[0] == 401
    assert await enqueue(gw, a_client, mine) == 201
    assert {each["client_id"] for each in (await gw.admin("GET", "/admin/clients"))[1]["clients"]} == {
        a_client,
        "without-key",
        "disabled",
    }


async def test_keys_over_every_topology(deployment: Deployment) -> None:
    """What is made, followed, revoked, closed and released in one process holds in another."""
    async with deployment.store() as one, deployment.store() as two:
        await asyncio.gather(one.doorbell.subscribed.wait(), two.doorbell.subscribed.wait())
        keys, others = one.client_keys, two.client_keys
        assert await others.get("acme") == Keyring()

        async def holds(*texts: str, required: bool = True) -> bool:
            keyring = await others.get("acme")
            return (len(keyring.keys), keyring.required) == (len(texts), required) and all(map(keyring.holds, texts))

        _, first = await keys.create("acme")
        await until(lambda: holds(first))
        newest, second = await keys.rotate("acme")
        await until(lambda: holds(first, second))
        newest, third = await keys.rotate("acme")
        await until(lambda: holds(second, third))
        assert await keys.revoke("acme", newest.key_id)
        await until(lambda: holds(second))
        await keys.require("acme")
        await keys.close("acme")
        await until(holds)
        assert await keys.release("acme")
        await until(lambda: holds(required=False))


async def test_every_replica_hears_of_a_change(gateway: GatewayFactory, a_client: str) -> None:
    """Another process that has just believed the client asks for the key, takes it, and refuses it once revoked."""
    one, two = await gateway(dispatch=False), await gateway(dispatch=False)
    where = await client(one, a_client)
    assert await enqueue(two, a_client) == 201

    async def answers(status: int, text: str | None = None) -> bool:
        return await enqueue(two, a_client, text) == status

    made = await key(one, where)
    await until(lambda: answers(401))
    assert await enqueue(two, a_client, made["key"]) == 201
    await one.admin("DELETE", f"{where}&key_id={made['key_id']}")
    await until(lambda: answers(401, made["key"]))


async def test_a_key_costs_no_round_trip(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process asks Redis for a client's keys once, together with its settings; then only the task itself goes there,
    also where the client has none."""
    gw = await gateway(dispatch=False)
    mine = (await key(gw, await client(gw, a_client)))["key"]
    await client(gw, "without-key")
    assert await enqueue(gw, a_client, mine) == 201, "Redis has the script"
    gw.store._forget(None)
    asked: list[str] = []
    link = gw.store._front
    execute = link.execute

    async def noting(*command: Any, **kwargs: Any) -> Any:
        if a_client in repr(command) or "without-key" in repr(command):
            asked.append(str(command[0]))
        return await execute(*command, **kwargs)

    monkeypatch.setattr(link, "execute", noting)
    assert await enqueue(gw, a_client, mine) == 201
    assert sorted(asked) == ["EVALSHA", "GET", "HGETALL"]
    asked.clear()
    assert [await enqueue(gw, a_client, mine), await enqueue(gw, a_client)] == [201, 401]
    assert asked == ["EVALSHA"]
    await enqueue(gw, "without-key")
    asked.clear()
    assert await enqueue(gw, "without-key") == 201
    assert asked == ["EVALSHA"]


async def test_a_key_is_shown_once(gateway: GatewayFactory, a_client: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither Redis, the list, the client, the audit log, the metrics nor the log have it; Redis has its hash."""
    gw = await gateway(dispatch=False, log_level="debug")
    where = await client(gw, a_client)
    status, made, headers = await gw.admin("POST", where)
    assert (status, headers["Cache-Control"]) == (201, "no-store")
    await enqueue(gw, a_client, made["key"])
    await enqueue(gw, a_client, made["key"] + "x")
    paths = (where, "/admin/clients", f"/admin/clients/get?client_id={a_client}", "/admin/audit")
    seen = [(await gw.admin("GET", path))[1] for path in paths]
    assert "create_client_key" in str(seen[3])
    stored = await gw.store._front.execute("HGETALL", gw.store.client_keys._keyspace.client_keys(a_client))
    everything = repr(
        [*seen, stored, metrics.render()[0], *capsys.readouterr(), await gw.store.client_keys.get(a_client)]
    )
    assert made["key_id"] in everything
    assert made["key"].removeprefix("gwk_") not in everything
    assert hashlib.sha256(made["key"].encode()).hexdigest() in repr(stored)
    refused = metrics.render()[0].decode()
    assert 'gateway_client_keys_refused_total{reason="invalid"} 1.0' in refused


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key it is, or none: each is compared, in constant time, so that the time tells nothing."""
    compared: list[int] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    keyring = Keyring((ClientKey("key_1", 1, digest("first")), ClientKey("key_2", 2, digest("second"))), True)
    assert [keyring.holds(text) for text in ("first", "second", "third")] == [True, True, False]
    assert compared == [32] * 6
    assert digest("first").hex() not in repr(keyring)


@pytest.mark.parametrize("wrong", ["", "&key_id=", "&key_id=key_x", "&key_id=gwk_0123", "&key_id=required"])
async def test_what_is_revoked_is_named(gateway: GatewayFactory, a_client: str, wrong: str) -> None:
    """400 says where the id is to be found; one that there is not is 404."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    status, body, _ = await gw.admin("DELETE", where + wrong)
    assert (status, "GET /admin/clients/keys" in body["message"]) == (400, True)
    assert (await gw.admin("DELETE", f"{where}&key_id=key_00000000"))[0] == 404
    assert (await gw.admin("GET", "/admin/clients/keys?client_id=nobody"))[0] == 404


async def test_a_key_does_not_travel_in_a_url_or_a_body(gateway: GatewayFactory, a_client: str) -> None:
    """Where it would end up in logs it is not taken, and the answer does not repeat it."""
    gw = await gateway(dispatch=False)
    mine = (await key(gw, await client(gw, a_client)))["key"]
    status, told, _ = await gw.call("GET", f"/v1/rate-limit?client_id={a_client}&client_key={mine}")
    assert (status, mine in str(told)) == (400, False)
    status, told, _ = await gw.enqueue({"client_id": a_client, "client_key": mine, "task": {"url": HOOK}})
    assert (status, mine in str(told)) == (401, False)


async def test_the_target_does_not_see_the_key(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """What a client shows is for the gateway alone."""
    gw = await gateway()
    mine = (await key(gw, await client(gw, a_client)))["key"]
    assert (await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x"}}, **shows(mine)))[0] == 201
    assert mine not in str(await target.received(1))


async def test_the_commands(gateway: GatewayFactory, a_client: str) -> None:
    """`gateway keys create`, `require`, `rotate`, `list`, `revoke` and `release` do and show it."""
    gw = await gateway(dispatch=False)
    await client(gw, a_client)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    created = await run("keys", "create", a_client, "--offer", env=env)
    assert (created.code, created.out.startswith("gwk_")) == (0, True)
    assert await enqueue(gw, a_client) == 201
    assert (await run("keys", "require", a_client, env=env)).out.strip() == f"{a_client} needs a key"
    assert await enqueue(gw, a_client) == 401
    assert await enqueue(gw, a_client, created.out.strip()) == 201
    made = json.loads((await run("keys", "rotate", a_client, "--json", env=env)).out)
    assert made["key_id"] in (await run("keys", "list", a_client, env=env)).out
    assert (await run("keys", "revoke", a_client, made["key_id"], env=env)).out.strip() == f"revoked {made['key_id']}"
    [left] = json.loads((await run("keys", "list", a_client, "--json", env=env)).out)["keys"]
    assert left["key_id"] in created.err
    assert (await run("keys", "revoke", a_client, left["key_id"], env=env)).code == 0
    assert "closed" in (await run("keys", "list", a_client, env=env)).err
    assert "needs no key" in (await run("keys", "release", a_client, env=env)).out
    assert await enqueue(gw, a_client) == 201
