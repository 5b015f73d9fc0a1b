"""Ways to reach a Redis, and what is said where it can't be used: real servers, Valkey and Redis."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from certificates import Authority
from conftest import DEADLINE, until
from processes import GENEROUS
from proxy import proxy_to
from redis_servers import Server, binaries, server
from round_trip import SECRET, round_trip, store_on
from stores import admit, spec
from topologies import Cluster, Sentinels, cluster, sentinels

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.connection import arguments, ask


async def test_over_tcp_and_a_unix_socket_a_task_goes_its_whole_way(redis_server: Server) -> None:
    """Both addresses of one server serve, and a database of its own keeps apart what is in it."""
    for url in (redis_server.url, f"unix://{redis_server.socket}", f"{redis_server.url}/3"):
        with redis_server.client() as operator:
            operator.flushall()
        async with store_on(REDIS_URL=url) as store:
            await round_trip(store)
    with redis_server.client(db=3) as operator:
        assert operator.dbsize() > 0
    with redis_server.client() as operator:
        assert operator.dbsize() == 0


async def test_redis_addr_with_a_password_is_a_way_in(redis_server: Server) -> None:
    """REDIS_ADDR and REDIS_PASSWORD reach a server that asks for a password, whatever characters it has."""
    with redis_server.client() as operator:
        operator.flushall()
        operator.config_set("requirepass", SECRET)
    try:
        async with store_on(REDIS_ADDR=f"127.0.0.1:{redis_server.port}", REDIS_PASSWORD=SECRET) as store:
            await round_trip(store)
    finally:
        with redis_server.client(password=SECRET) as operator:
            operator.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ("", "set REDIS_PASSWORD"),
        (":wrong-one@", "check REDIS_PASSWORD"),
        ("nobody:wrong-one@", "check REDIS_PASSWORD"),
    ],
)
async def test_a_missing_or_wrong_password_says_what_to_set_and_is_never_logged(
    redis_server: Server, capfd: pytest.CaptureFixture[str], login: str, says: str
) -> None:
    """The 503 names the setting, the log line too, and no line holds a password."""
    with redis_server.client() as operator:
        operator.config_set("requirepass", SECRET)
    try:
        async with store_on(REDIS_URL=f"redis://{login}127.0.0.1:{redis_server.port}") as store:
            for call in (store.ping(), store.tasks.admit("acme", spec(), create=True)):
                with pytest.raises(StoreUnavailable, match=says) as refused:
                    await call
                assert not refused.value.unknown
    finally:
        with redis_server.client(password=SECRET) as operator:
            operator.config_set("requirepass", "")
    logged = "".join(capfd.readouterr())
    assert says in logged
    assert SECRET not in logged
    assert "wrong-one" not in logged


async def test_over_tls_the_servers_certificate_is_verified(
    redis_server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With its CA all works; with another, with none, and under another name it is refused with what to check."""
    right, other = Authority(tmp_path), Authority(tmp_path / "other")
    async with proxy_to(("127.0.0.1", redis_server.port), right.context) as line:
        with redis_server.client() as operator:
            operator.flushall()
        url = f"rediss://127.0.0.1:{line.port}"
        async with store_on(REDIS_URL=f"{url}?ssl_ca_certs={right.ca}") as store:
            await round_trip(store)
        for wrong in (url, f"{url}?ssl_ca_certs={other.ca}", f"rediss://localhost:{line.port}?ssl_ca_certs={right.ca}"):
            async with store_on(REDIS_URL=wrong) as store:
                with pytest.raises(StoreUnavailable, match="certificate can't be verified"):
                    await store.ping()
    assert "CERTIFICATE_VERIFY_FAILED" in "".join(capfd.readouterr())


