"""How a connection comes about: names, addresses, TLS, and the egress rule at each of them."""

import asyncio
import socket
import ssl
import threading
import time
from typing import Any

import pytest
import trustme
from raw_http import LOOPBACK, NOT_ALLOWED, OK, a_task, read_request, resolving, send, serving, target, tls_contexts

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http import client, resolver
from gateway.dispatch.http.errors import CallFailed
from gateway.dispatch.http.resolver import Resolver
from gateway.dispatch.sender import HttpSender
from gateway.models import Verdict

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


async def test_a_dead_address_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
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

        resolving(monkeypatch, {"both.test": ["::1", "127.0.0.1"]})
        async with serving(answer, port=port):
            before = time.monotonic()
            assert (await send(f"http://both.test:{port}/", timeout=20)).verdict is Verdict.DELIVERED
            assert time.monotonic() - before < 10
        for one in waiting:
            one.close()
    async with target() as server:
        resolving(monkeypatch, {"both.test": ["::1", "127.0.0.1"]})
        assert (await send(f"http://both.test:{server.port}/")).verdict is Verdict.DELIVERED


async def test_a_name_is_judged_by_the_address_it_has_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a forbidden address is a dead letter; one forbidden address among others is left out."""
    async with target() as server:
        guard = EgressGuard([f"127.0.0.1:{server.port}"])
        resolving(
            monkeypatch,
            {"bad.test": ["169.254.169.254"], "half.test": ["169.254.169.254", "127.0.0.1"], "v6.test": ["::1"]},
        )
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


async def test_the_dial_judges_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is allowed only by its address is called only at an allowed one, also where a connection to another
    is open already, whatever it resolved to before; a name that is listed is called wherever it is."""
    lists: dict[str, tuple[str, ...] | None] = {
        "anyone": None,
        "by-network": ("127.0.0.2/32", "other.test"),
        "by-name": ("a.test",),
        "elsewhere": ("b.test", "*.a.test"),
    }

    async def hosts(client_id: str) -> tuple[str, ...] | None:
        return lists[client_id]

    async with target() as server, HttpSender(EgressGuard(LOOPBACK), 8, hosts=hosts) as sender:

        async def call(client_id: str, host: str = "a.test") -> str:
            return (await sender.send(a_task(f"http://{host}:{server.port}/", client_id=client_id), 5)).reason

        resolving(monkeypatch, {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]})
        assert await call("anyone") == "http 200"
        assert await call("by-network") == NOT_ALLOWED, "the open connection is not for it"
        assert await call("by-network", "127.0.0.1") == NOT_ALLOWED
        assert await call("by-name") == "http 200"
        assert await call("by-name", "b.test") == NOT_ALLOWED
        assert await call("elsewhere") == NOT_ALLOWED
        assert await call("elsewhere", "b.test") == "http 200"
        assert (len(server.requests), server.connections) == (3, 2)


async def test_a_name_that_changes_between_judging_and_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: an attempt asks once, and what it judges is what it dials, so an answer that turns to metadata
    afterwards reaches nothing; the next attempt judges anew."""
    async with target(then_close=True) as server:
        known = {"rebound.test": ["127.0.0.1"]}
        asked = resolving(monkeypatch, known)
        guard = EgressGuard([f"127.0.0.1:{server.port}"])
        check = guard.check_dial

        def rebinding(*judged: Any) -> None:
            check(*judged)
            known["rebound.test"] = ["169.254.169.254"]

        monkeypatch.setattr(guard, "check_dial", rebinding)
        url = f"http://rebound.test:{server.port}/"
        assert (await send(url, guard)).verdict is Verdict.DELIVERED
        assert asked == ["rebound.test"]
        outcome = await send(url, guard)
        assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "target not allowed: cloud metadata address")
        assert (len(server.requests), asked) == (1, ["rebound.test"] * 2)


async def test_a_redirect_to_what_is_not_allowed_is_not_followed() -> None:
    """The target's word does not move the gateway: one request, no second dial."""
    async with target() as secret:
        for location in (f"{secret.url}/", "http://169.254.169.254/latest/meta-data/"):
            head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            async with target(head.encode()) as server:
                outcome = await send(f"{server.url}/", EgressGuard([f"127.0.0.1:{server.port}"]))
                assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "http 307")
                assert len(server.requests) == 1
        assert secret.requests == []


