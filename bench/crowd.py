"""What `bench.operators` looks at: a Valkey with many clients and a deep queue, filled through the gateway's own calls,
and the target of what runs meanwhile."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from time import time
from typing import Any

import aiohttp

from bench import payload
from bench.processes import BenchError
from bench.valkey import LIMIT, Valkey, client_id
from gateway.store.keyspace import Keyspace

DEEP = "bench-000000"  # has the deepest queue, delayed tasks too
BROKEN, HANGING, LIVE = ("broken-%d", "hanging-%d", "live-%d")  # clients whose tasks run; all others are paused
FEW = 20  # of each of these
_TIERS = ("free", "basic", "premium", "enterprise", "default")
_CALLS = 8


@dataclass(frozen=True)
class Crowd:
    """How many of each."""

    clients: int = 50_000
    tasks: int = 1_000_000
    deepest: int = 90_000  # of them, one client's
    delayed: int = 5_000
    dead: int = 5_000
    hanging: int = 300

    def batches(self, target: str) -> Iterator[tuple[str, str, int]]:
        """Client, URL and number of the tasks, for batches of the queued: those of the deepest, then a share each."""
        for _ in range(self.deepest // 1000):
            yield DEEP, f"{target}/deep", 1000
        rest = self.tasks - self.deepest // 1000 * 1000
        others = [number for number in range(1, self.clients) if not _disabled(number)]
        for place, number in enumerate(others):
            share = rest * (place + 1) // len(others) - rest * place // len(others)
            yield client_id(number), f"http://api-{number % 500}.example.com/hook", share


QUICK = Crowd(clients=2_000, tasks=20_000, deepest=10_000, delayed=500, dead=500, hanging=50)


def _disabled(number: int) -> bool:
    return number % 50 == 49


def settle(server: Valkey, crowd: Crowd) -> None:
    """The clients, as the admin API would leave them."""
    keyspace = Keyspace("")
    names = [client_id(number) for number in range(crowd.clients)]
    names += [kind % number for kind in (BROKEN, HANGING, LIVE) for number in range(FEW)]

    def commands() -> Iterator[tuple[str | int, ...]]:
        for number, name in enumerate(names):
            config = {
                "client_id": name,
                "tier": _TIERS[number % len(_TIERS)],
                "rate_limit": LIMIT,
                "allowed_queues": None,
                "enabled": number >= crowd.clients or not _disabled(number),
                "created_at": "2024-01-15T10:30:00Z",
                "updated_at": "2024-01-15T10:30:00Z",
                "source": "client",
            }
            yield "SET", keyspace.config(name), json.dumps(config)
            yield "ZADD", keyspace.clients(0), 0, name

    server.pipeline(commands())


async def fill(port: int, crowd: Crowd, target: str) -> None:
    """Queue what is to wait, at a gateway that makes no calls."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def one(name: str, url: str, count: int) -> None:
            task = payload.task("") | {"url": url}
            tasks = [{"task": task, "labels": [f"order-{number % 997}"]} for number in range(count)]
            await batch(session, name, tasks)

        await at_once(one(*row) for row in crowd.batches(target) if row[2])
        delayed = [{"task": payload.task(target), "delay": 3600 + number} for number in range(1000)]
        await at_once(batch(session, DEEP, delayed[: crowd.delayed]) for _ in range(max(1, crowd.delayed // 1000)))


async def batch(session: aiohttp.ClientSession, name: str, tasks: list[dict[str, Any]]) -> None:
    """Enqueue them in one call; all must be accepted."""
    body = payload.compact({"client_id": name, "tasks": tasks})
    async with session.post("/v1/enqueue/batch", data=body, headers={"Content-Type": "application/json"}) as answer:
        if answer.status != 201:
            raise BenchError(f"a batch of {name} answered {answer.status}: {(await answer.text())[:200]}")


async def at_once(calls: Iterator[Coroutine[Any, Any, None]]) -> None:
    """A few at a time, from the iterator."""

    async def work() -> None:
        for call in calls:
            await call

    await asyncio.gather(*(work() for _ in range(_CALLS)))


def pause(server: Valkey, crowd: Crowd) -> None:
    """Hold what was queued, as `POST /admin/clients/pause` does for one client after the other."""
    now = int(time() * 1000)
    server.pipeline(("HSET", f"queues:{client_id(number)}", "!", now) for number in range(crowd.clients))


async def break_and_hang(session: aiohttp.ClientSession, crowd: Crowd, target: str) -> None:
    """Tasks that die at once, with statuses of several kinds, and some whose calls stay open."""
    each = crowd.dead // FEW
    for number in range(FEW):
        url = f"{target}/status/{(400, 403, 404, 410, 422)[number % 5]}"
        dead = [{"task": payload.task("") | {"url": url}} for _ in range(each)]
        for start in range(0, each, 1000):
            await batch(session, BROKEN % number, dead[start : start + 1000])
        hanging = [{"task": payload.task("") | {"url": f"{target}/hang"}}] * (crowd.hanging // FEW)
        await batch(session, HANGING % number, list(hanging))


class Answering(asyncio.Protocol):
    """Answers 204, `/status/N` with that status, and `/hang` never. A request comes in one piece here, or in two."""

    def __init__(self, connections: set[asyncio.BaseTransport]) -> None:
        self._connections = connections
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport
        self._connections.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget it."""
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request that is complete."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0] or 0)
        if not end or len(body) < length:
            return
        self._buffer = body[length:]
        path = head.split(b" ", 2)[1]
        if path == b"/hang":
            return
        status = path.removeprefix(b"/status/") if path.startswith(b"/status/") else b"204"
        self._transport.write(b"HTTP/1.1 %s x\r\nContent-Length: 0\r\n\r\n" % status)


@contextlib.asynccontextmanager
async def target() -> AsyncIterator[str]:
    """`Answering`, in this process."""
    connections: set[asyncio.BaseTransport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(connections), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for transport in list(connections):
        transport.close()
