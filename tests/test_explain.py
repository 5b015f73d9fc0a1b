"""Why a task does not run: each constraint by name, from the store over every deployment, and over HTTP."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from commands import run
from conftest import ADMIN_KEY, GatewayFactory, Target, until
from deployments import Deployment
from stores import admit, limit, one_claim, outcome

from gateway.middleware.answers import rfc3339
from gateway.middleware.explanation import explanation
from gateway.models import TaskView, Verdict
from gateway.presence import presence
from gateway.settings import Settings
from gateway.store import Store


@pytest.fixture
async def store(deployment: Deployment) -> AsyncIterator[Store]:
    async with deployment.store() as opened:
        await limit(opened, "acme", 2)
        yield opened


async def explained(store: Store, task_id: str, *, alive: bool = True) -> dict[str, Any]:
    standing = await store.tasks.explain("acme", task_id)
    assert standing is not None
    return explanation(standing, alive=alive)


async def test_each_constraint_is_named(store: Store) -> None:
    """One after the other: not due, starting, behind, no dispatcher, at its limit, running, paused, retrying, ended."""
    later = await explained(store, await admit(store, delay=60))
    assert (later["constraint"], later["until"] > later["since"]) == ("not_due", True)
    first, second, third = [await admit(store) for _ in range(3)]
    assert (await explained(store, first))["constraint"] == "starting"
    behind = await explained(store, third)
    assert (behind["constraint"], behind["message"]) == ("behind", "2 tasks are ahead of it in its queue")
    assert (await explained(store, first, alive=False))["constraint"] == "no_dispatcher"
    running, other = (await store.claims.claim("acme", 5)).tasks
    held = await explained(store, third)
    assert (held["constraint"], held["in_flight"], held["max_concurrent"]) == ("concurrency", 2, 2)
    assert sorted(held["blocking"]) == sorted([first, second])
    assert (await explained(store, first))["constraint"] == "running"
    await store.clients.pause("acme", "default", paused=True)
    assert (await explained(store, third))["constraint"] == "paused"
    await store.claims.finish(running, outcome(Verdict.RETRY, 503), retry_in=30)
    retrying = await explained(store, first)
    assert retrying["constraint"] == "waiting_to_retry"
    assert "ended with 503" in retrying["message"]
    assert retrying["until"] is not None
    await store.claims.finish(other, outcome(Verdict.REFUSED, 404), retry_in=None)
    ended = await explained(store, second)
    assert (ended["constraint"], ended["message"]) == ("ended", "it has ended: dead, http 404")
    assert await store.tasks.explain("other", first) is None


async def test_since_when_is_told(store: Store) -> None:
    """Since the task was due, or since what holds it began, the later; a target's Retry-After is told apart."""

    async def since(task_id: str, **given: Any) -> str:
        standing = await store.tasks.explain("acme", task_id)
        assert standing is not None
        told = explanation(standing, alive=True, **given)["since"]
        assert isinstance(told, str)
        return told

    def created(view: TaskView | None) -> str:
        assert view is not None
        return rfc3339(view.created_at) or ""

    first = await admit(store)
    clock = await store.jobs.now()

    async def later() -> bool:
        return await store.jobs.now() > clock + 1

    await until(later)
    await store.clients.pause("acme", paused=True)
    paused = await since(first)
    assert paused > created(await store.tasks.view("acme", first))
    assert not await store.clients.pause("acme", paused=True)
    assert await since(first) == paused
    second = await admit(store)
    assert await since(second) == created(await store.tasks.view("acme", second)) >= paused
    await store.clients.pause("acme", paused=False)
    third = await admit(store)
    tasks = (await store.claims.claim("acme", 5)).tasks
    assert len(tasks) == 2
    full = await since(third)
    await store.claims.finish(tasks[0], outcome(Verdict.RETRY, 503), retry_in=30, want=0)
    slow = msgspec.structs.replace(outcome(Verdict.RETRY, 429), retry_after=30.0)
    tasks = (await store.claims.claim("acme", 5)).tasks
    assert await since(await admit(store)) >= full
    started = msgspec.structs.replace(slow.attempt, started_at=await store.jobs.now())
    await store.claims.finish(tasks[0], msgspec.structs.replace(slow, attempt=started), retry_in=30)
    told = await explained(store, third)
    assert (told["constraint"], told["message"]) == (
        "retry_after",
        "attempt 1 of 6 ended with 429; the target asked to wait 30 s (Retry-After)",
    )
    assert (await explained(store, first))["constraint"] == "waiting_to_retry"


