"""The egress rule: which addresses may be called, by text and at the dial."""

import doctest
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import GatewayFactory, until
from raw_http import a_task
from redis_servers import valkey_server
from structlog.testing import capture_logs

from gateway import metrics
from gateway.dispatch import egress, hosts
from gateway.dispatch.egress import EgressGuard, TargetRefused
from gateway.dispatch.sender import HttpSender
from gateway.errors import StoreUnavailable
from gateway.models import Verdict
from gateway.settings import Settings
from gateway.store import open_store
from gateway.store.link import CommandError


def dials(guard: EgressGuard, address: str, port: int = 80, host: str | None = None) -> bool:
    try:
        guard.check_dial(address, port, host)
    except TargetRefused:
        return False
    return True


def test_docstring_examples_hold() -> None:
    """The examples a reader of the module sees are what it does."""
    result = doctest.testmod(hosts)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("127.0.0.1:9000", [("127.0.0.1", 9000)], [("127.0.0.1", 9001), ("127.0.0.2", 9000), ("::1", 9000)]),
        ("127.0.0.1", [("127.0.0.1", 1), ("127.0.0.1", 9001)], [("127.0.0.2", 1)]),
        ("127.0.0.0/8", [("127.9.9.9", 1)], [("::1", 1)]),
        ("127.0.0.0/8:70", [("127.9.9.9", 70)], [("127.9.9.9", 71)]),
        ("[::1]:9000", [("::1", 9000)], [("::1", 9001), ("127.0.0.1", 9000)]),
        ("::1", [("::1", 5)], [("127.0.0.1", 5)]),
        ("127.0.0.1:9000", [("::ffff:127.0.0.1", 9000)], [("::ffff:127.0.0.1", 1)]),
    ],
)
def test_allow_entries(entry: str, allowed: list[tuple[str, int]], refused: list[tuple[str, int]]) -> None:
    """An entry of OUTBOUND_ALLOW opens exactly what it names."""
    guard = EgressGuard([entry])
    assert all(dials(guard, *target) for target in allowed)
    assert not any(dials(guard, *target) for target in refused)


def test_name_entry_holds_for_the_urls_name() -> None:
    """`localhost:9000` opens loopback for URLs that say localhost, not for another name that resolves
    there."""
    guard = EgressGuard(["localhost:9000"])
    assert dials(guard, "127.0.0.1", 9000, "localhost")
    assert dials(guard, "::1", 9000, "LocalHost.")
    assert not dials(guard, "127.0.0.1", 9001, "localhost")
    assert not dials(guard, "127.0.0.1", 9000, "evil.example")
    assert not dials(guard, "127.0.0.1", 9000, "127.0.0.1")


def test_own_listeners_are_never_dialled() -> None:
    """The gateway's listeners and its Redis stay closed, though OUTBOUND_ALLOW and UPSTREAM_URL name them."""
    guard = EgressGuard(
        ["127.0.0.0/8", "localhost"],
        True,
        "http://127.0.0.1:8080",
        [("127.0.0.1", 8080), ("0.0.0.0", 8081), ("redis.internal", 6379), ("localhost", 7000)],
    )
    assert not dials(guard, "127.0.0.1", 8080)
    assert dials(guard, "127.0.0.1", 8082)
    assert not dials(guard, "127.0.0.1", 8081), "a wildcard listener answers on every local address"
    assert not dials(guard, "10.1.2.3", 6379, "redis.internal")
    assert not dials(guard, "127.0.0.1", 7000)
    assert dials(guard, "192.0.2.1", 8081)
    guard.add_own("10.1.2.3", 6379)
    assert not dials(guard, "10.1.2.3", 6379, "other.name")
    assert guard.check_literal("http://127.0.0.1:8081/") is not None


def test_upstream_origin_is_allowed() -> None:
    """UPSTREAM_URL's origin may be called though it is loopback; its other ports may not."""
    guard = EgressGuard([], True, "http://127.0.0.1:9000/base")
    assert guard.check_literal("http://127.0.0.1:9000/x") is None
    assert dials(guard, "127.0.0.1", 9000)
    assert guard.check_literal("http://127.0.0.1:9001/x") is not None
    named = EgressGuard([], False, "http://service:9000")
    assert dials(named, "127.0.0.1", 9000, "service")
    assert not dials(named, "127.0.0.1", 9000, "other")


