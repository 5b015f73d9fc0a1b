"""Which connection carries a call: kept, given up in time, never shared, never sent to again."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from conftest import until
from raw_http import OK, a_task, read_request, serving, target

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http import answer, connection, pool
from gateway.dispatch.sender import HttpSender
from gateway.models import Outcome, Verdict


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10) as opened:
        yield opened


async def test_connections_are_kept_for_their_origin(sender: HttpSender) -> None:
    """Calls one after the other share a connection, calls at once do not, and another origin has its own."""
    async with target() as one, target() as other:
        for _ in range(5):
            for server in (one, other):
                assert (await sender.send(a_task(server.url), 5)).verdict is Verdict.DELIVERED
        assert (one.connections, other.connections) == (1, 1)
        await asyncio.gather(*(sender.send(a_task(one.url), 5) for _ in range(4)))
        assert one.connections == 4


async def test_an_idle_connection_that_the_target_closed_is_not_used(sender: HttpSender) -> None:
    """A target that closes after its answer without a word costs no attempt: the end is seen before the next call."""
    closing = asyncio.Event()
    served = 0

    async def close_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(OK)
        await closing.wait()

    async with serving(close_after) as port:
        task = a_task(f"http://127.0.0.1:{port}/")
        await sender.send(task, 5)
        closing.set()
        assert sender._client is not None
        await until(lambda: not sender._client._pool._open)  # type: ignore[union-attr]
        for _ in range(20):
            assert (await sender.send(task, 5)).verdict is Verdict.DELIVERED
            # Let the end arrive, which the loop has not looked at when the next call begins.
            time.sleep(0.005)
    assert served == 21


async def test_bytes_nobody_asked_for_end_an_idle_connection(sender: HttpSender) -> None:
    """A forged answer that waits on an idle connection is not taken for the answer to the next request."""
    connections = 0
    forge, forged = asyncio.Event(), asyncio.Event()

    async def forging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(OK)
        await forge.wait()
        writer.write(b"HTTP/1.1 299 Forged\r\nContent-Length: 0\r\n\r\n")
        forged.set()
        await reader.read()

    async with serving(forging) as port:
        task = a_task(f"http://127.0.0.1:{port}/")
        await sender.send(task, 5)
        forge.set()
        await asyncio.wait_for(forged.wait(), 5)
        time.sleep(0.01)  # on its way through loopback, while the loop looks at nothing
        assert (await sender.send(task, 5)).attempt.status == 200
    assert connections == 2


@pytest.mark.parametrize("promise", [b"", b"Keep-Alive: timeout=100\r\n"])
async def test_idle_connections_are_given_up(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch, promise: bytes
) -> None:
    """A connection that nobody used for the idle time is closed by us, whatever longer time the target promises."""
    monkeypatch.setattr(answer, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_SWEEP_SECONDS", 0.05)
    async with target(b"HTTP/1.1 200 OK\r\n" + promise + b"Content-Length: 0\r\n\r\n") as server:
        await sender.send(a_task(server.url), 5)
        assert server.open == 1
        await until(lambda: server.open == 0)
        await sender.send(a_task(server.url), 5)
        assert server.connections == 2


async def test_a_shorter_promise_is_kept(sender: HttpSender, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Keep-Alive: timeout=N` shortens the idle time to a second less than the target promised."""
    monkeypatch.setattr(pool, "_SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(answer, "IDLE_SECONDS", 3600.0)
    async with target(b"HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=2\r\nContent-Length: 0\r\n\r\n") as server:
        before = time.monotonic()
        await sender.send(a_task(server.url), 5)
        await until(lambda: server.open == 0)
        assert time.monotonic() - before > 0.9


async def test_idle_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No origin keeps more than its share, and where all are taken an idle one goes for the one that is needed."""
    monkeypatch.setattr(pool, "IDLE_PER_ORIGIN", 3)
    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 4) as sender, target() as one, target() as other:
        await asyncio.gather(*(sender.send(a_task(one.url), 5) for _ in range(4)))
        await until(lambda: one.open == 3)
        await sender.send(a_task(other.url), 5)
        assert one.open + other.open == 4
        await sender.send(a_task(other.url + "/again"), 5)
        await asyncio.gather(*(sender.send(a_task(other.url), 5) for _ in range(4)))
        await until(lambda: one.open + other.open <= 4)


async def test_cancelled_and_timed_out_calls_leave_no_connection_behind(sender: HttpSender) -> None:
    """A call that was given up closes its connection, so that its late answer reaches nobody."""
    arrived, gone = asyncio.Queue[None](), asyncio.Queue[None]()
    connections = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        arrived.put_nowait(None)
        await reader.read()
        gone.put_nowait(None)

    async with serving(late) as port:
        task = a_task(f"http://127.0.0.1:{port}/")
        call = sender.send(task, 60)
        await asyncio.wait_for(arrived.get(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.get(), 5)
        outcome = await sender.send(task, 0.5)
        assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "timeout")
        await asyncio.wait_for(gone.get(), 5)
    assert connections == 2


async def test_a_cancellation_beside_the_answer_does_not_reach_the_next_call(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call cancelled in the turn in which its answer came must not close the connection under the call that has
    taken it over meanwhile."""
    tasks: list[asyncio.Future[Outcome]] = []
    release = pool.Pool.release

    def hand_over(self: pool.Pool, given: connection.Connection) -> None:
        release(self, given)
        if len(tasks) == 1:
            # In this order: the next call takes the connection, the first is cancelled, the first is told.
            tasks.append(sender.send(a_task(server.url), 5))
            tasks[0].cancel()

    async with target() as server:
        monkeypatch.setattr(pool.Pool, "release", hand_over)
        tasks.append(sender.send(a_task(server.url), 5))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert (await tasks[1]).verdict is Verdict.DELIVERED
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_deadline_holds_on_a_kept_connection(sender: HttpSender) -> None:
    """A short time-out after a long one, and a long one after a short one, hold on one and the same connection."""
    hang = False

    async def maybe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            if not hang:
                writer.write(OK)

    async with serving(maybe) as port:
        task = a_task(f"http://127.0.0.1:{port}/")
        assert (await sender.send(task, 1000)).verdict is Verdict.DELIVERED
        assert (await sender.send(task, 0.2)).verdict is Verdict.DELIVERED
        await asyncio.sleep(0.3)  # past the deadline of the call that is over
        assert (await sender.send(task, 1000)).verdict is Verdict.DELIVERED
        hang = True
        before = time.monotonic()
        assert (await sender.send(task, 0.2)).reason == "timeout"
        assert 0.15 < time.monotonic() - before < 5


async def test_closing_ends_what_is_open() -> None:
    """When the sender closes, every connection is closed, and a call that was still open is a network error."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()
        gone.set()

    async with serving(hang) as port, target() as idle:
        async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10) as sender:
            await sender.send(a_task(idle.url), 5)
            call = sender.send(a_task(f"http://127.0.0.1:{port}/"), 60)
            await asyncio.wait_for(arrived.wait(), 5)
        outcome = await asyncio.wait_for(call, 5)
        assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "connection closed")
        await asyncio.wait_for(gone.wait(), 5)
        await until(lambda: idle.open == 0)