async def test_over_tls_the_gateway_shows_a_certificate_where_the_server_wants_one(
    redis_server: Server, tmp_path: Path
) -> None:
    """With REDIS_TLS_CERT and _KEY all works; without a certificate, or with a foreign one, it says what is wrong."""
    right, other = Authority(tmp_path), Authority(tmp_path / "other")
    right.context.verify_mode = ssl.CERT_REQUIRED
    async with proxy_to(("127.0.0.1", redis_server.port), right.context) as line:
        with redis_server.client() as operator:
            operator.flushall()
        given = {"REDIS_URL": f"rediss://127.0.0.1:{line.port}", "REDIS_TLS_CA": str(right.ca)}
        async with store_on(**given, REDIS_TLS_CERT=str(right.cert), REDIS_TLS_KEY=str(right.key)) as store:
            await round_trip(store)
        for wrong in ({}, {"REDIS_TLS_CERT": str(other.cert), "REDIS_TLS_KEY": str(other.key)}):
            async with store_on(**given, **wrong) as store:
                with pytest.raises(StoreUnavailable, match="REDIS_TLS_CERT"):
                    await store.ping()


@pytest.mark.skipif("redis" not in binaries(), reason="no Redis is installed, and the embedded Valkey has no TLS")
@pytest.mark.parametrize("kind", [server, cluster, sentinels])
async def test_a_redis_of_any_kind_that_speaks_tls_itself_is_shown_a_certificate(
    kind: Callable[..., AbstractContextManager[Server | Cluster | Sentinels]], tmp_path: Path
) -> None:
    """All works, also with the nodes that a Cluster or the Sentinels name; none of them serves without it."""
    right = Authority(tmp_path)
    with kind(tls=right) as made:
        given = {"REDIS_URL": made.url, "REDIS_CLUSTER": str(kind is cluster)}
        async with store_on(**given, **right.environment, REDIS_TIMEOUT="5") as store:

            async def reached() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    await store.ping()
                    return True
                return False

            await until(reached, GENEROUS)
            await round_trip(store)
            for client_id in (f"client-{number}" for number in range(9)):  # on the other nodes, too
                await admit(store, client_id)
        for node in _nodes(made):
            settings = Settings.load({"REDIS_URL": node.url, "REDIS_TLS_CA": str(right.ca)})
            with pytest.raises(StoreUnavailable, match="REDIS_TLS_CERT"):
                await ask(arguments(settings, node.url), ("PING",))


def _nodes(made: Server | Cluster | Sentinels) -> list[Server]:
    if isinstance(made, Server):
        return [made]
    return made.nodes if isinstance(made, Cluster) else made.servers + made.sentinels


async def test_a_server_that_speaks_no_tls_is_out_of_reach_not_a_hang(redis_server: Server) -> None:
    """rediss:// to a plain port fails within the deadline."""
    async with store_on(REDIS_URL=f"rediss://127.0.0.1:{redis_server.port}", REDIS_TIMEOUT="1") as store:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(StoreUnavailable):
                await store.ping()


async def test_a_store_that_is_closed_while_it_connects_closes_at_once_and_leaks_nothing(redis_server: Server) -> None:
    """At whichever step of connecting it is: redis-py's own deadlines would swallow the cancellation at some."""
    url = redis_server.url

    async def open_and_close(turns: int) -> None:
        async with store_on(REDIS_URL=url) as store:
            pinging = asyncio.create_task(store.ping())
            for _ in range(turns):
                await asyncio.sleep(0)
            pinging.cancel()

    for turns in [*range(60)] * 3:
        await asyncio.wait_for(open_and_close(turns), DEADLINE)

    async with store_on(REDIS_URL=url) as store:
        await store.doorbell.subscribed.wait()
        front = store._front

        async def nobody_else() -> bool:
            clients = (await front.execute("CLIENT", "LIST", "TYPE", "normal")).splitlines()
            listening = (await front.execute("CLIENT", "LIST", "TYPE", "pubsub")).splitlines()
            return (len(clients), len(listening)) == (1, 1)

        await until(nobody_else)


async def test_script_flush_goes_unnoticed(redis_server: Server) -> None:
    """Scripts that Redis forgot are sent again in the same call."""
    with redis_server.client() as operator:
        operator.flushall()
        async with store_on(REDIS_URL=redis_server.url) as store:
            await admit(store)
            operator.script_flush()
            await admit(store)
            operator.script_flush()
            assert len((await store.claims.claim("acme", 5)).tasks) == 2
