"""How a connection comes about: names, addresses, TLS, proxies, and the egress rule at each of them."""

import asyncio
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from raw_http import OK, a_task, read_request, serving, target

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http import client, resolver
from gateway.dispatch.http.errors import CallFailed
from gateway.dispatch.http.resolver import Resolver
from gateway.dispatch.sender import HttpSender
from gateway.models import Outcome, Verdict

LOOPBACK = ["127.0.0.0/8", "::1"]
Names = Callable[[dict[str, list[str]]], list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """`names({"name": [addresses]})` answers for them; the list it gives has every name that was asked for."""
    real = socket.getaddrinfo

    def use(known: dict[str, list[str]]) -> list[str]:
        asked: list[str] = []

        def answer(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(host)
            if host not in known:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return [info for address in known[host] for info in real(address, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", answer)
        return asked

    return use


async def send(url: str, guard: EgressGuard | None = None, timeout: float = 5, **kwargs: Any) -> Outcome:
    async with HttpSender(guard or EgressGuard(LOOPBACK), 10, **kwargs) as sender:
        return await sender.send(a_task(url), timeout)


# Names and addresses


async def test_ipv6_targets_are_called() -> None:
    """An IPv6 address in a URL is dialled as one and named in brackets in Host."""
    requests = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(OK)

    async with serving(keep, "::1") as port:
        assert (await send(f"http://[0:0::1]:{port}/")).verdict is Verdict.DELIVERED
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in requests[0]


async def test_a_dead_address_does_not_hold_up_the_next(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first address refuses or swallows everything, the second is tried soon, long before a time-out."""
    with socket.socket(socket.AF_INET6) as swallowing:
        # A full backlog: what comes now is neither accepted nor refused.
        swallowing.bind(("::1", 0))
        swallowing.listen(0)
        port = swallowing.getsockname()[1]
        waiting = []
        for _ in range(4):
            one = socket.socket(socket.AF_INET6)
            one.setblocking(False)
            one.connect_ex(("::1", port))
            waiting.append(one)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)

        names({"both.test": ["::1", "127.0.0.1"]})
        async with serving(answer, port=port):
            before = time.monotonic()
            assert (await send(f"http://both.test:{port}/", timeout=20)).verdict is Verdict.DELIVERED
            assert time.monotonic() - before < 10
        for one in waiting:
            one.close()
    async with target() as server:
        names({"both.test": ["::1", "127.0.0.1"]})
        assert (await send(f"http://both.test:{server.port}/")).verdict is Verdict.DELIVERED
    monkeypatch.undo()


async def test_a_name_is_judged_by_the_address_it_has_now(names: Names) -> None:
    """A name that resolves to a forbidden address is a dead letter; one forbidden address among others is left out."""
    async with target() as server:
        guard = EgressGuard([f"127.0.0.1:{server.port}"])
        names({"bad.test": ["169.254.169.254"], "half.test": ["169.254.169.254", "127.0.0.1"], "v6.test": ["::1"]})
        outcome = await send(f"http://bad.test:{server.port}/", guard)
        assert (outcome.verdict, outcome.reason) == (
            Verdict.REFUSED,
            "target not allowed: cloud metadata address",
        )
        assert (await send(f"http://v6.test:{server.port}/", guard)).verdict is Verdict.REFUSED
        assert (await send(f"http://half.test:{server.port}/", guard)).verdict is Verdict.DELIVERED
        for mapped in (f"http://[::ffff:127.0.0.1]:{server.port}/", f"http://[::ffff:7f00:1]:{server.port}/"):
            assert (await send(mapped, guard)).verdict is Verdict.DELIVERED
            assert (await send(mapped, EgressGuard())).verdict is Verdict.REFUSED


async def test_redis_is_refused_under_every_name_and_address(names: Names) -> None:
    """A Redis that is configured by a name is also refused by its address, by another name, and after it moved."""
    async with target() as server:
        guard = EgressGuard(LOOPBACK, own=[("redis.test", server.port)])
        for addresses in (["127.0.0.1"], ["127.0.0.2", "127.0.0.1"]):
            names({"redis.test": addresses, "alias.test": ["127.0.0.1"]})
            for host in ("redis.test", "alias.test", "127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"):
                outcome = await send(f"http://{host}:{server.port}/", guard)
                reason = "target not allowed: listener of the gateway itself or its Redis"
                assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, reason), host
        names({"redis.test": ["127.0.0.9"], "alias.test": ["127.0.0.1"]})
        assert (await send(f"http://alias.test:{server.port}/", guard)).verdict is Verdict.DELIVERED
        names({"alias.test": ["127.0.0.1"]})
        assert (await send(f"http://alias.test:{server.port}/", guard)).verdict is Verdict.DELIVERED
    assert len(server.requests) == 2


async def test_unknown_names_and_impossible_ones(names: Names) -> None:
    """A name that is not known may be known later; one that can't be a name never will."""
    names({})
    outcome = await send("http://unknown.test/")
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "name not resolved")


async def test_a_label_that_is_too_long_is_refused() -> None:
    """What the system's resolver can't even be asked for is a dead letter."""
    outcome = await send(f"http://{'a' * 64}.test/")
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "invalid request")


async def test_slow_names_hold_up_nobody(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many names hang, another one resolves, its look-up is shared, and the default executor stays free."""
    hang = threading.Event()
    asked = names({"fast.test": ["127.0.0.1"]})
    quick = socket.getaddrinfo

    def answer(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.startswith("slow"):
            hang.wait(30)
        return quick(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    async with target() as server, HttpSender(EgressGuard(LOOPBACK), 100) as sender:
        slow = [asyncio.create_task(sender.send(a_task(f"http://slow{n}.test:{server.port}/"), 20)) for n in range(60)]
        try:
            fast = a_task(f"http://fast.test:{server.port}/")
            for outcome in await asyncio.gather(*(sender.send(fast, 10) for _ in range(20))):
                assert outcome.verdict is Verdict.DELIVERED
            assert asked.count("fast.test") == 1
            await asyncio.wait_for(asyncio.to_thread(lambda: None), 10)
        finally:
            hang.set()
            outcomes = await asyncio.gather(*slow)
    assert {outcome.reason for outcome in outcomes} == {"name not resolved"}


async def test_a_name_that_hangs_is_a_connect_timeout(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up counts toward both the time to connect and the task's own time."""
    hang = threading.Event()
    names({})
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: hang.wait(30) and [])
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.2)
    try:
        assert (await send("http://slow.test/", timeout=20)).reason == "connect timeout"
        assert (await send("http://slow.test/", timeout=0.1)).reason == "timeout"
    finally:
        hang.set()


async def test_look_ups_are_bounded_and_remembered(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is good for a few seconds, a failure is not kept, and abandoned look-ups do not pile up."""
    monkeypatch.setattr(resolver, "_KNOWN_NAMES", 2)
    asked = names({f"n{n}.test": ["127.0.0.1"] for n in range(3)})
    made = Resolver(limit=1)
    for name in ("n0.test", "n0.test", "n1.test", "n0.test", "n2.test", "n0.test"):
        ((*_, address),) = await made.lookup(name, 80)
        assert address == ("127.0.0.1", 80)
    assert asked == ["n0.test", "n1.test", "n2.test", "n0.test"]
    for _ in range(2):
        with pytest.raises(CallFailed, match="name not resolved"):
            await made.lookup("unknown.test", 80)
    assert asked[4:] == ["unknown.test"] * 2
    monkeypatch.setattr(resolver, "KNOWN_SECONDS", 0.0)
    await made.lookup("n1.test", 80)
    await made.lookup("n1.test", 80)
    assert asked[6:] == ["n1.test"] * 2
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: hang.wait(30) and [])
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(made.lookup("slow.test", 80), 0.05)
        with pytest.raises(CallFailed, match="name not resolved"):
            await made.lookup("other.test", 80)
    finally:
        hang.set()


# TLS


def contexts(authority: trustme.CA, *identities: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for these names, and a client's that trusts its authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*identities).configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting


async def test_tls_names_its_target_and_checks_it(names: Names) -> None:
    """The name goes out as SNI, keep-alive works, and a certificate for another name or of another authority
    is refused before a byte of the request is sent."""
    authority = trustme.CA()
    serving_tls, trusting = contexts(authority, "good.test", "127.0.0.1")
    asked: list[str | None] = []
    serving_tls.sni_callback = lambda _, name, __: asked.append(name)  # type: ignore[assignment]
    names({name: ["127.0.0.1"] for name in ("good.test", "good.test.", "other.test")})
    requests = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            requests.append(await read_request(reader))
            writer.write(OK)

    async with serving(keep, tls=serving_tls) as port:
        async with HttpSender(EgressGuard(LOOPBACK), 10, tls=trusting) as sender:
            for host in ("good.test", "good.test", "good.test.", "127.0.0.1"):
                outcome = await sender.send(a_task(f"https://{host}:{port}/", body=b"x" * 300_000), 10)
                assert outcome.verdict is Verdict.DELIVERED, (host, outcome)
            assert asked == ["good.test", "good.test", None]
            assert (await sender.send(a_task(f"https://other.test:{port}/"), 10)).reason == "tls error"
        assert (await send(f"https://good.test:{port}/")).reason == "tls error"
    assert len(requests) == 4
    assert f"\r\nHost: good.test:{port}\r\n".encode() in requests[2]


async def test_tls_that_is_none(names: Names) -> None:
    """A plain server on a TLS port is a TLS error, one that hangs up in the handshake a failed connection."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(plain) as port:
        assert (await send(f"https://127.0.0.1:{port}/")).reason == "tls error"
    async with serving(hang_up) as port:
        assert (await send(f"https://127.0.0.1:{port}/")).reason in {"connection failed", "tls error"}
    async with serving(hang) as port:
        assert (await send(f"https://127.0.0.1:{port}/", timeout=0.3)).reason == "timeout"


async def test_tls_answers_until_close_and_cut_off() -> None:
    """Over TLS too an answer may end with the connection, and one that ends early is an error."""
    serving_tls, trusting = contexts(trustme.CA(), "x.test")
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    for answer, reason in (
        (b"HTTP/1.1 200 OK\r\n\r\nok", "http 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "response cut off"),
        (b"", "connection closed"),
    ):

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            await read_request(reader)
            writer.write(answer)

        async with serving(once, tls=serving_tls) as port:
            assert (await send(f"https://127.0.0.1:{port}/", tls=trusting)).reason == reason


# Proxies


class ForwardProxy:
    """A proxy that keeps the heads it gets; it tunnels CONNECT to its own machine, and answers the rest itself."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self._refusal = refusal

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.heads.append(request.partition(b"\r\n\r\n")[0])
            if self._refusal:
                writer.write(self._refusal)
                return
            if request.startswith(b"CONNECT "):
                break
            writer.write(OK)
        port = int(request.split(b" ")[1].rpartition(b":")[2])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()


async def test_http_through_a_proxy_is_absolute(names: Names) -> None:
    """A plain call goes to the proxy with its whole URL and the proxy's password, over one kept connection; its name
    is not looked up here."""
    asked = names({})
    proxy = ForwardProxy()
    async with serving(proxy.handle) as port:
        url = f"http://ann:p%40ss@127.0.0.1:{port}"
        async with HttpSender(EgressGuard(), 10, proxy=url) as sender:
            for path in ("/a?b", ""):
                assert (await sender.send(a_task("http://far.test:81" + path), 5)).verdict is Verdict.DELIVERED
    assert proxy.heads[0].startswith(b"POST http://far.test:81/a?b HTTP/1.1\r\nHost: far.test:81\r\n")
    assert proxy.heads[1].startswith(b"POST http://far.test:81/ HTTP/1.1\r\n")
    for head in proxy.heads:
        assert b"\r\nProxy-Authorization: Basic " + b64encode(b"ann:p@ss") in head
    assert asked == []


async def test_https_through_a_proxy_is_a_tunnel(names: Names) -> None:
    """An https call is made end to end through CONNECT: the target sees the task, the proxy neither it nor its path,
    and the target never the proxy's password."""
    names({})
    serving_tls, trusting = contexts(trustme.CA(), "far.test")
    proxy = ForwardProxy()
    requests = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            requests.append(await read_request(reader))
            writer.write(OK)

    async with (
        serving(keep, tls=serving_tls) as far,
        serving(proxy.handle) as port,
        HttpSender(EgressGuard(), 10, f"http://ann:pw@127.0.0.1:{port}", trusting) as sender,
    ):
        for _ in range(2):
            outcome = await sender.send(a_task(f"https://far.test:{far}/secret"), 5)
            assert outcome.verdict is Verdict.DELIVERED
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(f"CONNECT far.test:{far} HTTP/1.1\r\nHost: far.test:{far}\r\n".encode())
    assert b"Proxy-Authorization: Basic " in proxy.heads[0]
    assert b"secret" not in proxy.heads[0]
    assert requests[0].startswith(b"POST /secret HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in b"".join(requests)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy refused the tunnel"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "proxy refused the tunnel"),
        (b"SOCKS\r\n\r\n", "proxy refused the tunnel"),
        (b"HTTP/1.1 200 OK\r\n", "proxy failed"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore than a head", "proxy failed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "proxy failed"),
    ],
)
async def test_a_tunnel_that_fails(answer: bytes, reason: str) -> None:
    """Whatever the proxy answers to CONNECT but a clean yes is a network error, not the target's answer."""
    proxy = ForwardProxy(answer)
    async with serving(proxy.handle) as port:
        outcome = await send("https://far.test/", proxy=f"http://127.0.0.1:{port}")
    assert (outcome.verdict, outcome.attempt.status) == (Verdict.RETRY, None)
    assert outcome.reason in {reason, "connection failed"}


async def test_the_egress_rule_before_a_proxy() -> None:
    """Addresses in URLs are judged as ever, in every notation; loopback and UPSTREAM_URL are called directly; the
    gateway's own names stay closed; and a proxy that is down is a network error."""
    proxy = ForwardProxy()
    async with serving(proxy.handle) as port, target() as server:
        guard = EgressGuard([f"127.0.0.1:{server.port}"], False, own=[("redis.test", 6379)])
        url = f"http://127.0.0.1:{port}"
        for refused in ("169.254.169.254", "2852039166", "[::ffff:10.0.0.1]", "10.0.0.1", "redis.test:6379"):
            for scheme in ("http", "https"):
                outcome = await send(f"{scheme}://{refused}/", guard, proxy=url)
                assert outcome.verdict is Verdict.REFUSED, refused
        assert (await send(f"http://127.0.0.1:{server.port}/", guard, proxy=url)).verdict is Verdict.DELIVERED
        assert (await send("http://localhost:1/", guard, proxy=url)).verdict is Verdict.REFUSED
        upstream = EgressGuard([], False, f"http://localhost:{server.port}")
        assert (await send(f"http://localhost:{server.port}/x", upstream, proxy=url)).verdict is Verdict.DELIVERED
        assert proxy.heads == []
        assert len(server.requests) == 2
    assert (await send("http://far.test/", proxy=url)).reason == "connection refused"


async def test_environment_proxies_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and its like are set for other programs; the calls of clients do not follow them."""
    proxy = ForwardProxy()
    async with serving(proxy.handle) as port, target() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert (await send(server.url)).verdict is Verdict.DELIVERED
    assert proxy.heads == []


async def test_the_proxys_password_is_in_no_repr() -> None:
    """Nobody who prints the sender's parts prints the password."""
    sender = HttpSender(EgressGuard(), 1, "http://ann:hunter@proxy:3128")
    assert "hunter" not in repr(sender._proxy)
    assert b64encode(b"ann:hunter").decode() not in repr(sender._proxy)
