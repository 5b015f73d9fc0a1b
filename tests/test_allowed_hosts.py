"""`allowed_hosts`: the tasks of a client go where its list says, judged at enqueue by the URL and at the dial by the
address."""

import doctest
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from redis.asyncio import from_url

from gateway import metrics
from gateway.dispatch import allowed
from gateway.dispatch.allowed import allowed_hosts
from gateway.errors import StoreUnavailable

REASON = "target not allowed: host that the client's allowed_hosts do not name"


async def put(gw: Gateway, name: str, **fields: Any) -> tuple[int, Any]:
    """Status and body of a change of the client."""
    status, body, _ = await gw.admin("PUT", "/admin/clients/set", json={"client_id": name, **fields})
    return status, body


async def task_in_state(gw: Gateway, name: str, task_id: str, state: str) -> dict[str, Any]:
    """The task, once it is in this state."""
    view: dict[str, Any] = {}

    async def reached() -> bool:
        view.update((await gw.call("GET", f"/v1/tasks/{task_id}?client_id={name}"))[1])
        return bool(view["state"] == state)

    await until(reached)
    return view


def test_docstring_examples_hold() -> None:
    """The examples a reader of the module sees are what it does."""
    result = doctest.testmod(allowed)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("api.example.com", ["api.example.com:80", "api.example.com:443"], ["example.com:80", "x.api.example.com:80"]),
        ("API.Example.com:443", ["api.example.com:443"], ["api.example.com:80"]),
        ("*.example.com", ["a.example.com:80", "a.b.example.com:1"], ["example.com:80", "evilexample.com:80"]),
        ("*.example.com:443", ["a.example.com:443"], ["a.example.com:80", "a.example.com.evil.test:443"]),
        ("10.1.0.0/16", ["10.1.2.3:80"], ["10.2.0.1:80", "::1:80"]),
        ("10.1.2.3:9000", ["10.1.2.3:9000"], ["10.1.2.3:80"]),
        ("[fd00::1]:8080", ["fd00::1:8080"], ["fd00::1:80", "fd00::2:8080"]),
        ("0.0.0.0/0", ["203.0.113.7:80"], ["fd00::1:80"]),
        # not even where the translation of what is dialled is allowed: who knows whether it is translated
        ("10.0.0.0/8", ["10.0.0.1:80"], ["64:ff9b::a00:1:80", "2002:a00:1:::80"]),
        ("no entry at all", [], ["no:80", "10.0.0.1:80"]),
    ],
)
def test_an_entry_allows_what_it_names(entry: str, yes: list[str], no: list[str]) -> None:
    """Names as they are, wildcards for what is below, networks for literal addresses; and nothing else."""
    rule = allowed_hosts((entry,))
    for expected, texts in ((True, yes), (False, no)):
        for text in texts:
            host, _, port = text.rpartition(":")
            assert (rule.decides(host, int(port)) is True) is expected, text


async def test_operators_set_it_and_it_is_shown_where_it_is_set(gateway: GatewayFactory, valkey: str) -> None:
    """A client without the list looks as ever; one with it shows it, keeps it through other changes and through a body
    that `get` answered, and `null` lifts it."""
    gw = await gateway(dispatch=False)
    redis = from_url(valkey)
    assert "allowed_hosts" not in (await put(gw, "acme"))[1]
    assert b"allowed_hosts" not in (await redis.get("client_config:acme") or b"")
    hosts = ["api.example.com", "*.example.org:443", "10.1.0.0/16"]
    assert (await put(gw, "acme", allowed_hosts=hosts))[1]["allowed_hosts"] == hosts
    assert json.loads(await redis.get("client_config:acme") or b"")["allowed_hosts"] == hosts
    shown = (await put(gw, "acme", enabled=False))[1]
    assert shown["allowed_hosts"] == hosts
    assert (await put(gw, **{"name": "acme", **{k: v for k, v in shown.items() if k != "client_id"}}))[0] == 200
    gw.store._forget(None)
    assert (await gw.admin("GET", "/admin/clients/get?client_id=acme"))[1]["allowed_hosts"] == hosts
    assert "allowed_hosts" not in (await put(gw, "acme", allowed_hosts=None))[1]
    changed = (await gw.admin("GET", "/admin/audit"))[1]["entries"][0]
    assert (changed["before"]["allowed_hosts"], "allowed_hosts" in changed["after"]) == (hosts, False)
    await redis.aclose()


