"""Client keys as operators make, rotate and revoke them, on every topology and replica, and by the command line."""

import asyncio
import hashlib
import json

import pytest
from commands import run
from conftest import ADMIN_KEY, GatewayFactory, until
from deployments import Deployment
from test_client_keys import client, enqueue, key

from gateway import metrics
from gateway.store.client_keys import Keyring


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


@pytest.mark.parametrize("wrong", ["", "&key_id=", "&key_id=key_x", "&key_id=gwk_0123", "&key_id=required"])
async def test_what_is_revoked_is_named(gateway: GatewayFactory, a_client: str, wrong: str) -> None:
    """400 says where the id is to be found; one that there is not is 404."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    status, body, _ = await gw.admin("DELETE", where + wrong)
    assert (status, "GET /admin/clients/keys" in body["message"]) == (400, True)
    assert (await gw.admin("DELETE", f"{where}&key_id=key_00000000"))[0] == 404
    assert (await gw.admin("GET", "/admin/clients/keys?client_id=nobody"))[0] == 404


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