async def test_a_tasks_own_bound_is_what_holds_it(store: Store) -> None:
    """An override is explained by its own number, not by the client's."""
    for _ in range(2):
        await one_claim(store)
    task_id = await admit(store, bound=5)
    told = await explained(store, task_id)
    assert (told["constraint"], told["max_concurrent"]) == ("starting", 5)


async def test_processes_are_seen_while_they_run(store: Store) -> None:
    """With name, version and role, from the start to the end and no longer."""
    settings = Settings.load({}, {"ROLE": "dispatcher"})
    assert await store.replicas.all() == []
    async with presence(store, settings, None):

        async def seen() -> bool:
            return [replica.name for replica in await store.replicas.all()] == [store.consumer]

        await until(seen)
        [replica] = await store.replicas.all()
        assert (replica.role, replica.dispatches, replica.in_flight) == ("dispatcher", True, 0)
        assert 0 < replica.started_at <= replica.seen_at
    assert await store.replicas.all() == []
    seen_at = await store.replicas.last_dispatcher()
    assert seen_at == replica.seen_at
    waiting = await admit(store)
    standing = await store.tasks.explain("acme", waiting)
    assert standing is not None
    told = explanation(standing, alive=False, last_seen=2_000_000_000_000)
    assert (told["constraint"], told["since"]) == ("no_dispatcher", "2033-05-18T03:33:20.000Z")


async def test_over_http(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """The client's answer and the operator's are the same; without a dispatcher it says so; unknown is 404."""
    gw = await gateway(dispatch=False)
    _, task, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x"}})
    path = f"tasks/{task['task_id']}/explain?client_id={a_client}"
    status, told, _ = await gw.call("GET", f"/v1/{path}")
    assert (status, told["constraint"], told["state"]) == (200, "no_dispatcher", "queued")
    assert (await gw.admin("GET", f"/admin/{path}"))[1] == told
    async with presence(gw.store, gw.settings, None):

        async def alive() -> bool:
            return len((await gw.admin("GET", "/admin/replicas"))[1]["replicas"]) == 1

        await until(alive)
        assert (await gw.call("GET", f"/v1/{path}"))[1]["constraint"] == "starting"
    status, body, _ = await gw.call("GET", f"/v1/tasks/unknown/explain?client_id={a_client}")
    assert (status, body["error"]) == (404, "Task not found")


async def test_operators_show_and_cancel_any_task(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Operators see what the client sees; the audit log has the cancellation, and a second one is 409."""
    gw = await gateway(dispatch=False)
    _, task, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x"}})
    path = f"tasks/{task['task_id']}?client_id={a_client}"
    shown = (await gw.admin("GET", f"/admin/{path}"))[1]
    assert shown.items() >= (await gw.call("GET", f"/v1/{path}"))[1].items()
    assert (shown["method"], shown["url"], shown["history"]) == ("POST", f"{target.url}/x", [])
    assert (await gw.call("GET", f"/admin/{path}"))[0] == 401
    status, cancelled, _ = await gw.admin("DELETE", f"/admin/{path}")
    assert (status, cancelled["state"]) == (200, "cancelled")
    status, refused, _ = await gw.admin("DELETE", f"/admin/{path}")
    assert (status, refused["state"]) == (409, "cancelled")
    assert (await gw.admin("GET", f"/admin/tasks/unknown?client_id={a_client}"))[0] == 404
    [entry] = (await gw.admin("GET", "/admin/audit"))[1]["entries"]
    assert (entry["action"], entry["client_id"], entry["before"]) == ("cancel", a_client, {"task_id": task["task_id"]})


async def test_the_commands(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """`gateway tasks get|explain|cancel`, `gateway tiers` and `gateway replicas` show what the API says."""
    gw = await gateway(dispatch=False)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    _, task, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x"}})
    named = (task["task_id"], "--client", a_client)
    shown = await run("tasks", "get", *named, env=env)
    assert "queued" in shown.out
    assert "0 of 6" in shown.out
    told = await run("tasks", "explain", *named, env=env)
    assert told.out.startswith("queued: no process that makes calls is alive")
    assert json.loads((await run("tasks", "explain", *named, "--json", env=env)).out)["constraint"] == "no_dispatcher"
    assert "cancelled" in (await run("tasks", "cancel", *named, env=env)).out
    again = await run("tasks", "cancel", *named, env=env)
    assert (again.code, "only queued" in again.err) == (1, True)
    assert "enterprise" in (await run("tiers", env=env)).out
    async with presence(gw.store, gw.settings, None):
        listed = await run("replicas", env=env)
        assert gw.store.consumer in listed.out
    assert json.loads((await run("replicas", "--json", env=env)).out) == {"replicas": []}
