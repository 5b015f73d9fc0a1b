"""What is said and kept where a Redis that answers can't be used, or not for all: full, read-only, loading, too old."""

import asyncio
from typing import Any

import pytest
from conftest import until
from redis_servers import Server, server
from round_trip import store_on
from stores import admit, outcome, spec, state

from gateway.errors import StoreUnavailable
from gateway.models import State, Verdict
from gateway.store.connection import too_old


async def test_a_full_memory_refuses_what_adds_and_lets_drain_what_is_there(redis_server: Server) -> None:
    """With `noeviction` admit is a 503 that says why; claim, retry, promote, renew, finish, cancel go on."""
    with redis_server.client() as operator:
        operator.flushall()
        async with store_on(REDIS_URL=redis_server.url) as store:
            ids = [await admit(store) for _ in range(4)]
            operator.config_set("maxmemory", "1")
            try:
                with pytest.raises(StoreUnavailable, match="out of memory") as refused:
                    await store.tasks.admit("acme", spec(), create=False)
                assert not refused.value.unknown
                await store.ping()  # what is there drains, so this is no reason to be taken out of service
                first, second = (await store.claims.claim("acme", 2)).tasks
                assert await store.claims.renew([first]) == []
                assert (await store.claims.finish(first, outcome(Verdict.DELIVERED), retry_in=None)).owned
                assert (await store.claims.finish(second, outcome(Verdict.RETRY, 503), retry_in=0)).owned

                async def due() -> bool:
                    await store.claims.promote_due(10)
                    return await state(store, ids[1]) == State.QUEUED

                await until(due)
                cancelled = await store.tasks.cancel("acme", ids[2])
                assert cancelled is not None
                assert cancelled[1]
                await store.claims.reclaim_lapsed(10)
                await store.claims.hand_back((await store.claims.claim("acme", 1)).tasks)
            finally:
                operator.config_set("maxmemory", "0")
            await admit(store)


async def test_a_replica_is_not_ready_and_says_so(redis_server: Server) -> None:
    """READONLY is a 503 that names it, for the probe too; the same server promoted serves at once."""
    with redis_server.client() as operator:
        operator.flushall()
        async with store_on(REDIS_URL=redis_server.url) as store:
            await admit(store)
            operator.replicaof("127.0.0.1", "1")
            operator.config_set("replica-serve-stale-data", "yes")
            try:
                for call in (store.tasks.admit("acme", spec(), create=False), store.ping()):
                    with pytest.raises(StoreUnavailable, match="is a replica"):
                        await call
                operator.config_set("replica-serve-stale-data", "no")
                with pytest.raises(StoreUnavailable, match=r"lost its primary|is a replica"):
                    await store.ping()
            finally:
                operator.config_set("replica-serve-stale-data", "yes")
                operator.replicaof("NO", "ONE")

            async def ready() -> bool:
                try:
                    await store.ping()
                except StoreUnavailable:
                    return False
                return True

            await until(ready)
            await admit(store)


async def test_a_disk_that_can_not_be_written_is_not_ready_and_loses_nothing(redis_server: Server) -> None:
    """MISCONF refuses every write with a clear 503 and unreadiness; once the disk is back, so is the gateway."""
    with redis_server.client() as operator:
        operator.flushall()
        async with store_on(REDIS_URL=redis_server.url) as store:
            task_id = await admit(store)
            blocked = redis_server.folder / "dump.rdb"
            blocked.mkdir()
            operator.config_set("save", "3600 1000000")
            try:
                operator.execute_command("BGSAVE")
                await until(lambda: operator.info("persistence")["rdb_last_bgsave_status"] == "err")
                for call in (
                    lambda: store.tasks.admit("acme", spec(), create=False),
                    store.ping,
                    lambda: store.claims.claim("acme", 1),
                ):
                    with pytest.raises(StoreUnavailable, match="can't persist") as refused:
                        await call()
                    assert not refused.value.unknown
            finally:
                operator.config_set("save", "")
                blocked.rmdir()
            await store.ping()
            assert [task.task_id for task in (await store.claims.claim("acme", 1)).tasks] == [task_id]


async def test_a_server_that_loads_its_data_is_unavailable_until_it_has(redis_server: Server) -> None:
    """LOADING is a 503 that says so; the link needs no help to go on afterwards."""
    options = ("--appendonly", "yes", "--enable-debug-command", "yes")
    with server(*options, binary=redis_server.binary) as own, own.client() as operator:
        operator.execute_command("DEBUG", "POPULATE", "2000")
        operator.execute_command("BGREWRITEAOF")
        await until(lambda: operator.info("persistence")["aof_rewrite_in_progress"] == 0)
        operator.config_set("key-load-delay", "3000")
        operator.config_set("loading-process-events-interval-bytes", "1024")
        async with store_on(REDIS_URL=own.url, REDIS_TIMEOUT="5") as store:
            await store.ping()
            reload = asyncio.create_task(asyncio.to_thread(_reload, own))
            said: set[str] = set()

            async def loading() -> bool:
                try:
                    await store.ping()
                except StoreUnavailable as error:
                    said.add(error.message)
                return "Redis is loading its data." in said

            await until(loading)
            operator_gone = own.client()
            operator_gone.config_set("key-load-delay", "0")
            operator_gone.close()
            await reload
            await store.ping()


def _reload(own: Server) -> None:
    with own.client(socket_timeout=60) as operator:
        operator.execute_command("DEBUG", "LOADAOF")


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        ({"redis_version": "7.0.15"}, None),
        ({"redis_version": "6.2.14"}, "Redis 6.2.14 is too old: the gateway needs Redis 7.0 or Valkey 7.2 at least."),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.4"}, None),
        (
            {"redis_version": "7.2.4", "valkey_version": "7.0.0"},
            "Valkey 7.0.0 is too old: the gateway needs Redis 7.0 or Valkey 7.2 at least.",
        ),
        ({"redis_version": "255.255.255"}, None),
    ],
)
def test_a_server_that_is_too_old_is_named(info: dict[str, Any], complaint: str | None) -> None:
    """Redis before 7.0 and Valkey before 7.2 are named with what is needed."""
    assert too_old(info) == complaint


async def test_a_server_that_may_evict_is_warned_about(redis_server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """Any maxmemory-policy but noeviction is a warning with what to set."""
    with redis_server.client() as operator:
        operator.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with store_on(REDIS_URL=redis_server.url) as store:
                await store.greet()
        finally:
            operator.config_set("maxmemory-policy", "noeviction")
    assert "set maxmemory-policy to noeviction" in "".join(capfd.readouterr())
