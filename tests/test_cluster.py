"""A Redis Cluster whose slots move, whose nodes refuse, and whose data is split otherwise than the gateway thinks."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis as plain
from conftest import until
from deployments import UNHURRIED, Deployment
from redis.crc import key_slot
from redis_servers import Server, eventually
from stores import Taker, admit, outcome, spec, state
from topologies import Cluster

import gateway.store
from gateway.errors import StoreUnavailable
from gateway.models import Admitted, State, Verdict
from gateway.store.batching import MultiplexedLink
from gateway.store.cluster import RedisCluster

pytestmark = pytest.mark.parametrize("deployment", ["cluster"], indirect=True)

Slot = tuple[int, Server, Server]


@pytest.fixture
def slot(deployment: Deployment, session_cluster: Cluster) -> Slot:
    """The slot of the client acme, the primary that has it, and another primary."""
    number = key_slot(deployment.key("").encode())
    owner = session_cluster.owner(number)
    return number, owner, next(node for node in session_cluster.nodes[:3] if node is not owner)


def ask(node: Server, *command: Any) -> Any:
    with node.client() as client:
        return client.execute_command(*command)


@contextmanager
def moving(slot: Slot) -> Iterator[Callable[[int], int]]:
    """The slot is on its way: call for so many keys to go over. At the end all of it has moved there and back."""
    number, source, to = slot

    def begin(source: Server, to: Server) -> None:
        ask(to, "CLUSTER", "SETSLOT", number, "IMPORTING", ask(source, "CLUSTER MYID"))
        ask(source, "CLUSTER", "SETSLOT", number, "MIGRATING", ask(to, "CLUSTER MYID"))

    def move(source: Server, to: Server, count: int) -> int:
        keys = ask(source, "CLUSTER", "GETKEYSINSLOT", number, count)
        if keys:
            ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def finish(source: Server, to: Server) -> None:
        while move(source, to, 100):
            pass
        for node in (to, source):
            ask(node, "CLUSTER", "SETSLOT", number, "NODE", ask(to, "CLUSTER MYID"))

    begin(source, to)
    try:
        yield lambda count: move(source, to, count)
    finally:
        finish(source, to)
        begin(to, source)
        finish(to, source)


def contents(slot: Slot) -> dict[bytes, bytes]:
    """What is in the slot, on either side."""
    number, *nodes = slot
    found = {}
    for node in nodes:
        with plain.Redis(unix_socket_path=str(node.socket), single_connection_client=True) as client:
            for key in client.execute_command("CLUSTER", "GETKEYSINSLOT", number, 1000):
                client.execute_command("ASKING")
                found[key] = client.dump(key)
    return found


def refused(slot: Slot) -> int:
    """How often the two have answered TRYAGAIN."""
    counts = (ask(node, "INFO", "errorstats").get("errorstat_TRYAGAIN", {}) for node in slot[1:])
    return sum(int(count.get("count", 0)) for count in counts)


async def test_a_slot_that_moved_in_part_is_left_alone_until_it_has_moved(deployment: Deployment, slot: Slot) -> None:
    """With some keys here and some there every script fails before its first write; after the move all goes on."""
    async with deployment.store(REDIS_TIMEOUT="0.3") as store:
        first, second = await admit(store), await admit(store)
        (running,) = (await store.claims.claim("acme", 1)).tasks
        whole = contents(slot)
        with moving(slot) as move:
            for share in (1, len(whole) // 2, len(whole)):  # the first, more, the last
                move(share)
                for call in (
                    store.tasks.admit("acme", spec(), create=False),
                    store.tasks.admit("acme", spec(), create=False, claimer=Taker(2)),
                    store.claims.claim("acme", 5),
                    store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None),
                ):
                    with pytest.raises(StoreUnavailable, match="moving this client's data"):
                        await call
            assert contents(slot) == whole
        assert (await store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None)).owned
        assert await state(store, first) == State.SUCCEEDED
        assert [task.task_id for task in (await store.claims.claim("acme", 5)).tasks] == [second]


async def test_what_is_begun_is_on_its_way_before_it_is_awaited(deployment: Deployment, slot: Slot) -> None:
    """Once its node is known and connected, as on a single server: Redis has it although the loop does nothing
    meanwhile. Before that it is sent when it is awaited; and it is followed to where it is redirected."""
    _, owner, _ = slot
    cluster = RedisCluster(deployment.settings(**UNHURRIED), deployment.url, deployment.keyspace)
    link = cluster.link(lambda dial: MultiplexedLink("test", dial, 30))
    key = deployment.key("begun")
    try:
        assert await link.begin("SET", key, "x") == b"OK"
        sent = link.begin("SET", key, "x" * 5000)
        eventually(lambda: ask(owner, "STRLEN", key) == 5000)
        assert await sent == b"OK"
        with moving(slot) as move:
            assert move(100) == 1
            assert await link.begin("STRLEN", key) == 5000
    finally:
        await link.close()


async def test_a_stream_that_went_ahead_of_its_client_is_not_taken_for_lost(deployment: Deployment, slot: Slot) -> None:
    """Where all keys that a script declares are still there, one that it names itself may not be: it is not run."""
    async with deployment.store(REDIS_TIMEOUT="0.3") as store, deployment.raw() as raw:
        await store.clients.update("acme", lambda old: old or store.clients.new("acme"))
        for verdict in (Verdict.DELIVERED, Verdict.REFUSED):
            await admit(store)
            (task,) = (await store.claims.claim("acme", 1)).tasks
            await store.claims.finish(task, outcome(verdict, 404), retry_in=None)
        await admit(store, delay=60)
        for _ in range(3):
            await admit(store)
        running, returned = (await store.claims.claim("acme", 2)).tasks
        await store.claims.hand_back([returned])
        scope, _ = deployment.keyspace.scope(deployment.keyspace.partition("acme"))
        assert await raw.exists(*scope) == len(scope)
        _, source, to = slot
        with moving(slot):
            key = deployment.key("stream:acme:default")
            ask(source, "MIGRATE", "127.0.0.1", to.port, key, 0, 5000)
            with pytest.raises(StoreUnavailable, match="moving this client's data"):
                await store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None)
        assert (await store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None)).owned


async def test_a_call_waits_out_a_slot_that_moves(deployment: Deployment, slot: Slot) -> None:
    """Asked for while the slot moves, done once it has: TRYAGAIN, ASK and MOVED are followed within REDIS_TIMEOUT."""
    async with deployment.store(REDIS_TIMEOUT="10") as store:
        await admit(store)
        await store.clients.get("acme")
        with moving(slot) as move:
            store.clients.forget()
            while move(1):
                assert await store.clients.get("acme") is not None  # a single key is asked for on either side
                store.clients.forget()
            before = refused(slot)
            waiting = asyncio.create_task(store.tasks.admit("acme", spec(), create=False))
            await until(lambda: refused(slot) > before)
            assert not waiting.done()
        assert isinstance(await waiting, Admitted)
        assert len((await store.claims.claim("acme", 5)).tasks) == 2


async def test_a_slot_that_moves_as_a_whole_is_followed(deployment: Deployment, slot: Slot) -> None:
    """Valkey 9 moves a slot at one blow (CLUSTER MIGRATESLOTS), under load: nothing is lost, nothing is doubled."""
    number, owner, other = slot
    if "MIGRATESLOTS" not in str(ask(owner, "CLUSTER HELP")):
        pytest.skip("this server has no CLUSTER MIGRATESLOTS")
    accepted: list[str] = []

    async with deployment.store(REDIS_TIMEOUT="5") as store:

        async def load() -> None:
            while True:
                accepted.append(await admit(store, requests_per_min=10**9))

        loading = asyncio.create_task(load())
        for source, to in ((owner, other), (other, owner)):
            count = len(accepted)
            await until(lambda count=count: len(accepted) > count + 50)
            target = await asyncio.to_thread(ask, to, "CLUSTER MYID")
            ask(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", number, number, "NODE", target)
            await until(lambda to=to: deployment.cluster is not None and deployment.cluster.owner(number) is to, 30)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        usage = await store.windows.usage("acme")
        assert len(accepted) <= usage.queued <= len(accepted) + 1  # one was on its way
        assert [await state(store, task_id) for task_id in accepted] == [State.QUEUED] * len(accepted)


async def test_a_slot_that_nobody_serves_is_a_503_and_the_others_go_on(deployment: Deployment, slot: Slot) -> None:
    """CLUSTERDOWN says so; once the slot is served again all goes on by itself."""
    number, owner, _ = slot
    async with deployment.store(REDIS_TIMEOUT="1") as store:
        await admit(store)
        ask(owner, "CLUSTER", "DELSLOTS", number)
        try:
            with pytest.raises(StoreUnavailable, match=r"Cluster is down|no node for this client"):
                await store.tasks.admit("acme", spec(), create=False)
        finally:
            ask(owner, "CLUSTER", "ADDSLOTS", number)

        async def served() -> bool:
            try:
                return isinstance(await store.tasks.admit("acme", spec(), create=False), Admitted)
            except StoreUnavailable:
                return False

        await until(served)


async def test_scripts_that_the_nodes_forgot_are_sent_again(deployment: Deployment, session_cluster: Cluster) -> None:
    """NOSCRIPT goes unnoticed on every node."""
    async with deployment.store() as store:
        for client_id in ("acme", "other", "third"):
            for node in session_cluster.nodes[:3]:
                ask(node, "SCRIPT", "FLUSH")
            await admit(store, client_id)
        await store.ping()
        await store.greet()


async def test_another_number_of_partitions_is_refused(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that would look for clients elsewhere is told what the data was stored with, and stores nothing."""
    async with deployment.store() as store, deployment.raw() as raw:
        await admit(store)
        before = sorted(await raw.keys("*"))
        monkeypatch.setattr(gateway.store, "PARTITIONS_ON_CLUSTER", 32)
        async with deployment.store() as other:
            for call in (other.tasks.admit("acme", spec(), create=True), other.ping()):
                with pytest.raises(StoreUnavailable, match="in 64 partitions and this gateway would use 32"):
                    await call
        assert sorted(await raw.keys("*")) == before