async def test_redis_is_refused_under_every_name_and_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is configured by a name is also refused by its address, by another name, and after it moved."""
    async with target() as server:
        guard = EgressGuard(LOOPBACK, own=[("redis.test", server.port)])
        for addresses in (["127.0.0.1"], ["127.0.0.2", "127.0.0.1"]):
            resolving(monkeypatch, {"redis.test": addresses, "alias.test": ["127.0.0.1"]})
            for host in ("redis.test", "alias.test", "127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"):
                outcome = await send(f"http://{host}:{server.port}/", guard)
                reason = "target not allowed: listener of the gateway itself or its Redis"
                assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, reason), host
        resolving(monkeypatch, {"redis.test": ["127.0.0.9"], "alias.test": ["127.0.0.1"]})
        assert (await send(f"http://alias.test:{server.port}/", guard)).verdict is Verdict.REFUSED, (
            "it is on this machine"
        )
        resolving(monkeypatch, {"redis.test": ["192.0.2.9"], "alias.test": ["127.0.0.1"]})
        assert (await send(f"http://alias.test:{server.port}/", guard)).verdict is Verdict.DELIVERED
        resolving(monkeypatch, {"alias.test": ["127.0.0.1"]})
        assert (await send(f"http://alias.test:{server.port}/", guard)).verdict is Verdict.DELIVERED
    assert len(server.requests) == 2


async def test_unknown_names_and_impossible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not known may be known later; one that can't be a name never will."""
    resolving(monkeypatch, {})
    outcome = await send("http://unknown.test/")
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "name not resolved")


async def test_a_label_that_is_too_long_is_refused() -> None:
    """What the system's resolver can't even be asked for is a dead letter."""
    outcome = await send(f"http://{'a' * 64}.test/")
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "invalid request")


async def test_slow_names_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While many names hang, another one resolves, its look-up is shared, and the default executor stays free."""
    hang = threading.Event()
    asked = resolving(monkeypatch, {"fast.test": ["127.0.0.1"]})
    quick = socket.getaddrinfo

    def answer(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.startswith("slow"):
            hang.wait(30)
        return quick(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    async with target() as server, HttpSender(EgressGuard(LOOPBACK), 100) as sender:
        slow = [sender.send(a_task(f"http://slow{n}.test:{server.port}/"), 20) for n in range(60)]
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


async def test_a_name_that_hangs_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up counts toward both the time to connect and the task's own time."""
    hang = threading.Event()
    resolving(monkeypatch, {})
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: hang.wait(30) and [])
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.2)
    try:
        assert (await send("http://slow.test/", timeout=20)).reason == "connect timeout"
        assert (await send("http://slow.test/", timeout=0.1)).reason == "timeout"
    finally:
        hang.set()


async def test_look_ups_are_bounded_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is good for a few seconds, a failure is not kept, and abandoned look-ups do not pile up."""
    monkeypatch.setattr(resolver, "_KNOWN_NAMES", 2)
    asked = resolving(monkeypatch, {f"n{n}.test": ["127.0.0.1"] for n in range(3)})
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


async def test_tls_names_its_target_and_checks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name goes out as SNI, keep-alive works, and a certificate for another name or of another authority
    is refused before a byte of the request is sent."""
    authority = trustme.CA()
    serving_tls, trusting = tls_contexts(authority, "good.test", "127.0.0.1")
    asked: list[str | None] = []
    serving_tls.sni_callback = lambda _, name, __: asked.append(name)  # type: ignore[assignment]
    resolving(monkeypatch, {name: ["127.0.0.1"] for name in ("good.test", "good.test.", "other.test")})
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


async def test_tls_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
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
    serving_tls, trusting = tls_contexts(trustme.CA(), "x.test")
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
