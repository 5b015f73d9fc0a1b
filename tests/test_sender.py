"""The sender against real servers on loopback: what goes out on the wire, and what comes back as an
outcome."""

import asyncio
import errno
import gc
import gzip
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from raw_http import a_task, read_request, serving, target

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http.answer import KEPT_BYTES
from gateway.dispatch.http.dial import Dialer
from gateway.dispatch.sender import HttpSender
from gateway.errors import NotSigned
from gateway.models import Outcome, Verdict


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10) as opened:
        yield opened


async def test_what_the_target_receives(sender: HttpSender) -> None:
    """Method, path, headers and body go out as the task gave them, with the gateway's four headers and no
    noise."""
    async with target() as server:
        outcome = await sender.send(
            a_task(
                server.url + "/a/../b%2fc/%7Ex?q=%41+b&c#frag",
                headers={"x-CuStom": "Ä", "Cookie": "a=b; c", "x-attempt": "99"},
                body=b'{"x":\xc3\xa9}',
            ),
            5,
        )
    assert outcome.verdict is Verdict.DELIVERED
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a/../b%2fc/%7Ex?q=%41+b&c HTTP/1.1"
    assert body == b'{"x":\xc3\xa9}'
    names = sorted(line.partition(b":")[0] for line in lines[1:])
    assert names == sorted(
        [
            b"Host",
            b"x-CuStom",
            b"Cookie",
            b"X-Task-ID",
            b"X-Client-ID",
            b"X-Attempt",
            b"Idempotency-Key",
            b"User-Agent",
            b"Content-Length",
        ]
    )
    assert b"X-Task-ID: task-1" in lines
    assert b"X-Client-ID: client-1" in lines
    assert b"X-Attempt: 2" in lines
    assert b"Idempotency-Key: task-1" in lines
    assert b"Cookie: a=b; c" in lines
    assert "x-CuStom: Ä".encode() in lines


async def test_tasks_own_idempotency_key_and_agent_win(sender: HttpSender) -> None:
    """A task's Idempotency-Key, however spelled, and its User-Agent are sent and not doubled."""
    async with target() as server:
        await sender.send(a_task(server.url, headers={"idempotency-KEY": "mine", "user-agent": "me"}), 5)
    head = server.requests[0].lower()
    assert head.count(b"idempotency-key:") == 1
    assert b"idempotency-key: mine" in head
    assert head.count(b"user-agent:") == 1


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (202, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (301, Verdict.REFUSED),
        (304, Verdict.REFUSED),
        (307, Verdict.REFUSED),
        (400, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (408, Verdict.RETRY),
        (425, Verdict.RETRY),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
        (599, Verdict.RETRY),
    ],
)
async def test_status_decides(sender: HttpSender, status: int, verdict: Verdict) -> None:
    """Each status maps to its verdict, a redirect isn't followed, and Retry-After is read."""
    headers = "Location: /again\r\nRetry-After: 7\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n"
    async with target(f"HTTP/1.1 {status} X\r\n{headers}\r\n".encode()) as server:
        outcome = await sender.send(a_task(server.url), 5)
        await sender.send(a_task(server.url), 5)
    assert outcome.verdict is verdict
    assert outcome.reason == f"http {status}"
    assert outcome.attempt.status == status
    assert outcome.attempt.error is None
    assert outcome.retry_after == 7.0
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "POST", "PATCH"])
async def test_a_dropped_reused_connection_is_one_execution(sender: HttpSender, method: str) -> None:
    """A server that drops a reused keep-alive connection sees each attempt once: nothing is silently sent
    again."""
    seen = 0
    connections = 0

    async def drop_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen, connections
        connections += 1
        await read_request(reader)
        seen += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await read_request(reader)
        seen += 1

    async with serving(drop_second) as port:
        first = await sender.send(a_task(f"http://127.0.0.1:{port}/", method=method), 5)
        second = await sender.send(a_task(f"http://127.0.0.1:{port}/", method=method), 5)
    assert first.verdict is Verdict.DELIVERED
    assert (second.verdict, second.reason) == (Verdict.RETRY, "connection closed")
    assert (seen, connections) == (2, 1)


async def test_answer_is_bounded(sender: HttpSender) -> None:
    """Of an endless answer 4 KiB are kept and little more than 64 KiB read before the connection is
    closed."""
    closed = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            closed.set()

    async with serving(endless) as port:
        outcome = await sender.send(a_task(f"http://127.0.0.1:{port}/"), 5)
        await asyncio.wait_for(closed.wait(), 5)
    assert outcome.verdict is Verdict.DELIVERED
    assert outcome.attempt.body == "x" * KEPT_BYTES


async def test_compressed_answer_is_not_inflated(sender: HttpSender) -> None:
    """A gzip bomb stays as small as it came, and bytes that aren't UTF-8 are kept as text with
    replacements."""
    packed = gzip.compress(b"\0" * 3_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with target(head + packed) as server:
        outcome = await sender.send(a_task(server.url), 5)
    assert outcome.verdict is Verdict.DELIVERED
    assert outcome.attempt.body is not None
    assert len(outcome.attempt.body) <= KEPT_BYTES
    assert "\ufffd" in outcome.attempt.body


async def test_slow_drip_times_out(sender: HttpSender) -> None:
    """An answer that drips for ever ends at the task's timeout, which counts for the whole call."""
    over = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not over.is_set():
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as port:
        before = time.monotonic()
        outcome = await sender.send(a_task(f"http://127.0.0.1:{port}/"), 0.3)
        over.set()
    assert 0.25 < time.monotonic() - before < 3
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "timeout")
    assert outcome.attempt.status == 200


