"""Client keys: who has one is who it says, on every route and every replica, and operators change them."""

import hmac
from typing import Any

import pytest
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target

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
    send = link.send

    def noting(*command: Any) -> Any:
        if a_client in repr(command) or "without-key" in repr(command):
            asked.append(str(command[0]))
        return send(*command)

    monkeypatch.setattr(link, "send", noting)
    assert await enqueue(gw, a_client, mine) == 201
    assert sorted(asked) == ["EVALSHA", "GET", "HGETALL"]
    asked.clear()
    assert [await enqueue(gw, a_client, mine), await enqueue(gw, a_client)] == [201, 401]
    assert asked == ["EVALSHA"]
    await enqueue(gw, "without-key")
    asked.clear()
    assert await enqueue(gw, "without-key") == 201
    assert asked == ["EVALSHA"]


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