@pytest.mark.parametrize(
    "wrong",
    ["", " a.test", "http://a.test", "a.test/x", "*", "*.", "*.*.test", "a.*.test", "*.10.0.0.1", "a.test:0", "ü.test"],
)
async def test_what_is_no_host_is_refused_by_its_place(gateway: GatewayFactory, wrong: str) -> None:
    """A malformed entry is a 400 that says which, and changes nothing; so is a list that would allow nothing."""
    gw = await gateway(dispatch=False)
    status, body = await put(gw, "acme", allowed_hosts=["fine.test", wrong])
    assert (status, "$.allowed_hosts[1]" in body["message"]) == (400, True)
    status, body = await put(gw, "acme", allowed_hosts=[])
    assert (status, "$.allowed_hosts" in body["message"]) == (400, True)
    assert (await gw.admin("GET", "/admin/clients/get?client_id=acme"))[0] == 404


NAMED = ["api.example.com", "xn--bcher-kva.example"]
WITHIN = ["10.1.0.0/16", "api.example.com:443"]


@pytest.mark.parametrize(
    ("hosts", "url", "status"),
    [
        (NAMED, "https://api.example.com/x", 201),
        (NAMED, "https://API.example.com./x", 201),
        (NAMED, "https://ａｐｉ.example.com/x", 201),
        (NAMED, "https://bücher.example/x", 201),
        (NAMED, "https://example.com/x", 403),
        (NAMED, "https://api.example.com.evil.test/x", 403),
        (NAMED, "https://api.example.com@evil.test/x", 400),
        (NAMED, "http://10.1.9.9/", 403),
        (WITHIN, "http://10.1.9.9:8080/", 201),
        (WITHIN, "http://0xa010909/", 201),
        (WITHIN, "http://10.2.0.1/", 403),
        (WITHIN, "http://[::ffff:10.2.0.1]/", 403),
        (WITHIN, "http://167903233/", 403),
        (WITHIN, "http://some.name.test/", 201),
        (["10.1.0.0/16:80"], "http://some.name.test:81/", 403),
    ],
)
async def test_enqueue_judges_the_url(
    gateway: GatewayFactory, a_client: str, hosts: list[str], url: str, status: int
) -> None:
    """What the list does not name, in whatever notation, is 403 before anything is counted or stored; a name that may
    be in a network that it names is for the dial to judge."""
    gw = await gateway(dispatch=False)
    await put(gw, a_client, allowed_hosts=hosts)
    # Past the ceiling, too, which is judged after it.
    override = {"max_concurrent": 10**6, "requests_per_min": 10**6} if status == 403 else None
    got, body, _ = await gw.enqueue({"client_id": a_client, "task": {"url": url}, "rate_limit": override})
    assert got == status, body
    if status == 403:
        assert body["error"] == "Host not allowed"
        assert body["message"].startswith("$.task.url: ")
        usage = (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[1]
        assert (usage["current_usage"], usage["queued"]) == (0, 0)
        assert 'gateway_egress_refused_total{reason="client",stage="enqueue"} 1.0' in metrics.render()[0].decode()


async def test_a_batch_is_judged_item_by_item(gateway: GatewayFactory, a_client: str) -> None:
    """One task to elsewhere does not keep the others."""
    gw = await gateway(dispatch=False)
    await put(gw, a_client, allowed_hosts=["api.example.com"])
    tasks = [{"task": {"url": f"http://{host}/"}} for host in ("api.example.com", "evil.test")]
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    assert (status, [item["status"] for item in body["results"]]) == (207, [201, 403])
    assert body["results"][1]["message"].startswith("$.tasks[1].task.url: ")


async def test_what_is_queued_is_judged_anew(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """A list that was made narrower meanwhile holds for what waits: dead, with the reason, and not called."""
    gw = await gateway()
    await put(gw, a_client, allowed_hosts=["127.0.0.1"])
    assert (await gw.admin("POST", f"/admin/clients/pause?client_id={a_client}"))[0] == 200
    _, told, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x"}})
    await put(gw, a_client, allowed_hosts=["api.example.com"])
    assert (await gw.admin("POST", f"/admin/clients/resume?client_id={a_client}"))[0] == 200
    view = await task_in_state(gw, a_client, told["task_id"], "dead")
    assert (view["reason"], target.calls) == (REASON, [])


async def test_upstream_is_always_allowed(gateway: GatewayFactory, a_client: str) -> None:
    """The service that the sidecar stands before may be called whatever the list says."""
    gw = await gateway(dispatch=False, upstream_url="http://127.0.0.1:9000")
    await put(gw, a_client, allowed_hosts=["api.example.com"])
    assert (await gw.enqueue({"client_id": a_client, "task": {"url": "/x"}}))[0] == 201
    assert (await gw.enqueue({"client_id": a_client, "task": {"url": "http://127.0.0.1:9001/x"}}))[0] == 403


@pytest.mark.parametrize("stored", ['"api.example.com"', "[1]", "{}"])
async def test_a_list_that_can_not_be_read_opens_nothing(
    gateway: GatewayFactory, valkey: str, target: Target, a_client: str, stored: str
) -> None:
    """What another program wrote there and is no list of texts: 503 for the client, and no call of what it has queued;
    once it is mended, that is made."""
    gw = await gateway()
    await put(gw, a_client)
    assert (await gw.admin("POST", f"/admin/clients/pause?client_id={a_client}"))[0] == 200
    body = {"client_id": a_client, "task": {"url": f"{target.url}/x"}}
    _, told, _ = await gw.enqueue(body)
    redis = from_url(valkey)
    key = f"client_config:{a_client}"
    whole = (await redis.get(key) or b"").decode()
    await redis.set(key, whole[:-1] + f', "allowed_hosts": {stored}}}')
    gw.store._forget(None)
    assert (await gw.enqueue(body))[0] == 503
    assert (await gw.admin("POST", f"/admin/clients/resume?client_id={a_client}"))[0] in {200, 404, 409}
    await gw.store.clients.pause(a_client, paused=False)
    view = await task_in_state(gw, a_client, told["task_id"], "retrying")
    assert (view["last_attempt"]["error"], target.calls) == ("client settings unreadable", [])
    await redis.set(key, whole)
    gw.store._forget(None)
    await target.received(1)
    await redis.aclose()


async def test_a_call_waits_for_its_list_while_redis_is_away(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes out unjudged because the list could not be read."""
    gw = await gateway(dispatch=False)
    await put(gw, a_client, allowed_hosts=["a.test"])
    clients = gw.store.clients
    get, losses = clients.get, [StoreUnavailable("away")]

    async def failing(client_id: str) -> Any:
        if losses:
            raise losses.pop()
        return await get(client_id)

    monkeypatch.setattr(clients, "get", failing)
    clients.forget(a_client)
    allowed = clients.allowed_hosts(a_client)
    assert isinstance(allowed, Awaitable)
    assert await allowed == ("a.test",)
    assert losses == []
    assert clients.allowed_hosts(a_client) == ("a.test",)  # known now


async def test_the_command(gateway: GatewayFactory, a_client: str) -> None:
    """`gateway clients set --hosts` sets and lifts the list, and shows it."""
    gw = await gateway(dispatch=False)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    told = await run("clients", "set", a_client, "--hosts", "a.test, *.b.test:443", env=env)
    assert "a.test, *.b.test:443" in told.out
    told = await run("clients", "set", a_client, "--hosts", "", "--json", env=env)
    assert "allowed_hosts" not in json.loads(told.out)
