"""The operators' first page: one call, bounded, with the same numbers as everywhere else."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from deployments import Deployment
from redis.asyncio import from_url
from stores import admit, collect_once
from test_metrics import samples
from test_usage import batch, did

from gateway import metrics
from gateway.metrics.depths import DEPTHS
from gateway.store import open_store, rounds
from gateway.store.counting import Booking
from gateway.store.figures import Figures
from gateway.store.gauges import show
from gateway.store.replicas import Replica


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    metrics.configure(1000, None)
    yield
    metrics.configure(1000, None)


async def work(gw: Gateway, target: Target) -> None:
    """A call that hangs, one that waits behind it, one for later, one that died, one delivered, and refusals."""
    target.hold("/hangs")
    target.statuses["/gone"] = 410
    limits = {"max_concurrent": 1, "requests_per_min": 4}
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": "acme", "rate_limit": limits})
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": "sleeper", "tier": "free", "enabled": False})
    for calls, path, status in (
        (1, "/ok", 201),
        (2, "/gone", 201),
        (3, "/hangs", 201),
        (3, "/ok", 201),
        (3, "/ok", 429),
        (3, "/ok", 429),
    ):
        assert (await gw.enqueue({"client_id": "acme", "task": {"url": target.url + path}}))[0] == status
        await target.received(calls)
    assert (await gw.enqueue({"client_id": "globex", "delay": 60, "task": {"url": target.url}}))[0] == 201

    async def settled() -> bool:
        usage = await gw.store.windows.usage("acme")
        return (usage.queued, usage.in_flight, usage.dead) == (1, 1, 1)

    await until(settled)


async def test_ten_seconds_suffice(gateway: GatewayFactory, target: Target) -> None:
    """Who is refused most, what waits longest and why, what failed with which status: all is in the one answer."""
    gw = await gateway()
    await work(gw, target)
    alive = Replica(
        name="a", version="1", role="all", started_at=0, seen_at=0, in_flight=0, max_in_flight=gw.settings.max_in_flight
    )
    await gw.store.replicas.beat(alive)
    await Booking(gw.store.usages).flush()
    status, told, _ = await gw.admin("GET", "/admin/overview")
    assert status == 200
    assert told["totals"] == {"queued": 1, "scheduled": 1, "in_flight": 1, "dead": 1}
    assert told["clients"] == {"known": 3, "enabled": 2, "disabled": 1, "active": 2}
    assert told["refused_most"] == [{"client_id": "acme", "tier": "default", "refused": 2, "admitted": 4}]
    assert told["failed_most"] == [{"client_id": "acme", "tier": "default", "failed": 1, "delivered": 1}]
    assert told["failures"]["by_status"] == [{"status": "410", "count": 1}]
    assert told["failures"]["by_host"] == [{"host": target.url.removeprefix("http://"), "count": 1}]
    oldest = told["oldest_waiting"]
    assert (oldest["client_id"], oldest["constraint"]) == ("acme", "concurrency")
    assert (await gw.admin("GET", f"/admin/tasks/{oldest['task_id']}?client_id=acme"))[1]["state"] == "queued"
    assert [each["client_id"] for each in told["waiting_longest"]] == ["acme"]
    assert told["last_hour"]["admitted"] == 5
    assert sum(minute["refused"] for minute in told["minutes"]) == 2
    assert told["saturation"]["max_in_flight"] == gw.settings.max_in_flight
    shares = {each["limit"]: (each["highest"], each["at_limit"]) for each in told["saturation"]["clients"]}
    assert shares["concurrency"] == shares["window"] == (1.0, 1)
    assert [replica["name"] for replica in told["replicas"]] == ["a"]
    assert (told["redis"]["ok"], told["redis"]["server"]) == (True, "valkey")


async def test_one_number_everywhere(gateway: GatewayFactory, target: Target) -> None:
    """The overview, the figures of each client, the usage and the metrics say the same of the same moment."""
    gw = await gateway()
    await work(gw, target)
    await Booking(gw.store.usages).flush()
    await collect_once(gw.store)
    told = (await gw.admin("GET", "/admin/overview"))[1]
    clients = [(await gw.admin("GET", f"/admin/clients/usage?client_id={name}"))[1] for name in ("acme", "globex")]
    async with gw.client.get("/metrics") as answer:
        found = samples(await answer.text())
    for name, state in (("queued", "queued"), ("scheduled", "scheduled"), ("in_flight", "running"), ("dead", "dead")):
        of_clients = sum(client[name] for client in clients)
        by_label = sum(found[f"gateway_tasks_{state}", (client["client_id"],)] for client in clients)
        assert told["totals"][name] == of_clients == by_label == found["gateway_tasks", (state,)], name
    acme = (await gw.admin("GET", "/admin/usage?client_id=acme"))[1]["total"]
    assert acme["admitted"] == found["tasks_enqueued_total", ("acme", "default")]
    assert acme["refused"] == found["rate_limit_exceeded_total", ("acme", "default")]
    assert acme["refused"] == told["refused_most"][0]["refused"]
    total = (await gw.admin("GET", "/admin/usage"))[1]["total"]
    assert told["last_hour"] == total
    assert total["delivered"] == found["gateway_attempts_total", ("delivered", "2xx")]
    assert total["failed"] == found["gateway_attempts_total", ("refused", "4xx")]
    assert told["clients"]["active"] == found["gateway_active_clients", ()]
    assert told["clients"]["disabled"] == sum(
        n for (name, labels), n in found.items() if name == "gateway_clients" and "disabled" in labels
    )


async def told_alike(gw: Gateway) -> tuple[Any, dict[tuple[str, tuple[str, ...]], float]]:
    """A new snapshot as every way tells it: the overview and the metrics."""
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    await collect_once(gw.store)
    ways = ("/admin/overview", "/admin/tiers?figures=true")
    shown = asyncio.gather(*(gw.admin("GET", way) for way in ways))
    ran = await run("stats", "--json", env=env)
    (_, overview, _), (_, tiers, _) = await shown
    async with gw.client.get("/metrics") as answer:
        found = samples(await answer.text())
    stats = json.loads(ran.out)
    for name in ("at", "totals", "clients", "tiers", "waiting_longest", "saturation"):
        assert stats[name] == overview[name], name
    for name, state in zip(("queued", "scheduled", "in_flight", "dead"), DEPTHS, strict=True):
        assert overview["totals"][name] == found["gateway_tasks", (state,)], name
    assert overview["clients"]["active"] == found["gateway_active_clients", ()]
    [tier] = overview["tiers"]
    assert tier["clients"] == tiers["tiers"]["default"]["clients"] == 2
    assert found["gateway_clients", ("enabled", "default")] == tier["enabled"] == tiers["tiers"]["default"]["enabled"]
    return overview, found


async def test_one_number_under_load_and_after_it(gateway: GatewayFactory, target: Target) -> None:
    """While tasks come and go, the overview, the tiers, the command line and the metrics tell one and the same
    snapshot; once it is quiet, so do the list of clients, one client, and everything that was counted."""
    gw = await gateway()
    names, sent, stop = ("acme", "globex"), Counter[str](), asyncio.Event()
    for name in names:
        limits = {"max_concurrent": 2, "requests_per_min": 10**6}
        await gw.admin("PUT", "/admin/clients/set", json={"client_id": name, "rate_limit": limits})
    target.statuses["/gone"] = 410

    async def load() -> None:
        while not stop.is_set():
            for name, path in zip(names, ("/ok", "/gone"), strict=True):
                body = {"client_id": name, "task": {"url": target.url + path}}
                sent[name] += (await gw.enqueue(body))[0] == 201

    loading = asyncio.create_task(load())
    await target.received(20)
    await told_alike(gw)
    stop.set()
    await loading

    async def quiet() -> bool:
        usages = [await gw.store.windows.usage(name) for name in names]
        return not any(usage.queued or usage.in_flight for usage in usages)

    await until(quiet)
    await Booking(gw.store.usages).flush()
    overview, found = await told_alike(gw)
    assert overview["totals"] == {"queued": 0, "scheduled": 0, "in_flight": 0, "dead": sent["globex"]}
    listed = {client["client_id"]: client for client in (await gw.admin("GET", "/admin/clients/active"))[1]["clients"]}
    for name in names:
        one = (await gw.admin("GET", f"/admin/clients/usage?client_id={name}"))[1]
        for field in ("queued", "scheduled", "in_flight", "dead", "current_usage", "rate_limit"):
            assert listed[name][field] == one[field], field
        assert one["dead"] == (sent[name] if name == "globex" else 0)
        usage = (await gw.admin("GET", f"/admin/usage?client_id={name}"))[1]["total"]
        assert usage["admitted"] == usage["delivered"] + usage["failed"] == sent[name]
        assert found["tasks_enqueued_total", (name, "default")] == sent[name]
    assert overview["last_hour"]["admitted"] == sum(sent.values())
    assert overview["failed_most"][0]["failed"] == overview["failures"]["by_status"][0]["count"] == sent["globex"]
    assert found["gateway_attempts_total", ("refused", "4xx")] == sent["globex"]


async def test_the_command_line_says_the_same(gateway: GatewayFactory, target: Target) -> None:
    """`gateway usage`, `candidates`, `stats` and `clients usage` show the numbers of the API, as JSON and as tables."""
    gw = await gateway()
    await work(gw, target)
    await Booking(gw.store.usages).flush()
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    asked = (
        ("usage", "--client", "acme", "--step", "hour"),
        ("candidates", "--minutes", "0"),
        ("stats",),
        ("clients", "usage", "acme"),
    )
    told = [json.loads(ran.out) for ran in await asyncio.gather(*(run(*words, "--json", env=env) for words in asked))]
    overview = (await gw.admin("GET", "/admin/overview"))[1]
    assert told[0]["total"]["refused"] == told[1]["candidates"][0]["refused"] == overview["refused_most"][0]["refused"]
    assert told[2]["totals"] == overview["totals"]
    of_acme = (await gw.admin("GET", "/admin/clients/usage?client_id=acme"))[1]
    assert {told[3][name] for name in ("queued", "in_flight", "dead")} == {1}
    assert all(told[3][name] == of_acme[name] for name in ("queued", "scheduled", "in_flight", "dead"))
    shown, listed = await asyncio.gather(*(run(*words, env=env) for words in asked[:2]))
    assert re.search(r"total +4 +2 +1 +1", shown.out)
    assert re.search(r"acme +default +4 +1 +2 +4 +free", listed.out)


async def test_processes_take_turns(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process looks the figures up, the others show what it found; another goes on where it is gone."""
    async with deployment.store() as one, deployment.store() as other:
        for name in ("acme", "globex", "initech"):
            await admit(one, client_id=name, delay=0 if name == "acme" else 60)
        first = await one.figured.latest("one")
        assert (first.queued, first.scheduled, first.active, first.tiers["default"].clients) == (1, 2, 3, 3)
        looked: list[str] = []
        look = other.figured.look

        async def looking() -> Figures:
            looked.append("other")
            return await look()

        monkeypatch.setattr(other.figured, "look", looking)
        assert await other.figured.latest("other") == first
        assert looked == []
        await one.figured._runner.command("DEL", one.figured._keyspace.figures_turn)
        assert (await other.figured.latest("other")).scheduled == 2
        assert looked == ["other"]