def test_private_networks_are_a_setting() -> None:
    """Private networks are open by default; OUTBOUND_ALLOW_PRIVATE=false closes them and the message says
    so."""
    private = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "fd12::1", "100.64.0.1", "::ffff:10.0.0.1"]
    assert all(dials(EgressGuard(), address) for address in private)
    closed = EgressGuard(["10.9.0.0/16"], False)
    assert not any(dials(closed, address) for address in private)
    assert dials(closed, "10.9.1.1")
    assert dials(closed, "93.184.216.34")
    told = closed.check_literal("https://192.168.1.1/")
    assert told is not None
    assert "OUTBOUND_ALLOW_PRIVATE" in told.message


def test_names_are_judged_at_the_dial() -> None:
    """A name passes at enqueue, whatever it resolves to; what it dials is what counts."""
    guard = EgressGuard()
    assert guard.check_literal("http://rebound.example/") is None
    assert not dials(guard, "127.0.0.1", 80, "rebound.example")
    assert dials(guard, "93.184.216.34", 80, "rebound.example")


@pytest.mark.parametrize("entry", ["", "127.0.0.1:0", "127.0.0.1:99999", "a b", "http://x", "[::1]:x", "1.2.3"])
def test_malformed_entry_names_the_setting(entry: str) -> None:
    """A malformed entry stops the start with the setting's name and what would be right."""
    with pytest.raises(ValueError, match="OUTBOUND_ALLOW"):
        EgressGuard([entry])


def test_what_is_own_by_now_is_never_dialled() -> None:
    """The addresses that the gateway's own names and nodes have at the dial stay closed, through a proxy too."""
    guard = EgressGuard(["0.0.0.0/0"], own=[("redis.test", 6379)], nodes=lambda: [("Node.test", 7000), ("::1", 7001)])
    assert (guard.own_hosts(6379), guard.own_hosts(7000), guard.own_hosts(80)) == (["redis.test"], ["node.test"], [])
    with pytest.raises(TargetRefused, match="its Redis"):
        guard.check_dial("::ffff:10.1.2.3", 6379, "alias.test", ["10.1.2.3"])
    guard.check_dial("10.1.2.4", 6379, "alias.test", ["10.1.2.3"])
    for host, port in (("redis.test", 6379), ("NODE.test.", 7000), ("[::1]", 7001)):
        with pytest.raises(TargetRefused):
            guard.check_proxied(host, port)
    guard.check_proxied("node.test", 7001)
    guard.check_proxied("10.1.2.3", 6379)


