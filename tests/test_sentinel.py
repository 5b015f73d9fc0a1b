"""A primary under Sentinels: who is asked, who is believed, and what a switch of the primary costs."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from conftest import DEADLINE, until
from deployments import UNHURRIED, Deployment
from redis_servers import Server, short_folder
from round_trip import round_trip, store_on
from stores import admit, spec, state
from topologies import SERVICE, Sentinels

from gateway.errors import StoreUnavailable
from gateway.models import Admitted, State
from gateway.store import Store

pytestmark = pytest.mark.parametrize("deployment", ["sentinel"], indirect=True)

NOBODY = "127.0.0.1:1"
PATIENCE = 60.0  # on a busy machine

T = TypeVar("T")


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """What is answered once the Sentinels are in reach: each has a second, and a busy machine may take longer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                if "out of reach" not in error.message:
                    raise
            await asyncio.sleep(0.05)


@asynccontextmanager
async def told_of(*primaries: int) -> AsyncIterator[str]:
    """Sentinels that name these ports, whoever may listen there, as `host:port,…`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            while line := await reader.readline():
                if line.upper().startswith(b"GET-MASTER"):
                    writer.write(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port))
                elif line.upper().startswith(b"MASTERS"):
                    writer.write(b"*0\r\n")
                elif line.upper().startswith((b"CLIENT", b"SELECT", b"AUTH")):
                    writer.write(b"+OK\r\n")
        finally:
            writer.close()

    servers = [
        await asyncio.start_server(lambda r, w, port=port: answer(r, w, port), "127.0.0.1", 0) for port in primaries
    ]
    try:
        yield ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
    finally:
        for server in servers:
            server.close()


async def test_all_works_where_some_sentinels_are_away(deployment: Deployment) -> None:
    """One that lives is enough, and the doorbell, the probes and the version check go the same way."""
    hosts = deployment.url.removeprefix("redis+sentinel://").partition(",")[0]
    async with store_on(REDIS_URL=f"redis+sentinel://{NOBODY},{hosts}/{SERVICE}", **UNHURRIED) as store:
        await answered(store.ping)
        await round_trip(store)
        assert deployment.sentinels is not None
        assert ("127.0.0.1", deployment.sentinels.primary().port) in store.nodes()  # no task may call it


async def test_no_sentinel_is_out_of_reach_not_a_hang(deployment: Deployment) -> None:
    """Nobody answers: a 503 within the deadline."""
    async with store_on(REDIS_URL=f"redis+sentinel://{NOBODY}/{SERVICE}", REDIS_TIMEOUT="5") as store:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(StoreUnavailable, match="out of reach"):
                await store.ping()


async def test_an_unknown_service_is_named(deployment: Deployment) -> None:
    """A misspelt service says so."""
    async with store_on(REDIS_URL=deployment.url.replace(f"/{SERVICE}", "/mian"), **UNHURRIED) as store:
        with pytest.raises(StoreUnavailable, match="No Sentinel knows a primary named 'mian'"):
            await answered(store.ping)


async def test_sentinels_with_a_password(deployment: Deployment) -> None:
    """REDIS_SENTINEL_PASSWORD opens them; without it, or with another, the message names the setting."""
    assert deployment.sentinels is not None
    with short_folder() as folder:
        config = folder / "sentinel.conf"
        primary = deployment.sentinels.primary().port
        config.write_text(f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 1\nrequirepass s3cret\n")
        sentinel = Server(folder, sentinel=config)
        try:
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
            async with store_on(REDIS_URL=url, REDIS_SENTINEL_PASSWORD="s3cret", **UNHURRIED) as store:
                await answered(store.ping)
            for wrong in ({}, {"REDIS_SENTINEL_PASSWORD": "other"}):
                async with store_on(REDIS_URL=url, **wrong, **UNHURRIED) as store:
                    with pytest.raises(StoreUnavailable, match="check REDIS_SENTINEL_PASSWORD") as refused:
                        await answered(store.ping)
                    assert "s3cret" not in str(refused.value)
        finally:
            sentinel.kill()


async def test_a_replica_is_not_believed_to_be_the_primary(deployment: Deployment) -> None:
    """Named beside the primary it is passed over; named by all it is an error that says what was named."""
    assert deployment.sentinels is not None
    primary = deployment.sentinels.primary()
    replica = next(server for server in deployment.sentinels.servers if server is not primary)
    async with (
        told_of(replica.port, replica.port, primary.port) as hosts,
        store_on(REDIS_URL=f"redis+sentinel://{hosts}/{SERVICE}", **UNHURRIED) as store,
    ):
        await answered(lambda: admit(store))
    async with (
        told_of(replica.port) as hosts,
        store_on(REDIS_URL=f"redis+sentinel://{hosts}/{SERVICE}", **UNHURRIED) as store,
    ):
        wrong = f"The Sentinels name 127.0.0.1:{replica.port}, which is a replica"
        with pytest.raises(StoreUnavailable, match=re.escape(wrong)):
            await answered(store.ping)


async def test_a_switch_in_order_loses_nothing_and_is_followed(deployment: Deployment) -> None:
    """SENTINEL FAILOVER while tasks come in: each that was accepted is there once, and writes go on by themselves."""
    assert deployment.sentinels is not None
    before = deployment.sentinels.primary()
    accepted: list[str] = []
    stop = asyncio.Event()

    async def load(store: Store) -> None:
        while not stop.is_set():
            try:
                admitted = await store.tasks.admit("acme", spec(requests_per_min=10**9), create=True)
                assert isinstance(admitted, Admitted)
                accepted.append(admitted.task_id)
            except StoreUnavailable:
                await asyncio.sleep(0.01)

    # The old primary takes writes until it hears of its successor, and one replica may still follow it then.
    async with deployment.store(DURABILITY="wait", DURABILITY_REPLICAS="2") as store:
        loading = asyncio.create_task(load(store))
        await until(lambda: len(accepted) > 20, PATIENCE)
        await asyncio.to_thread(deployment.sentinels.failover)
        count = len(accepted)
        await until(lambda: len(accepted) > count + 20, PATIENCE)
        stop.set()
        await loading
        assert deployment.sentinels.primary() is not before
    async with deployment.store(**UNHURRIED) as store:
        await answered(store.ping)
        assert [await state(store, task_id) for task_id in accepted] == [State.QUEUED] * len(accepted)
    assert len(set(accepted)) == len(accepted)


async def test_every_server_is_known_for_what_no_task_may_call(
    deployment: Deployment, session_sentinels: Sentinels
) -> None:
    """The Sentinels, the primary, and the replicas, also those that were never primary."""
    async with deployment.store() as store:
        servers = {*session_sentinels.servers, *session_sentinels.sentinels}
        await until(lambda: set(store.nodes()) == {("127.0.0.1", server.port) for server in servers}, PATIENCE)