async def test_a_full_redis_is_looked_at_all_the_same(gateway: GatewayFactory, valkey: str) -> None:
    """Where Redis takes nothing more, the figures are those of the moment, though nobody can leave them for others."""
    gw = await gateway(dispatch=False)
    redis = from_url(valkey)
    assert (await gw.store.figured.latest(gw.store.consumer)).queued == 0
    assert (await gw.enqueue({"client_id": "acme", "task": {"url": "http://example.com/"}}))[0] == 201
    await redis.config_set("maxmemory", "1")
    try:
        assert (await gw.store.figured.latest(gw.store.consumer)).queued == 1
        assert (await gw.enqueue({"client_id": "acme", "task": {"url": "http://example.com/"}}))[0] == 503
    finally:
        await redis.config_set("maxmemory", "0")
        await redis.aclose()


async def test_more_clients_than_one_look_takes(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more active clients than a look takes in, the waiting ones are right at once, the others after a round; the
    first round is quicker."""
    monkeypatch.setattr(rounds, "ACTIVE", 3)
    monkeypatch.setattr(rounds, "FIRST", 1)
    gw = await gateway(dispatch=False)
    for n in range(7):
        for delay in (0, 60):
            body = {"client_id": f"client-{n}", "delay": delay, "task": {"url": "http://example.com/"}}
            assert (await gw.enqueue(body))[0] == 201
    looks = [await gw.store.figured.look() for _ in range(4)]
    assert [figures.queued + figures.scheduled for figures in looks] == [14] * 4
    assert [figures.scheduled for figures in looks][-1] == 7
    assert looks[-1].sampled
    assert len(looks[-1].clients) == 7
    async with open_store(gw.settings, gw.settings.redis_url or "") as other:
        taken_over = await other.figured.look()
        assert (taken_over.scheduled, taken_over.queued) == (7, 7)  # of the one before, until it has been round
        assert len(taken_over.clients) == 3
    monkeypatch.setattr(rounds, "FIRST", 5)
    async with open_store(gw.settings, gw.settings.redis_url or "") as other:
        assert len((await other.figured.look()).clients) == 7
    await asyncio.gather(
        *(gw.admin("DELETE", f"/admin/clients/delete?client_id=client-{n}&cancel_tasks=true") for n in range(7))
    )
    for _ in range(4):
        show(await gw.store.figured.look(), {})
    assert samples()["gateway_tasks", ("scheduled",)] == 0


async def test_failures_are_of_the_last_hour(gateway: GatewayFactory) -> None:
    """What failed longer than an hour ago is not told any more, and what clients did then neither."""
    gw = await gateway(dispatch=False)
    now = int(await gw.store.usages.now()) // 60
    for ago in (0, 58, 61, 62):  # the minute may end meanwhile
        booked = batch(now - ago, {"acme": did(failed=1)})
        booked.failures = {("status", "503"): 1, ("host", "a.example"): 1}
        await gw.store.usages.book(booked)
    told = (await gw.admin("GET", "/admin/overview"))[1]
    assert told["failures"] == {
        "by_status": [{"status": "503", "count": 2}],
        "by_host": [{"host": "a.example", "count": 2}],
    }
    assert told["failed_most"][0]["failed"] == told["last_hour"]["failed"] == 2
