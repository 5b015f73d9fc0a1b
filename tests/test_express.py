"""The express way of an enqueue answers as the chain does, and leaves what it does not know to aiohttp, whatever comes
on the same connection before, after or in the midst of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Gateway, GatewayFactory, until

from gateway.api import express
from gateway.api.express import Express
from gateway.errors import StoreUnavailable
from gateway.middleware.heads import Heads

CHAIN = {"X-Other": "makes the request take the ordinary way"}
# What differs between any two answers.
OWN = {"Date", "X-Request-ID", "Content-Length", "RateLimit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}


def body(name: str, **changes: Any) -> dict[str, Any]:
    return {"client_id": name, "task": {"url": "http://192.0.2.1/hook", "body": {"n": 1}}, **changes}


def request(client_id: str, *lines: str, path: str = "/v1/enqueue", **changes: Any) -> bytes:
    """The bytes of one enqueue."""
    raw = json.dumps(body(client_id, **changes)).encode()
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: gateway", f"Content-Length: {len(raw)}", *lines])
    return f"{head}\r\n\r\n".encode() + raw


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What `Express.take` has said so far."""
    said: list[bool] = []
    take = Express.take

    def noting(*args: Any) -> bool:
        said.append(take(*args))
        return said[-1]

    monkeypatch.setattr(Express, "take", noting)
    return said


async def ready(gateway: GatewayFactory, client_id: str, **settings: str) -> Gateway:
    """A gateway that knows the client: a first request is always the chain's."""
    gw = await gateway(dispatch=False, **settings)
    await gw.admin("POST", "/admin/clients/set", json={"client_id": client_id, "tier": "premium"})
    assert (await gw.enqueue(body(client_id)))[0] == 201
    return gw


class Wire:
    """One connection, of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.name = writer.get_extra_info("sockname")

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        raw = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(status.split()[1]), headers, json.loads(raw)


@asynccontextmanager
async def connected(gw: Gateway) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delay": 60, "queue": "later"},
        {"cost": 3, "labels": ["a"], "max_retry": 0},
        {"idempotency_key": "same"},
        {"cost": 100_000},
        {"queue": "no such!"},
        {"dealy": 1},
        {"task": {"url": "http://169.254.169.254/"}},
        {"rate_limit": {"max_concurrent": 2, "requests_per_min": 9}},
        {"client_id": "else"},
        {"client_id": None},
    ],
)
async def test_both_ways_answer_the_same(
    gateway: GatewayFactory, a_client: str, taken: list[bool], changes: dict[str, Any]
) -> None:
    """Status, body and headers, of what is accepted, refused and malformed."""
    gw = await ready(gateway, a_client)
    asked = body(a_client, **changes)
    if "idempotency_key" in changes:
        await gw.enqueue(asked)
    taken.clear()
    one, other = await gw.enqueue(asked), await gw.enqueue(asked, headers=CHAIN)
    assert taken == [one[0] in {200, 201} and not {"rate_limit", "client_id"} & changes.keys()]
    assert (one[0], _shared(one[1])) == (other[0], _shared(other[1]))
    kept = [{name: value for name, value in headers.items() if name not in OWN} for _, _, headers in (one, other)]
    assert kept[0] == kept[1]
    assert set(one[2]) == set(other[2])


def _shared(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "task_id" or told["status"] == "duplicate"}


async def test_a_full_window_is_refused_in_the_chains_words(
    gateway: GatewayFactory, a_client: str, taken: list[bool]
) -> None:
    """429 with Retry-After and the headers of the window, and a line in the log that has the request's id."""
    gw = await ready(gateway, a_client)
    await gw.admin(
        "POST",
        "/admin/clients/set",
        json={"client_id": a_client, "rate_limit": {"max_concurrent": 1, "requests_per_min": 1}},
    )
    await gw.enqueue(body(a_client), headers=CHAIN)
    one, other = await gw.enqueue(body(a_client)), await gw.enqueue(body(a_client), headers=CHAIN)
    assert taken[-1:] == [True]
    assert (one[0], one[1]) == (other[0], other[1])
    assert one[1]["message"] == "exceeded 1 requests per minute (current: 2)"
    assert 1 <= int(one[2]["Retry-After"]) <= 61
    assert set(one[2]) == set(other[2])


