"""Answers as they never should be: cut at every byte, mutated, mixed. Whatever comes, the call ends, and a connection
is only kept when what it carried was exactly one answer."""

import asyncio
import itertools
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import OK, a_task, read_request, serving

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http.answer import Answer
from gateway.dispatch.http.connection import Connection, Outbox
from gateway.dispatch.http.errors import CallFailed
from gateway.dispatch.http.message import Origin, Request
from gateway.dispatch.sender import HttpSender

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
VALID = [
    OK,
    b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nRetry-After: 9\r\n\r\n" + OK,
    CHUNKED + b"\r\n3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nRetry-After: 3\r\nB: c\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end",
]
GET = Request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, bodiless=False)
HEAD = Request(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", None, bodiless=True)


class Wire(asyncio.Transport):
    """The target's side of a connection that is none, and its keeper."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.kept = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def add(self, connection: Connection) -> None:
        self.kept = False

    def release(self, connection: Connection) -> None:
        assert not self.closed
        self.kept = True

    def forget(self, connection: Connection) -> None:
        self.kept = False


@contextmanager
def a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


def receive(
    loop: asyncio.AbstractEventLoop, pieces: list[bytes], request: Request
) -> tuple[str, int, str | None, bytes, bool]:
    """What comes of an answer in these pieces and the connection's end: the reason, the answer, whether the connection
    was kept after the last piece."""
    wire = Wire()
    sock = socket.socket()
    made = Connection(loop, Origin(tls=False, host="a", port=80), sock, wire, Outbox(loop))
    made.connection_made(wire)
    answer = Answer()

    async def call() -> str:
        ended: list[Exception | None] = []
        made.exchange(request, answer, loop.time() + 60, ended.append)
        while not wire.written:
            await asyncio.sleep(0)
        for piece in pieces:
            if not wire.closed:
                made.data_received(piece)
        kept.append(wire.kept and not wire.closed)
        made.eof_received()
        made.connection_lost(None)
        assert wire.closed
        (problem,) = ended  # told, and told once
        if problem is None:
            return "complete"
        assert isinstance(problem, CallFailed)
        return problem.reason

    kept: list[bool] = []
    with sock:
        reason = loop.run_until_complete(call())
    return reason, answer.status, answer.retry_after, answer.body, kept[0]


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_however_an_answer_is_split_it_is_the_same(data: bytes) -> None:
    """Cut in two or three at any bytes, or byte by byte, an answer means the same, for the connection too."""
    with a_loop() as loop:
        whole = receive(loop, [data], GET)
        assert whole[0] == "complete"
        assert receive(loop, [data[n : n + 1] for n in range(len(data))], GET) == whole
        for one in range(1, len(data)):
            assert receive(loop, [data[:one], data[one:]], GET) == whole
        for one, two in itertools.combinations(range(1, len(data), 3), 2):
            assert receive(loop, [data[:one], data[one:two], data[two:]], GET) == whole


@pytest.mark.parametrize("data", VALID[:-1], ids=range(len(VALID) - 1))
def test_however_short_an_answer_is_it_ends(data: bytes) -> None:
    """Cut off after any byte it is an error with a name, never a success, and the connection is not kept."""
    with a_loop() as loop:
        for end in range(len(data)):
            reason, _, _, _, kept = receive(loop, [data[:end]], GET)
            assert reason in {"connection closed", "response cut off"}, end
            assert not kept


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_bytes_behind_an_answer_end_the_connection(data: bytes) -> None:
    """Whatever else is on the connection, in the same piece or the next, it is not kept, and the answer stands."""
    with a_loop() as loop:
        whole = receive(loop, [data], GET)
        for more in (b"x", b"\0", b"H", OK, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"):
            for pieces in ([data + more], [data, more]):
                reason, status, retry_after, body, kept = receive(loop, pieces, GET)
                assert not kept
                if whole[4]:
                    assert (reason, status, retry_after, body) == whole[:4]


def test_bytes_before_a_request_end_the_connection() -> None:
    """What comes between a call's taking of a connection and its request is no answer to it: nothing is sent then."""

    async def call() -> None:
        loop, wire = asyncio.get_running_loop(), Wire()
        with socket.socket() as sock:
            made = Connection(loop, Origin(tls=False, host="a", port=80), sock, wire, Outbox(loop))
            made.connection_made(wire)
            ended: list[Exception | None] = []
            made.exchange(GET, Answer(), loop.time() + 60, ended.append)
            assert not wire.written
            made.data_received(OK)
            assert isinstance(ended[0], CallFailed)
            await asyncio.sleep(0)
        assert wire.closed
        assert not wire.written

    asyncio.run(call())


def one_answer(data: bytes, *, bodiless: bool) -> bool:
    """Whether these bytes are exactly one answer, by the letter of RFC 9112, 6.3: a second reading, that knows nothing
    of the parser."""
    status = 100
    while 100 <= status < 200:
        head, end, data = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
        line = re.match(rb"[A-Z]+/1\.[01] ([0-9]{3})", head)
        if not end or line is None:
            return False
        status = int(line[1])
    fields: dict[bytes, bytes] = {}
    for field in head.split(b"\r\n")[1:]:
        name, _, value = field.partition(b":")
        if name.lower() in {b"content-length", b"transfer-encoding"} and name.lower() in fields:
            return False
        fields[name.lower()] = value.strip(b" \t").lower()
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None and length is not None:
        return False
    rest = data.rstrip(b"\r\n")
    if bodiless or status in {204, 304}:
        return not rest
    if coding is not None:
        return re.fullmatch(rb"chunked|.*[, \t]chunked", coding) is not None and _chunks_end(data)
    if length is None or not re.fullmatch(rb"[0-9]+", length):
        return False
    return len(data) >= int(length) and not data[int(length) :].strip(b"\r\n")


def _chunks_end(data: bytes) -> bool:
    while match := re.match(rb"([0-9a-fA-F]+)(;[^\r\n]*)?\r\n", data):
        size, data = int(match[1], 16), data[match.end() :]
        if size == 0:
            return re.fullmatch(rb"([^\r\n]+\r\n)*\r\n[\r\n]*", data) is not None
        if data[size : size + 2] != b"\r\n":
            return False
        data = data[size + 2 :]
    return False


TOKENS = [b"\r\n", b"\n", b"\r", b"0", b"1", b"2", b"f", b":", b" ", b"\t", b";", b",", b"\0", b"\xff", b"-"]
TOKENS += [b"Content-Length: 2\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", OK]
TOKENS += [b"HTTP/1.1 ", b"100", b"101", b"204", b"304", b"Connection: close\r\n", b"Transfer-Encoding: x\r\n", b"ok"]
EDITS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 4), st.sampled_from(TOKENS) | st.binary(max_size=3)), max_size=4
)