def test_redis_is_refused_on_every_address_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is configured on one address of this machine may listen on the others too; other ports are not its
    own, nor are other machines."""
    monkeypatch.setattr(egress, "is_local", lambda address: str(address) in {"127.0.0.1", "::1", "10.0.0.5"})
    for redis in ("127.0.0.1", "::1", "10.0.0.5"):
        guard = EgressGuard(["127.0.0.0/8", "::1"], own=[(redis, 6379)])
        for address in ("127.0.0.1", "::1", "10.0.0.5", "::ffff:10.0.0.5"):
            assert not dials(guard, address, 6379)
            assert dials(guard, address, 6380)
        assert guard.check_literal("http://10.0.0.5:6379/") is not None
        assert dials(guard, "10.0.0.6", 6379)
    named = EgressGuard(["127.0.0.0/8"], own=[("redis.test", 6379)])
    with pytest.raises(TargetRefused, match="its Redis"):
        named.check_dial("10.0.0.5", 6379, "alias.test", ["127.0.0.1"])
    named.check_dial("10.0.0.6", 6379, "alias.test", ["127.0.0.1"])


def test_behind_a_proxy_names_of_metadata_and_loopback_stay_closed() -> None:
    """What the proxy would resolve to its own loopback is called directly, and so judged; cloud metadata is refused by
    its names."""
    guard = EgressGuard(["0.0.0.0/0"])
    for host in ("metadata.google.internal", "METADATA.", "instance-data.ec2.internal"):
        with pytest.raises(TargetRefused, match="metadata"):
            guard.check_proxied(host, 80)
    for host in ("localhost", "a.localhost.", "localhost.localdomain", "ip6-localhost", "127.1"):
        assert guard.is_local(host, 80), host
    assert not guard.is_local("notlocalhost", 80)


async def test_what_is_refused_at_enqueue_is_counted_by_its_kind(gateway: GatewayFactory, a_client: str) -> None:
    """Each refusal once, of a client that is known by then and in a batch too; and the log has whose and why."""
    gw = await gateway(
        dispatch=False, outbound_allow="", outbound_allow_private="false", outbound_deny="billing.internal"
    )
    targets = ["127.0.0.1", "127.0.0.1", "10.0.0.1", "billing.internal", "fine.test"]
    tasks = [{"task": {"url": f"http://{host}/"}, "delay": 60} for host in targets]
    await gw.enqueue({"client_id": a_client, **tasks[-1]})
    with capture_logs() as logs:
        for task in tasks:
            await gw.enqueue({"client_id": a_client, **task})
        await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    told = metrics.render()[0].decode()
    for kind, count in (("loopback", 4), ("private", 2), ("denied", 2)):
        assert f'gateway_egress_refused_total{{reason="{kind}",stage="enqueue"}} {count}.0' in told
    assert [line["client"] for line in logs if line["event"] == "egress_refused"] == [a_client] * 8


@pytest.mark.parametrize(
    "url",
    ["ftp://a.test/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "//a.test/", "unix:///run/x.sock"],
)
async def test_only_http_leaves_the_gateway(url: str) -> None:
    """Any other scheme is refused by the sender too, whoever let it pass."""
    async with HttpSender(EgressGuard(), 1) as sender:
        outcome = await sender.send(a_task(url), 5)
    assert (outcome.verdict, outcome.attempt.status) == (Verdict.REFUSED, None)


async def test_nodes_of_a_cluster_are_never_called(tmp_path: Path) -> None:
    """Every node of the Cluster is refused, though the settings name only one of them, and by a name."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    port, bus = ports
    command = [valkey_server(), "--cluster-enabled", "yes", "--cluster-port", str(bus), "--save", "", "--bind"]
    command += ["127.0.0.1", "--port", str(port), "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:

            def slots_taken() -> bool:
                try:
                    with socket.create_connection(("127.0.0.1", port), 1) as connection:
                        connection.sendall(b"CLUSTER ADDSLOTSRANGE 0 16383\r\n")
                        return connection.recv(64) != b""
                except OSError:
                    return False

            await until(slots_taken)
            settings = Settings.load({"REDIS_URL": f"redis://localhost:{port}", "REDIS_CLUSTER": "true"})
            async with open_store(settings, str(settings.redis_url)) as store:

                async def reached() -> bool:
                    try:
                        await store._front.execute("GET", "any")
                    except (CommandError, StoreUnavailable):
                        return False
                    return True

                await until(reached)
                async with HttpSender(EgressGuard(["127.0.0.0/8", "localhost"], nodes=store.nodes), 1) as sender:
                    for host in ("127.0.0.1", "localhost", "2130706433"):
                        outcome = await sender.send(a_task(f"http://{host}:{port}/"), 5)
                        assert outcome.reason == "target not allowed: listener of the gateway itself or its Redis"
        finally:
            server.kill()


def test_what_is_denied_stays_denied_however_it_is_written() -> None:
    """OUTBOUND_DENY wins over OUTBOUND_ALLOW: networks in every notation and at the dial, names as they are written;
    the rest, and UPSTREAM_URL, go on."""
    deny = ["10.1.0.0/16", "203.0.113.7:8080", "billing.internal", "audit.internal:81"]
    guard = EgressGuard(["10.0.0.0/8"], True, "http://10.1.2.3:9000", deny=deny)
    for host in ("10.1.0.9", "0xa010009", "[::ffff:10.1.0.9]"):
        told = guard.check_literal(f"http://{host}/x")
        assert told is not None
        assert told.message.endswith("OUTBOUND_DENY names it")
    for host in ("billing.internal", "BILLING.internal.", "audit.internal:81"):
        assert "OUTBOUND_DENY" in str(guard.check_literal(f"http://{host}/x"))
    for fine in ("10.2.0.9", "203.0.113.7", "audit.internal", "sub.billing.internal"):
        assert guard.check_literal(f"http://{fine}/x") is None
    assert not dials(guard, "10.1.0.9", host="anything.example")
    assert not dials(guard, "192.0.2.1", host="billing.internal")
    assert not dials(guard, "203.0.113.7", 8080)
    assert dials(guard, "203.0.113.7", 80)
    assert dials(guard, "10.1.2.3", 9000)
    with pytest.raises(TargetRefused):
        guard.check_proxied("billing.internal", 80)
    guard.check_proxied("audit.internal", 80)
