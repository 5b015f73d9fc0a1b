"""What one caller may take: connections, requests at once, the time and the size of a head."""

import asyncio
import contextlib
import ipaddress
import json
from typing import Any

import pytest
from conftest import GatewayFactory, until
from structlog.testing import capture_logs

from gateway import metrics
from gateway.errors import ServiceUnavailable
from gateway.middleware import connection
from gateway.middleware.limits import TELL_SECONDS, Limits
from gateway.middleware.security_headers import HEADERS

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, headers (lower-case names) and JSON of an answer after which the server closes."""
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert headers["server"] == HEADERS["Server"]
    return int(first.split()[1]), headers, json.loads(body)


def test_an_address_has_so_many_connections() -> None:
    """One more is refused until one ends; other addresses, loopback and exempt networks are not held by it."""
    limits = Limits(2, 1, exempt=[ipaddress.ip_network("10.9.0.0/16")])
    first, second = limits.connected("10.0.0.1"), limits.connected("::ffff:10.0.0.1")
    assert first == second == "10.0.0.1"
    with pytest.raises(ServiceUnavailable) as refused:
        limits.connected("10.0.0.1")
    assert refused.value.headers == {"Retry-After": "1"}
    assert "MAX_CONNECTIONS_PER_ADDRESS" in refused.value.message
    assert limits.connected("10.0.0.2") == "10.0.0.2"
    for peer in ("127.0.0.1", "::1", "10.9.1.1", None, ""):
        assert [limits.connected(peer) for _ in range(5)] == [None] * 5
    limits.disconnected(first)
    limits.disconnected(None)
    assert limits.connected("10.0.0.1") == first
    for place in (first, second, "10.0.0.2"):
        limits.disconnected(place)
    assert limits._connections == {}


def test_all_together_have_as_many_connections_as_there_are_files() -> None:
    """Loopback and exempt networks too: past it even a probe's connection would take the file of a link to Redis."""
    limits = Limits(5, 1, most=2)
    assert [limits.connected("127.0.0.1"), limits.connected("10.0.0.1")] == [None, "10.0.0.1"]
    with pytest.raises(ServiceUnavailable) as refused:
        limits.connected("127.0.0.1")
    assert "ulimit -n" in refused.value.message
    limits.disconnected(None)
    assert limits.connected("10.0.0.1") == "10.0.0.1"


def test_the_addresses_of_an_ipv6_network_have_one_number() -> None:
    """A machine with a /64 can't open as many as it has addresses."""
    limits = Limits(2, 1)
    for last in (1, 2):
        limits.connected(f"2001:db8::{last}")
    with pytest.raises(ServiceUnavailable):
        limits.connected("2001:db8::3")
    assert limits.connected("2001:db8:0:1::3")


def test_refusals_do_not_fill_the_log() -> None:
    """A thousand of them are one line, and ten seconds later a second one that counts them."""
    now = [0.0]
    limits = Limits(1, 1, clock=lambda: now[0])
    limits.connected("10.0.0.1")
    with capture_logs() as logs:
        for number in range(1001):
            now[0] = TELL_SECONDS if number == 1000 else 0.0
            with pytest.raises(ServiceUnavailable):
                limits.connected("10.0.0.1")
    assert [(entry["event"], entry["refused"]) for entry in logs] == [
        ("connections_refused", 1),
        ("connections_refused", 1000),
    ]


def test_probes_are_let_in_past_the_open_requests() -> None:
    """Who asks whether the process lives is answered above all where too much is asked."""
    limits = Limits(1, 1)
    limits.enter("/v1/enqueue")
    with pytest.raises(ServiceUnavailable):
        limits.enter("/v1/enqueue")
    limits.enter("/livez")
    limits.leave()
    limits.leave()
    limits.enter("/v1/enqueue")