def mutated(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The data with a few bytes dropped and others put in their place."""
    for place, dropped, put in edits:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + dropped :]
    return data


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(VALID), EDITS, st.lists(st.integers(0, 300), max_size=4), st.booleans())
def test_mutated_answers_end_and_poison_nothing(
    data: bytes, edits: list[tuple[int, int, bytes]], cuts: list[int], bodiless: bool
) -> None:
    """Whatever a target sends, the call ends with a reason or an answer; a connection that is kept has carried exactly
    one answer by another reading of the same bytes."""
    data = mutated(data, edits)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges) if start < end]
    with a_loop() as loop:
        reason, status, _, _, kept = receive(loop, pieces, HEAD if bodiless else GET)
    assert reason in {"complete", "connection closed", "response cut off", "invalid response"}
    if reason == "complete":
        assert status >= 200
    if kept:
        assert reason == "complete"
        assert one_answer(data, bodiless=bodiless), data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(VALID), EDITS), min_size=1, max_size=4))
def test_mutated_answers_on_real_connections(answers: list[tuple[bytes, list[tuple[int, int, bytes]]]]) -> None:
    """The same over sockets: every call ends in an outcome, and none is answered with what was sent for another."""
    made = [mutated(data, edits) for data, edits in answers]

    async def run() -> None:
        served: list[int] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await read_request(reader)
                served.append(int(request.split(b"/")[1].split(b" ")[0]))
                writer.write(made[served[-1]] if served[-1] < len(made) else OK)
                await writer.drain()
                if served[-1] < len(made) and not one_answer(made[served[-1]], bodiless=False):
                    return

        async with serving(answer) as port, HttpSender(EgressGuard(["127.0.0.0/8"]), 5) as sender:
            for number in range(len(made)):
                outcome = await asyncio.wait_for(sender.send(a_task(f"http://127.0.0.1:{port}/{number}"), 0.5), 10)
                assert outcome.reason != "internal error"
            last = await sender.send(a_task(f"http://127.0.0.1:{port}/{len(made)}"), 5)
            assert (last.reason, last.attempt.body) == ("http 200", "ok")
        assert served == list(range(len(made) + 1))

    asyncio.run(run())
