"""Pausing a client, or one of its queues: nothing of it starts, over all replicas, until it is resumed."""

import json
from collections.abc import Callable
from typing import Any

from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from stores import Opened, admit, limit, outcome

from gateway.models import Verdict
from gateway.store import Store


async def started(store: Store, want: int = 10) -> list[str]:
    """The queues of what a claim starts."""
    return [task.queue for task in (await store.claims.claim("acme", want)).tasks]


async def violations(store: Store) -> list[Any]:
    return (await store.audit.stretch(100)).violations


async def test_a_paused_client_starts_nothing_on_any_replica(opened: Opened) -> None:
    """Waiting, new, returned and overriding tasks stay, and nobody looks again and again; a resume starts them."""
    one, other = await opened(), await opened()
    await limit(one, "acme", 3)
    for _ in range(4):
        await admit(one)
    running, returned = (await one.claims.claim("acme", 2)).tasks
    assert await one.clients.pause("acme", paused=True)
    assert not await one.clients.pause("acme", paused=True)  # already
    await one.claims.hand_back([returned])
    await admit(one, bound=50)
    for store in (one, other):
        claim = await store.claims.claim("acme", 10)
        assert (claim.tasks, claim.more, claim.in_flight) == ([], False, 1)
    assert await one.claims.ready(10) == []
    await admit(one)
    assert await one.claims.ready(10) == []
    finished = await one.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None, want=5)
    assert finished.claimed is not None
    assert finished.claimed.tasks == []
    assert (await one.windows.usage("acme")).paused == {""}
    assert await violations(one) == []
    assert await one.clients.pause("acme", paused=False)
    assert await one.claims.ready(10) == ["acme"]
    assert (await other.claims.claim("acme", 10)).tasks[0].task_id == returned.task_id
    assert await violations(one) == []


async def test_a_paused_queue_holds_up_only_itself(opened: Opened) -> None:
    """The client's other queues go on, and take all of its calls; a pause of all is apart from that of one."""
    store = await opened()
    await limit(store, "acme", 2)
    for queue in ("slow", "slow", "fast", "fast", "fast"):
        await admit(store, queue=queue)
    await store.clients.pause("acme", "slow", paused=True)
    assert await started(store) == ["fast", "fast"]
    assert await violations(store) == []
    await store.clients.pause("acme", paused=True)
    await store.clients.pause("acme", paused=False)
    assert (await store.windows.usage("acme")).paused == {"slow"}
    await limit(store, "acme", 20)
    assert await started(store) == ["fast"]
    await store.clients.pause("acme", "slow", paused=False)
    assert await started(store) == ["slow", "slow"]


async def test_a_pause_outlives_idleness_and_goes_with_the_client(opened: Opened, monkeypatch: Any) -> None:
    """Tidying up an idle client leaves its pause; deleting its settings ends it."""
    store = await opened()
    await admit(store)
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None)
    await store.clients.pause("acme", paused=True)
    monkeypatch.setattr("gateway.store.audit._IDLE_MS", -1)
    assert await violations(store) == []
    await admit(store)
    assert await started(store) == []
    await store.clients.delete("acme", cancel_tasks=False)
    assert await started(store) == ["default"]


async def test_a_paused_queue_counts_for_no_queue_of_its_client(opened: Opened) -> None:
    """What is paused takes nothing from MAX_QUEUES_PER_CLIENT."""
    store = await opened(MAX_QUEUES_PER_CLIENT="2")
    for queue in ("one", "two", "three", ""):
        await store.clients.pause("acme", queue, paused=True)
    await admit(store, queue="one")
    await admit(store, queue="two")


async def test_an_operator_pauses_and_resumes(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Over HTTP: what is enqueued meanwhile is accepted and delivered once resumed; the figures show it."""
    gw = await gateway()
    assert (await gw.admin("POST", "/admin/clients/pause?client_id=nobody"))[0] == 404
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client})
    status, body, _ = await gw.admin("POST", f"/admin/clients/pause?client_id={a_client}&queue=other")
    assert (status, body["paused"], body["paused_queues"]) == (200, False, ["other"])
    assert (await gw.admin("POST", f"/admin/clients/pause?client_id={a_client}"))[1]["paused"] is True
    task = {"client_id": a_client, "task": {"url": f"{target.url}/x"}}
    assert [(await gw.enqueue(task))[0] for _ in range(2)] == [201, 201]

    async def waits() -> bool:
        seen = (await gw.admin("GET", f"/admin/clients/usage?client_id={a_client}"))[1]
        return (seen["queued"], seen["in_flight"], seen["current_usage"]) == (2, 0, 2)

    await until(waits)
    assert target.calls == []
    usage = f"/admin/clients/usage?client_id={a_client}"
    await until(lambda: _oldest_waiting(gw, usage, lambda age: age is not None and age > 0))
    status, body, _ = await gw.admin("POST", f"/admin/clients/resume?client_id={a_client}")
    assert (status, body["paused"], body["rate_limit"]["max_concurrent"]) == (200, False, 3)
    await target.received(2)
    await until(lambda: _oldest_waiting(gw, usage, lambda age: age is None))
    status, body, _ = await gw.admin("POST", f"/admin/clients/pause?client_id={a_client}&queue=a.b")
    assert (status, body["error"]) == (400, "Invalid query")


async def _oldest_waiting(gw: Gateway, usage: str, says: Callable[[float | None], bool]) -> bool:
    return says((await gw.admin("GET", usage))[1]["oldest_waiting"])


async def test_what_was_handed_back_waits_since_it_was_due(opened: Opened) -> None:
    """The oldest task is the oldest, whether it was started before or not."""
    store = await opened()
    await admit(store)
    [task] = (await store.claims.claim("acme", 1)).tasks
    assert (await store.windows.usage("acme")).oldest_waiting is None
    await admit(store)
    newer = (await store.windows.usage("acme")).oldest_waiting
    await store.claims.hand_back([task])
    older = (await store.windows.usage("acme")).oldest_waiting
    assert newer is not None
    assert older is not None
    assert older > newer


async def test_the_commands(gateway: GatewayFactory, a_client: str) -> None:
    """`gateway clients pause`, `resume` and `usage` do and show it."""
    gw = await gateway(dispatch=False)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client})
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    paused = await run("clients", "pause", a_client, "--json", env=env)
    assert (paused.code, json.loads(paused.out)["paused"]) == (0, True)
    shown = await run("clients", "pause", a_client, "--queue", "slow", env=env)
    assert "all" in shown.out
    resumed = await run("clients", "resume", a_client, env=env)
    assert "slow" in resumed.out
    assert a_client in (await run("clients", "usage", a_client, env=env)).out
    unknown = await run("clients", "pause", "nobody", env=env)
    assert unknown.code != 0
    assert "nobody does not exist" in unknown.err