async def test_clients_of_all_partitions_are_found(deployment: Deployment) -> None:
    """Two hundred clients over three nodes: ready, due, listed, counted and audited, each once."""
    names = [f"client-{number}" for number in range(200)]
    async with deployment.store() as store:
        await asyncio.gather(*(admit(store, name) for name in names))
        await asyncio.gather(*(admit(store, name, delay=0.01) for name in names))
        assert sorted(await store.claims.ready(1000)) == sorted(names)
        assert len(await store.claims.ready(10)) == 10
        assert sorted(client.client_id for client in (await store.figured.look()).clients) == sorted(names)

        async def promoted() -> bool:
            return await store.claims.promote_due(1000) is None

        await until(promoted)
        page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
        assert [client.client_id for client in page.clients] == sorted(names)
        claims = await asyncio.gather(*(store.claims.claim(name, 5) for name in names))
        assert [len(claim.tasks) for claim in claims] == [2] * 200
        audited = {name: found async for name, found in store.audit.everything(mend=False)}
        assert audited == {name: [] for name in names}


async def test_a_bound_on_all_is_shared_out(deployment: Deployment) -> None:
    """No script sees more than one partition: each has its share, and at least what one client may have."""
    share = deployment.keyspace.share
    assert (share(6400), share(10), share(6400, 1000), share(500, 1000)) == (100, 1, 1000, 500)