@pytest.mark.parametrize("unknown", [True, False])
async def test_where_redis_fails_the_answer_is_a_503(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch, unknown: bool
) -> None:
    """It is asked once, and the answer says where the task may exist."""
    gw = await ready(gateway, a_client)
    calls = []

    async def fails(*args: Any) -> Any:
        calls.append(args)
        raise StoreUnavailable("away", unknown=unknown)

    monkeypatch.setattr(gw.store.tasks.admissions._merger, "_carry_out", fails)
    status, told, headers = await gw.enqueue(body(a_client))
    assert (status, told["error"], headers["Retry-After"]) == (503, "Service unavailable", "1")
    assert ("may exist" in told["message"]) is unknown
    assert len(calls) == 1


async def test_who_asked_hears_of_a_defect(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer can't be worded, it says so, and the next one is as ever."""
    gw = await ready(gateway, a_client)
    with monkeypatch.context() as broken:
        broken.setattr(express, "enqueued", None)
        status, told, headers = await gw.enqueue(body(a_client))
    assert (status, told["error"]) == (500, "Internal error")
    assert headers["X-Request-ID"] in told["message"]
    assert (await gw.enqueue(body(a_client)))[0] == 201


async def test_a_request_may_be_cut_at_every_byte(gateway: GatewayFactory, a_client: str) -> None:
    """In two parts it is stored once, and the connection goes on."""
    gw = await ready(gateway, a_client)
    whole = request(a_client)
    before = (await gw.store.windows.usage(a_client)).queued
    cuts = range(1, len(whole), 7)
    for cut in cuts:
        async with connected(gw) as wire:
            wire.writer.write(whole[:cut])
            await wire.writer.drain()
            [seen] = [each for each in gw.runner.server.connections if each.peername == wire.name]
            await until(lambda seen=seen, cut=cut: cut in {len(seen._held), seen._head_bytes} or seen._due)
            wire.writer.write(whole[cut:])
            assert (await wire.answer())[0] == 201
            wire.writer.write(whole)
            assert (await wire.answer())[0] == 201
    assert (await gw.store.windows.usage(a_client)).queued == before + 2 * len(cuts)


async def test_requests_of_any_kind_share_a_connection(
    gateway: GatewayFactory, a_client: str, taken: list[bool]
) -> None:
    """After a read, a refusal or an unknown path the next enqueue takes the express way again."""
    gw = await ready(gateway, a_client)
    get = f"GET /v1/rate-limit?client_id={a_client} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode()
    async with connected(gw) as wire:
        for sent, status in (
            (request(a_client), 201),
            (get, 200),
            (request(a_client), 201),
            (request(a_client, queue="no such!"), 400),
            (request(a_client), 201),
            (request(a_client, path="/elsewhere"), 404),
        ):
            wire.writer.write(sent)
            assert (await wire.answer())[0] == status
    assert taken[-4:] == [True, True, False, True]


async def test_pipelined_requests_are_answered_in_order(gateway: GatewayFactory, a_client: str) -> None:
    """However many come at one blow, mixed with others; more than is held at a time is read later."""
    gw = await ready(gateway, a_client, MAX_QUEUED_PER_CLIENT="100000")
    get = f"GET /v1/tasks/none?client_id={a_client} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode()
    async with connected(gw) as wire:
        wire.writer.write(request(a_client))
        wire.writer.write((request(a_client) + get) * 30 + request(a_client))
        answers = [(await wire.answer())[0] for _ in range(62)]
        assert answers == [201, *[201, 404] * 30, 201]
    async with connected(gw) as wire:
        marked = [request(a_client, f"X-Request-ID: {number}") for number in range(600)]
        sending = asyncio.create_task(_send_each(wire, marked))
        told = [(await wire.answer())[1]["X-Request-ID"] for _ in marked]
        await sending
        assert told == [str(number) for number in range(600)]


async def _send_each(wire: Wire, requests: list[bytes]) -> None:
    for one in requests:
        wire.writer.write(one)
        await wire.writer.drain()


def held_at_redis(gw: Gateway, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Admissions wait before Redis: the first event tells that one does, the second lets them go on."""
    merger = gw.store.tasks.admissions._merger
    carry_out, asked, go = merger._carry_out, asyncio.Event(), asyncio.Event()

    async def held(*args: Any) -> Any:
        asked.set()
        await go.wait()
        return await carry_out(*args)

    monkeypatch.setattr(merger, "_carry_out", held)
    return asked, go


async def test_a_caller_that_hangs_up_changes_nothing(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is stored, and a stop waits for the answer that is still to come."""
    gw = await ready(gateway, a_client)
    asked, go = held_at_redis(gw, monkeypatch)
    before = (await gw.store.windows.usage(a_client)).queued
    async with connected(gw) as wire:
        wire.writer.write(request(a_client))
        await asyncio.wait_for(asked.wait(), 10)
    go.set()

    async def stored() -> bool:
        return (await gw.store.windows.usage(a_client)).queued == before + 1

    await until(stored)


async def test_a_stop_waits_for_the_answer(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is with Redis when the listener closes still gets its 201."""
    gw = await ready(gateway, a_client)
    asked, go = held_at_redis(gw, monkeypatch)
    async with connected(gw) as wire:
        wire.writer.write(request(a_client))
        await asyncio.wait_for(asked.wait(), 10)
        [connection] = [each for each in gw.runner.server.connections if each._answering]
        stopping = asyncio.create_task(connection.shutdown(10))
        await asyncio.sleep(0)
        go.set()
        assert (await wire.answer())[0] == 201
        await stopping
        assert await wire.reader.read() == b""


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked"],
        ["Content-Length: +5"],
        ["Content-Length: 5", "Expect: 100-continue"],
        ["Content-Length: 5", "Connection: close"],
        ["Content-Length: 5", "Connection: upgrade", "Upgrade: h2c"],
        ["Content-Length: 5", "Content-Encoding: gzip"],
        ["Content-Length: 5", "Content-Type: text/plain"],
        ["Content-Length: 5", "X-Client-ID: one", "X-Client-ID: two"],
        ["Content-Length : 5"],
        ["Content-Length: 5", " folded: yes"],
        ["Content-Length: 5\nX-Client-ID: one"],
        ["Content-Length: 5", "X-Client-ID: \xe9"],
    ],
)
def test_a_head_that_is_not_plain_takes_the_ordinary_way(lines: list[str]) -> None:
    """Whatever decides how a body is read, or could be read in two ways, is aiohttp's to judge, each time it comes."""
    heads = Heads("/v1/enqueue")
    head = "\r\n".join(["POST /v1/enqueue HTTP/1.1", "Host: gateway", *lines]).encode("latin-1")
    assert heads.read(head) is None
    assert heads.read(head) is None


def test_a_plain_head_is_read_and_remembered_within_bounds() -> None:
    """What it says comes from its bytes alone, the first time and the second, and few are remembered."""
    heads = Heads("/v1/enqueue")
    head = b"POST /v1/enqueue HTTP/1.1\r\nhost: x\r\nContent-Length: 12\r\nX-CLIENT-ID: acme\r\nidempotency-key: k"
    first = heads.read(head)
    assert first is not None
    assert (first.length, first.client_id, first.idempotency_key, first.trace) == (12, "acme", "k", "")
    assert heads.read(head) is first
    for number in range(3000):
        assert heads.read(head + b"%d" % number) is not None
    assert len(heads._known) <= 1024
    long = head + b"k" * 3000
    assert heads.read(long) is not None
    assert long not in heads._known
    assert heads.read(head.replace(b"/v1/enqueue", b"/v1/enqueue?a=1")) is None
    assert heads.read(head.replace(b"HTTP/1.1", b"HTTP/1.0")) is None
