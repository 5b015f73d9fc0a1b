"""Calls through OUTBOUND_PROXY: what the proxy gets, what the target gets, and what is not sent to a proxy at all."""

import asyncio
from base64 import b64encode

import pytest
import trustme
from raw_http import NOT_ALLOWED, OK, a_task, read_request, resolving, send, serving, target, tls_contexts

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.sender import HttpSender
from gateway.models import Verdict


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


async def test_http_through_a_proxy_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain call goes to the proxy with its whole URL and the proxy's password, over one kept connection; its name
    is not looked up here."""
    asked = resolving(monkeypatch, {})
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


async def test_https_through_a_proxy_is_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An https call is made end to end through CONNECT: the target sees the task, the proxy neither it nor its path,
    and the target never the proxy's password."""
    resolving(monkeypatch, {})
    serving_tls, trusting = tls_contexts(trustme.CA(), "far.test")
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


async def test_behind_a_proxy_only_names_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which address a proxy will find is not known, so a name that only a network may allow is not called."""
    async with target() as proxy:

        async def hosts(_: str) -> tuple[str, ...]:
            return ("named.test", "10.0.0.0/8")

        async with HttpSender(EgressGuard(), 8, proxy.url, hosts=hosts) as sender:
            for host, reason in (("named.test", "http 200"), ("other.test", NOT_ALLOWED), ("10.0.0.9", "http 200")):
                assert (await sender.send(a_task(f"http://{host}/"), 5)).reason == reason
            assert (await sender.send(a_task("http://11.0.0.9/"), 5)).reason == NOT_ALLOWED


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
