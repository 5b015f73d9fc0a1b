"""How clients, their queues and the Redis servers stand at this moment; and a queue that is emptied."""

from conftest import GatewayFactory, Target
from deployments import Deployment
from stores import admit, limit, one_claim, outcome

from gateway.models import State, Verdict
from gateway.store import Store
from gateway.store.listing import parse_cursor
from gateway.store.windows import QueueFigures
from gateway.task_filter import TaskFilter


async def test_each_queue_is_told_apart(store: Store) -> None:
    """What waits, runs, is paused and waits longest; taken back counts as waiting; and how tasks ended of late."""
    running = await one_claim(store, queue="a")
    first = await admit(store, queue="a")
    await admit(store, queue="a")
    await admit(store, queue="b")
    await admit(store, queue="b", delay=60)
    await store.clients.pause("acme", "b", paused=True)
    seen = await store.windows.standings("acme")
    view = await store.tasks.view("acme", first)
    assert view is not None
    a, b = seen.queues
    assert a == QueueFigures("a", False, 2, 1, view.created_at)
    assert (b.name, b.paused, b.queued, b.in_flight) == ("b", True, 1, 0)
    assert (seen.ended, seen.dead) == (0, 0)
    assert seen.queued_bytes > 0
    await store.claims.hand_back([running])
    a = (await store.windows.standings("acme")).queues[0]
    assert (a.queued, a.in_flight) == (3, 0)
    assert a.oldest_waiting is not None
    assert a.oldest_waiting < view.created_at
    for verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.DELIVERED):
        [task] = (await store.claims.claim("acme", 1)).tasks
        await store.claims.finish(task, outcome(verdict), retry_in=None)
    seen = await store.windows.standings("acme")
    assert (seen.ended, seen.dead) == (3, 1)


async def test_the_rate_looks_back_no_further_than_all_results_reach(deployment: Deployment) -> None:
    """Where the index of results is full, the dead of before its first one are left out too."""
    async with deployment.store(MAX_RESULTS_PER_CLIENT="2") as store:
        await limit(store, "acme", 100)
        for verdict in (Verdict.REFUSED, Verdict.DELIVERED, Verdict.DELIVERED, Verdict.DELIVERED):
            await store.claims.finish(await one_claim(store), outcome(verdict), retry_in=None)
            clock = await store.jobs.now()
            while await store.jobs.now() <= clock:
                pass
        seen = await store.windows.standings("acme")
        assert seen.dead == 0
        assert seen.ended in {2, 3}  # results are trimmed now and then


async def test_active_clients_are_paged(store: Store) -> None:
    """Each once, whatever the page's size; idle ones with dead letters too."""
    names = [f"client-{number:02}" for number in range(40)]
    for name in names:
        await admit(store, name)
    for most in (7, 200):
        found: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = await store.listing.clients(None if cursor is None else parse_cursor(cursor), most)
            assert len(page) <= most
            found += page
            if cursor is None:
                break
        assert sorted(found) == names


async def test_a_purge_empties_one_queue(store: Store) -> None:
    """What waits in it is cancelled, delayed and retrying tasks included; what runs and other queues go on."""
    retrying = await one_claim(store, queue="a")
    await store.claims.finish(retrying, outcome(Verdict.RETRY, 503), retry_in=60)
    running = await one_claim(store, queue="a")
    ids = [await admit(store, queue="a"), await admit(store, queue="a", delay=60), retrying.task_id]
    other = await admit(store, queue="b")
    assert await store.steering.all("cancel", TaskFilter(client_id="acme", queue="a")) == 3
    for task_id in ids:
        view = await store.tasks.view("acme", task_id)
        assert view is not None
        assert view.state is State.CANCELLED
    seen = await store.windows.usage("acme")
    assert (seen.queued, seen.scheduled, seen.in_flight) == (1, 0, 1)
    assert [task.task_id for task in (await store.claims.claim("acme", 5)).tasks] == [other]
    await store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None)
    assert not (await store.audit.stretch(100)).violations


async def test_every_server_is_looked_at(store: Store, deployment: Deployment) -> None:
    """The one, the primary with its replicas, or every primary of a Cluster; with what each says of itself."""
    await admit(store)
    servers = await store.servers()
    assert servers.unreachable == []
    assert len(servers.found) == (3 if deployment.cluster else 1)
    assert sum(server.keys for server in servers.found) > 0
    for server in servers.found:
        assert server.health.role == "master"
        assert server.health.latency > 0
        assert server.health.memory_used <= server.memory_peak
        assert server.memory_policy == "noeviction"
        assert all(follower.state in {"online", "wait_bgsave", "send_bulk"} for follower in server.followers)


async def test_over_http(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """An operator sees a client's queues, the active clients, Redis, and purges a queue; the audit log has that."""
    gw = await gateway(dispatch=False)
    for queue in ("a", "a", "b"):
        await gw.enqueue({"client_id": a_client, "queue": queue, "task": {"url": f"{target.url}/x"}})
    seen = (await gw.admin("GET", f"/admin/clients/usage?client_id={a_client}"))[1]
    assert [(queue["queue"], queue["queued"]) for queue in seen["queues"]] == [("a", 2), ("b", 1)]
    assert (seen["error_rate"], seen["remaining"], seen["recent"]["seconds"]) == (None, 47, 300)
    page = (await gw.admin("GET", "/admin/clients/active?limit=5"))[1]
    assert ([client["client_id"] for client in page["clients"]], page["next_cursor"]) == ([a_client], None)
    path = f"/admin/queues/purge?client_id={a_client}"
    assert (await gw.admin("POST", f"{path}&queue=a"))[1] == {"client_id": a_client, "queue": "a", "tasks": 2}
    assert (await gw.admin("POST", path))[0] == 400
    [entry] = (await gw.admin("GET", "/admin/audit"))[1]["entries"]
    assert (entry["action"], entry["queue"], entry["tasks"]) == ("purge_queue", "a", 2)
    redis = (await gw.admin("GET", "/admin/redis"))[1]
    assert (redis["topology"], redis["unreachable"], len(redis["nodes"])) == ("single", [], 1)
    assert redis["nodes"][0]["memory_policy"] == "noeviction"
