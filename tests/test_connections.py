"""Ways to reach a Redis, and what is said where it can't be used: real servers, Valkey and Redis."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from conftest import DEADLINE, until
from processes import GENEROUS
from proxy import proxy_to
from test_store import admit, outcome, spec, state
from topologies import Cluster, Sentinels, Server, binaries, cluster, sentinels, server

import gateway.store
from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.metrics.tally import REFUSED
from gateway.models import State, Verdict
from gateway.presence import presence
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.connection import arguments, ask, too_old
from gateway.store.counting import Booking
from gateway.store.journal import Change
from gateway.task_filter import TaskFilter

SECRET = "s3cr3t-with-@-and-:"
QUOTED = "s3cr3t-with-%40-and-%3A"


@pytest.fixture(params=sorted(binaries()), scope="module")
def redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Valkey, then a Redis."""
    with server(binary=binaries()[request.param]) as made:
        yield made


@asynccontextmanager
async def store_on(**environment: str) -> AsyncIterator[Store]:
    settings = Settings.load(environment)
    assert settings.redis_url is not None
    async with open_store(settings, settings.redis_url) as store:
        yield store


async def round_trip(store: Store) -> None:
    """A task's whole way, and everything else the gateway asks of its Redis."""
    await store.ping()
    await store.greet()
    async with asyncio.timeout(DEADLINE):
        await store.doorbell.subscribed.wait()
    task_id = await admit(store, idempotency_key="k")
    assert await store.claims.ready(10) == ["acme"]
    (task,) = (await store.claims.claim("acme", 1)).tasks
    assert await store.claims.renew([task]) == []
    await store.claims.hand_back([task])
    (task,) = (await store.claims.claim("acme", 1)).tasks
    assert await store.claims.hand_back_unknown("acme", [task]) == 0
    await store.claims.finish(task, outcome(Verdict.RETRY, 503), retry_in=0)

    async def due() -> bool:
        await store.claims.promote_due(10)
        return await state(store, task_id) == State.QUEUED

    await until(due)
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None, want=1)
    assert await state(store, task_id) == State.SUCCEEDED
    delayed = await admit(store, delay=60)
    cancelled = await store.tasks.cancel("acme", delayed)
    assert cancelled is not None
    assert cancelled[1]
    await store.claims.reclaim_lapsed(10)
    assert (await store.audit.stretch(10)).violations == []
    await store.windows.usage("acme")
    metrics.take_usage()
    metrics.rate_limited("acme", "free")
    metrics.attempt("acme", "http://target/", outcome(Verdict.RETRY, 503))
    await Booking(store.usages).flush()
    figures = await store.figured.latest(store.consumer)
    assert (figures.scheduled, figures.dead) == (0, 0)
    assert [name for name, _ in await store.usages.most(REFUSED, figures.at / 1000, 1)] == ["acme"]
    assert (await store.usages.failures(figures.at / 1000)).by_status == [("503", 1)]
    assert (await store.health()).persistence_ok
    assert (await store.clients.get("acme")) is not None
    page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
    assert page.count == 1
    await store.clients.update("acme", lambda client: client or store.clients.new("acme"))
    await operate(store)
    await admit(store)
    assert await store.clients.delete("acme", cancel_tasks=True) == 1


async def operate(store: Store) -> None:
    """What operators ask for: a pause, dead letters, explanations, who is there."""
    for paused in (True, False):
        assert await store.clients.pause("acme", paused=paused)
    made, _ = await store.signing.create("acme")
    assert await store.signing.remove("acme", made.secret_id)
    key, _ = await store.client_keys.create("acme")
    assert await store.client_keys.revoke("acme", key.key_id)
    assert await store.client_keys.release("acme")
    dead = await admit(store)
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.REFUSED, 404), retry_in=None)
    letters = TaskFilter(client_id="acme", states=frozenset({State.DEAD}))
    assert len((await store.listing.page(letters, cursor=None, limit=1, newest=True)).tasks) == 1
    assert await store.steering.all("replay", letters) == 1
    assert await store.tasks.explain("acme", dead) is not None
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.REFUSED, 404), retry_in=None)
    assert await store.steering.all("purge", letters) == 1
    job = await store.jobs.create("purge", letters, dry_run=True, asked={}, address="", key=None, request_id="")
    assert await store.jobs.get(job.job_id) is not None
    await store.journal.note(Change(action="set", address="::1", request_id="r"))
    assert len((await store.journal.page(before=None, limit=5))[0]) == 1
    async with presence(store, Settings.load({}), None):

        async def seen() -> bool:
            return len(await store.replicas.all()) == 1

        await until(seen)


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


def minimal_acl() -> list[str]:
    """The rules of docs/troubleshooting.md."""
    text = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("user gateway ")]
    return line.removeprefix("user gateway ").replace("CHANGE-ME", SECRET).split()


async def test_the_documented_acl_is_enough_for_everything_the_gateway_does(redis_server: Server) -> None:
    """A whole round trip, subscription and greeting included, as the user of docs/troubleshooting.md: none denied."""
    with redis_server.client() as operator:
        operator.flushall()
        known = "valkey_version" in operator.info("server")
        rules = [rule for rule in minimal_acl() if known or rule != "+waitaof"]
        operator.execute_command("ACL", "SETUSER", "gateway", "reset", *rules)
        operator.execute_command("ACL", "LOG", "RESET")
        async with store_on(REDIS_URL=f"redis://gateway:{QUOTED}@127.0.0.1:{redis_server.port}") as store:
            await round_trip(store)
        assert operator.execute_command("ACL", "LOG") == []
        operator.execute_command("ACL", "DELUSER", "gateway")


def test_the_documented_acl_names_what_the_scripts_call() -> None:
    """Every command of every script is in it, ways that a round trip seldom takes included, and no other but these."""
    scripts = Path(gateway.store.__file__).parent
    called = {
        name.lower()
        for path in scripts.rglob("*.lua")
        for name in re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())
    }
    outside = {
        "evalsha",
        "eval",
        "mget",
        "scan",
        "zrevrank",
        "xrevrange",
        "ping",
        "info",
        "config",
        "client",
        "subscribe",
        "publish",
    }
    several = {"ssubscribe", "spublish", "asking", "cluster", "role", "wait", "waitaof"}
    allowed = {rule[1:].partition("|")[0] for rule in minimal_acl() if rule.startswith("+")}
    assert allowed == called | outside | several


async def test_a_user_without_permissions_is_told_and_redis_names_the_command_in_the_log(
    redis_server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """NOPERM is a clear 503, and the log says which command was denied."""
    with redis_server.client() as operator:
        operator.execute_command("ACL", "SETUSER", "gateway", "reset", "on", f">{SECRET}", "~*", "&*", "+client")
        async with store_on(REDIS_URL=f"redis://gateway:{QUOTED}@127.0.0.1:{redis_server.port}") as store:
            with pytest.raises(StoreUnavailable, match="lacks a permission"):
                await store.tasks.admit("acme", spec(), create=True)
        operator.execute_command("ACL", "DELUSER", "gateway")
    logged = "".join(capfd.readouterr())
    assert "hgetall" in logged
    assert SECRET not in logged


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
