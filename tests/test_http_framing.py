"""Where an answer ends: every way HTTP/1.1 has to say it, those that are not to be trusted, and what each means for
the connection."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from raw_http import OK, Target, a_task, read_request, serving, target

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http.answer import HEAD_BYTES, KEPT_BYTES, READ_BYTES
from gateway.dispatch.http.connection import Connection
from gateway.dispatch.sender import HttpSender
from gateway.models import Outcome, Verdict


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10) as opened:
        yield opened


async def twice(sender: HttpSender, server: Target, **changes: object) -> tuple[Outcome, Outcome]:
    """Two attempts, one after the other."""
    first = await sender.send(a_task(server.url, **changes), 5)
    return first, await sender.send(a_task(server.url, **changes), 5)


KEPT = [
    ("length", "POST", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
    ("no reason", "POST", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, ""),
    ("empty header", "POST", b"HTTP/1.1 200 OK\r\nX:\r\nY: \r\nContent-Length: 0\r\n\r\n", 200, ""),
    ("no content", "POST", b"HTTP/1.1 204 No\r\n\r\n", 204, ""),
    ("no content with a length", "POST", b"HTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\n", 204, ""),
    ("not modified", "GET", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", 304, ""),
    ("head", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 200, ""),
    ("head, empty", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
    ("interim", "POST", b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\n" + OK, 200, "ok"),
    (
        "chunks and a trailer",
        "POST",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n",
        200,
        "abcd",
    ),
    ("old, kept", "POST", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", 200, "x"),
    ("promised", "POST", b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n", 200, ""),
]


@pytest.mark.parametrize(("method", "answer", "status", "body"), [case[1:] for case in KEPT], ids=[c[0] for c in KEPT])
async def test_what_ends_by_its_framing_keeps_the_connection(
    sender: HttpSender, method: str, answer: bytes, status: int, body: str
) -> None:
    """An answer whose end is certain is an outcome, and the next call goes over the same connection."""
    async with target(answer) as server:
        for outcome in await twice(sender, server, method=method):
            assert (outcome.attempt.status, outcome.attempt.body) == (status, body)
            assert outcome.attempt.error is None
    assert (server.connections, len(server.requests)) == (1, 2)


ENDED = [
    ("close", "POST", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False, "ok"),
    ("old", "POST", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False, "ok"),
    ("until close", "POST", b"HTTP/1.1 200 OK\r\n\r\nok", True, "ok"),
    ("old until close", "POST", b"HTTP/1.0 200 OK\r\n\r\nok", True, "ok"),
    ("until close, empty", "POST", b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
    ("other coding", "POST", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", True, "ok"),
    (
        "old chunks",
        "POST",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        False,
        "ok",
    ),
    ("head of chunks", "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False, ""),
    ("head without a length", "HEAD", b"HTTP/1.1 200 OK\r\n\r\n", False, ""),
    ("head with a body", "HEAD", OK, False, ""),
    ("second answer", "POST", OK + b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx", False, "ok"),
    ("second answer to head", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + OK, False, ""),
    ("more than announced", "POST", OK + b"x", False, "ok"),
    ("no content, and some", "POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", False, ""),
    ("shortest promise", "POST", b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n", False, ""),
    ("no promise", "POST", b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 0\r\n\r\n", False, ""),
]


@pytest.mark.parametrize(("method", "answer", "close", "body"), [case[1:] for case in ENDED], ids=[c[0] for c in ENDED])
async def test_what_ends_with_the_connection_counts(
    sender: HttpSender, method: str, answer: bytes, close: bool, body: str
) -> None:
    """The answer counts, and the connection is not used again: it is closed, or holds bytes that would pass for the
    next answer."""
    async with target(answer, then_close=close) as server:
        for outcome in await twice(sender, server, method=method):
            assert (outcome.verdict, outcome.attempt.status, outcome.attempt.body) == (Verdict.DELIVERED, 200, body)
    assert (server.connections, len(server.requests)) == (2, 2)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INVALID = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
    b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + OK,
    b"HTTP/2.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"\0" * 64,
    CHUNKED + b"-2\r\nab\r\n0\r\n\r\n",
    CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    CHUNKED + b"2 \r\nab\r\n0\r\n\r\n",
    CHUNKED + b"fffffffffffffffff\r\nab\r\n0\r\n\r\n",
    CHUNKED + b"2\nab\r\n0\r\n\r\n",
    CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    CHUNKED + b"g\r\nab\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("answer", INVALID, ids=range(len(INVALID)))
async def test_doubtful_answers_are_errors(sender: HttpSender, answer: bytes) -> None:
    """Shapes that two parsers may read differently are no answer at all, and their connection is closed."""
    async with target(answer) as server:
        for outcome in await twice(sender, server):
            assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, "invalid response")
    assert (server.connections, len(server.requests)) == (2, 2)


CUT = [
    (b"", "connection closed", None),
    (b"HTTP/1.1 200 OK\r\nContent-Le", "connection closed", None),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "connection closed", None),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "response cut off", 200),
    (CHUNKED, "response cut off", 200),
    (CHUNKED + b"2\r\nok\r\n", "response cut off", 200),
    (CHUNKED + b"2\r\nok\r\n0\r\n", "response cut off", 200),
    (CHUNKED + b"5\r\nok", "response cut off", 200),
]


@pytest.mark.parametrize(("answer", "reason", "status"), CUT, ids=range(len(CUT)))
async def test_an_answer_that_ends_early_is_an_error(
    sender: HttpSender, answer: bytes, reason: str, status: int | None
) -> None:
    """Where the framing announced more, the end of the connection is not the end of the answer."""
    async with target(answer, then_close=True) as server:
        for outcome in await twice(sender, server):
            assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, reason)
            assert outcome.attempt.status == status


async def test_heads_are_bounded(sender: HttpSender) -> None:
    """64 KiB of head are read, all interim answers included, and no more, in however many headers."""
    fits = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: %s\r\n\r\n"
    fits %= b"x" * (HEAD_BYTES - len(fits) + 2)
    assert len(fits) == HEAD_BYTES
    interim = b"HTTP/1.1 103 Early\r\n\r\n"
    for answer, fine in (
        (fits, True),
        (interim + fits, False),
        (fits.replace(b"X: ", b"XX: "), False),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", False),
        (interim * 5_000 + OK, False),
    ):
        async with target(answer) as server:
            outcome = await sender.send(a_task(server.url), 5)
        assert outcome.reason == ("http 200" if fine else "invalid response")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000,
        CHUNKED + b"1;%s\r\nx\r\n" % (b"e" * 5_000_000),
        CHUNKED + b"1000\r\n%s\r\n0\r\n" % (b"x" * KEPT_BYTES) + b"T: %s\r\n" % (b"t" * 5_000_000),
        CHUNKED + b"1\r\nx\r\n" * 1_000_000,
    ],
    ids=["length", "extension", "trailer", "chunks"],
)
async def test_what_is_read_is_bounded(sender: HttpSender, answer: bytes) -> None:
    """Past 64 KiB of a body, its framing and its trailers the status counts and the connection is closed."""
    async with target(answer) as server:
        for outcome in await twice(sender, server):
            assert outcome.reason == "http 200"
            assert len(outcome.attempt.body or "") <= KEPT_BYTES
    assert server.connections == 2
    assert len(answer) > READ_BYTES


async def test_an_answer_before_the_request_is_sent_counts(sender: HttpSender) -> None:
    """A target that refuses a large body at its head is heard, the rest of the body is not sent, and no other request
    follows on that connection."""
    received = 0
    connections = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received, connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        while piece := await reader.read(65536):
            received += len(piece)

    body = b"x" * 50_000_000
    async with serving(refuse) as port:
        for _ in range(2):
            outcome = await sender.send(a_task(f"http://127.0.0.1:{port}/", body=body), 10)
            assert (outcome.verdict, outcome.attempt.status, outcome.attempt.body) == (Verdict.REFUSED, 413, "big")
    assert connections == 2
    assert received < len(body)


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop sends at the end of a turn, when it has read
async def test_an_answer_counts_though_a_write_failed_first(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that answers and closes without reading the body resets the connection; where the next write meets that
    before anything was read, the answer counts all the same."""
    listener = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()

    def refuse() -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(65536)
            accepted.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        closed.set()

    send_more = Connection._send_more

    def send_late(self: Connection) -> None:
        assert closed.wait(10)
        send_more(self)

    monkeypatch.setattr(Connection, "_send_more", send_late)
    target_thread = threading.Thread(target=refuse)
    target_thread.start()
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        outcome = await sender.send(a_task(url, body=b"x" * 5_000_000), 10)
        target_thread.join()
    assert (outcome.attempt.status, outcome.attempt.body) == (413, "big")


async def test_large_bodies_arrive_whole(sender: HttpSender) -> None:
    """A body many times the transport's buffer arrives byte for byte, at a target that takes its time to read it."""
    body = bytes(range(256)) * 40_000
    seen = b""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        for _ in range(2):
            seen = await read_request(reader)
            writer.write(OK)

    async with serving(slow) as port:
        for _ in range(2):
            outcome = await sender.send(a_task(f"http://127.0.0.1:{port}/", body=body), 20)
            assert outcome.verdict is Verdict.DELIVERED
            assert seen.endswith(b"\r\n\r\n" + body)


async def test_length_is_said_where_a_body_is_expected(sender: HttpSender) -> None:
    """POST, PUT and PATCH without a body say `Content-Length: 0`, other methods say nothing."""
    for method in ("POST", "PUT", "PATCH", "GET", "HEAD", "DELETE", "OPTIONS"):
        async with target(b"HTTP/1.1 204 No\r\n\r\n") as server:
            await sender.send(a_task(server.url, method=method), 5)
        said = b"\r\nContent-Length: 0\r\n" in server.requests[0]
        assert said == (method in {"POST", "PUT", "PATCH"})