async def test_cut_off_and_garbage_answers_are_retried(sender: HttpSender) -> None:
    """An answer that ends early, isn't HTTP, or never comes is a network error, not a success."""
    for answer, reason in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", "response cut off"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "invalid response"),
        (b"", "connection closed"),
    ):

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

        async with serving(once) as port:
            outcome = await sender.send(a_task(f"http://127.0.0.1:{port}/"), 5)
        assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, reason)
        assert outcome.attempt.error == reason


async def test_nobody_listens(sender: HttpSender) -> None:
    """A closed port is retried with a stable reason."""
    async with target() as server:
        pass
    outcome = await sender.send(a_task(server.url), 5)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "connection refused")
    assert outcome.attempt.status is None
    assert errno.errorcode[errno.ECONNREFUSED] not in outcome.reason


async def refused(guard: EgressGuard, url: str) -> Outcome:
    async with HttpSender(guard, 10) as closed:
        return await closed.send(a_task(url), 5)


async def test_forbidden_addresses_are_dead_letters() -> None:
    """A name, an address or a number that leads to a forbidden address is refused, and no connection is
    made."""
    async with target() as server:
        for host in ("127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.1"):
            outcome = await refused(EgressGuard(), f"http://{host}:{server.port}/")
            assert outcome.verdict is Verdict.REFUSED
            assert outcome.reason == "target not allowed: loopback address"
    assert server.requests == []


async def test_allowed_name_reaches_its_target() -> None:
    """OUTBOUND_ALLOW=localhost:port opens that name, and numeric notations dial what they stand for."""
    async with target() as server:
        outcome = await refused(EgressGuard([f"localhost:{server.port}"]), f"http://localhost:{server.port}/")
        assert outcome.verdict is Verdict.DELIVERED
        outcome = await refused(EgressGuard(["127.0.0.1"]), f"http://2130706433:{server.port}/")
        assert outcome.verdict is Verdict.DELIVERED
    assert len(server.requests) == 2


async def test_half_allowed_name_that_is_down_is_retried() -> None:
    """Where one address of a name is allowed and down, the task is tried again though another is
    forbidden."""
    async with target() as server:
        pass
    guard = EgressGuard([f"127.0.0.1:{server.port}"])
    outcome = await refused(guard, f"http://localhost:{server.port}/")
    assert (outcome.verdict, outcome.reason[:10]) == (Verdict.RETRY, "connection")


@pytest.mark.parametrize(
    ("url", "headers", "reason"),
    [
        ("http:///x", {}, "invalid url"),
        ("ftp://127.0.0.1/", {}, "invalid url"),
        ("http://127.0.0.1:99999/", {}, "invalid request"),
        ("http://127.0.0.1/", {"X": "a\r\nb"}, "invalid request"),
    ],
)
async def test_what_cannot_be_sent_is_refused(
    sender: HttpSender, url: str, headers: dict[str, str], reason: str
) -> None:
    """A request that can't be made at all is a dead letter at once, not an exception."""
    async with target() as server:
        if headers:
            url = server.url
        outcome = await sender.send(a_task(url, headers=headers), 5)
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, reason)


async def test_cancellation_passes(sender: HttpSender) -> None:
    """Cancelling an attempt ends it at once and closes its connection."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()
        gone.set()

    async with serving(hang) as port:
        attempt = sender.send(a_task(f"http://127.0.0.1:{port}/"), 60)
        await asyncio.wait_for(arrived.wait(), 5)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_cancellation_that_nobody_asked_for_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that never ended would keep its place, and its lease, for ever."""

    async def dial(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Dialer, "dial", dial)
    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10) as sender:
        done, _ = await asyncio.wait([sender.send(a_task("http://127.0.0.1:1/"), 5)], timeout=2)
        assert done


async def test_hosts_are_asked_for_once_the_keys_are_there() -> None:
    """Keys are waited for while Redis is away, and where a call may go can change meanwhile."""
    hosts: list[tuple[str, ...] | None] = [None]
    go = asyncio.Event()

    async def keys(_: str) -> list[bytes]:
        await go.wait()
        return []

    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10, keys=keys, hosts=lambda _: hosts[-1]) as sender:
        sending = sender.send(a_task("http://127.0.0.1:1/"), 5)
        await asyncio.sleep(0)
        hosts.append(())
        go.set()
        assert (await sending).verdict is Verdict.REFUSED


async def test_keys_that_can_not_be_had_leave_nothing_unasked_behind() -> None:
    """No coroutine is made that nobody waits for: it would warn on stderr."""

    async def keys(_: str) -> list[bytes]:
        raise NotSigned("signing secret unreadable")

    async def hosts(_: str) -> None:
        return None

    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10, keys=keys, hosts=hosts) as sender:
        assert (await sender.send(a_task("http://127.0.0.1:1/"), 5)).verdict is Verdict.RETRY
    gc.collect()


async def test_a_defect_in_judging_an_answer_is_heard(sender: HttpSender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the call would else wait for ever."""

    def broken(_: int) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("gateway.dispatch.sender._judge_status", broken)
    async with target() as server:
        with pytest.raises(RuntimeError, match="broken"):
            await asyncio.wait_for(sender.send(a_task(server.url), 5), 10)