async def test_a_connection_too_many_is_answered_and_closed(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After in JSON, also where the request was under way already; a closed connection makes room."""
    monkeypatch.setattr("gateway.middleware.limits.parse_address", lambda _: ipaddress.ip_address("10.0.0.1"))
    gw = await gateway(dispatch=False, max_connections_per_address="2")
    port = int(gw.url.rpartition(":")[2])
    opened = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVEZ)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        opened.append(writer)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVEZ + b"x" * 100_000)
    status, headers, body = await answered(reader)
    writer.close()
    assert (status, body["error"], headers["retry-after"]) == (503, "Service unavailable", "1")
    assert {"x-request-id", "x-content-type-options"} <= set(headers)
    assert b'gateway_connections_refused_total{reason="too_many"} 1.0' in metrics.render()[0]
    opened[0].close()

    async def let_in() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVEZ)
        first = await reader.readline()
        writer.close()
        return b" 200 " in first

    await until(let_in)
    opened[1].close()


async def test_a_request_too_many_is_503_and_probes_are_not(gateway: GatewayFactory) -> None:
    """While one body is awaited and only one request may be open, the next is refused; its end makes room."""
    gw = await gateway(dispatch=False, max_open_requests="1")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    writer.write(b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{")

    async def refused() -> bool:
        status, body, headers = await gw.call("GET", "/v1/rate-limit?client_id=nobody")
        assert status == 404 or (headers["Retry-After"], body["error"]) == ("1", "Service unavailable")
        return status == 503

    await until(refused)
    assert (await gw.call("GET", "/livez"))[0] == 200
    writer.write(b"}")
    assert (await answered(reader))[0] == 401
    writer.close()
    assert (await gw.call("GET", "/v1/rate-limit?client_id=nobody"))[0] == 404


@pytest.mark.parametrize("sent", [b"GET /live", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n", LIVEZ + b"GET /"])
async def test_a_head_that_stalls_is_408(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """The connection is answered and closed, also one that had a request before; drips do not prolong it."""
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.3)
    gw = await gateway(dispatch=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    if sent.startswith(LIVEZ):
        writer.write(LIVEZ)
        assert b" 200 " in await reader.readuntil(b"}")
        sent = sent.removeprefix(LIVEZ)
    writer.write(sent)

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"a")

    dripping = asyncio.create_task(drip())
    status, headers, body = await answered(reader)
    dripping.cancel()
    writer.close()
    assert (status, body["error"], headers["connection"]) == (408, "Request timeout", "close")
    assert b'gateway_connections_refused_total{reason="slow"} 1.0' in metrics.render()[0]


async def test_a_connection_without_a_request_is_closed_and_an_idle_one_is_kept(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing sent, nothing answered; after a request the connection may be idle for longer than a head may take."""
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.3)
    gw = await gateway(dispatch=False)
    port = int(gw.url.rpartition(":")[2])
    used_reader, used = await asyncio.open_connection("127.0.0.1", port)
    used.write(LIVEZ)
    await used_reader.readuntil(b"}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    used.write(LIVEZ)
    assert b" 200 " in await used_reader.readuntil(b"}")
    used.close()


async def test_a_head_is_bounded_as_a_whole(gateway: GatewayFactory) -> None:
    """Lines that are each within their limit are no more than 64 KiB together: 431, before all of them have come."""
    gw = await gateway(dispatch=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
    failed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    for number in range(60):
        writer.write(b"X-%d: %s\r\n" % (number, b"a" * 8000))
    status, headers, body = await answered(reader)
    writer.close()
    assert (status, body["error"], headers["connection"]) == (431, "Request head too large", "close")
    assert not failed


async def test_an_answer_that_nobody_reads_is_not_kept(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for much and takes no more of it loses the connection, and with it what waits there."""
    gw = await gateway(dispatch=False)
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200

    def unread() -> bool:
        return b'gateway_connections_refused_total{reason="unread"} 1.0' in metrics.render()[0]

    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]), limit=2**16)
    writer.write(ask)
    assert len(await reader.readexactly(4_000_000)) == 4_000_000
    assert not unread()
    monkeypatch.setattr(connection, "SEND_DEADLINE", 0.3)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readexactly(1_000_000)
    await until(unread)
    writer.close()
