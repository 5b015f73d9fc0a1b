"""What every Python peer has around its queue, written as one would at home: an aiohttp server that checks the client
and its window before it enqueues, and a worker that makes the call with aiohttp.

A peer file hands `main` two things: a context that yields ``put(task)``, and a worker.
python PEER.py serve|work|load URL_OF_REDIS [PORT | CLIENTS TASKS TARGET]
"""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import redis.asyncio
import uvloop
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

OPEN = 200  # calls at once

Put = Callable[[dict[str, Any]], Awaitable[str]]
Queue = Callable[[str], AbstractAsyncContextManager[Put]]
Work = Callable[[str], Awaitable[None]]

_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{3,64}")


def refuse(status: int, error: str) -> web.Response:
    """An error as JSON."""
    return web.Response(body=orjson.dumps({"error": error}), status=status, content_type="application/json")


def handler(store: "redis.asyncio.Redis[bytes]", put: Put) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The enqueue: client's id → its limit (GET) → its minute (INCR) → the queue."""

    async def enqueue(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        client = asked.get("client_id")
        if not isinstance(client, str) or not _CLIENT_ID.fullmatch(client):
            return refuse(401, "invalid client_id")
        stored = await store.get(f"client_config:{client}")
        if stored is None:
            return refuse(401, "unknown client")
        limit = orjson.loads(stored)["rate_limit"]["requests_per_min"]
        key = f"ratelimit:{client}:{int(time.time() // 60)}"
        used = await store.incr(key)
        if used == 1:
            await store.expire(key, 120)
        if used > limit:
            return refuse(429, "rate limit exceeded")
        task_id = await put(asked["task"])
        answer = {"status": "enqueued", "task_id": task_id, "client_id": client}
        return web.Response(body=orjson.dumps(answer), status=201, content_type="application/json")

    return enqueue


async def serve(queue: Queue, url: str, port: int) -> None:
    """The server, until it is killed."""
    store = redis.asyncio.Redis.from_url(url)
    async with queue(url) as put:
        app = web.Application()
        app.router.add_post("/v1/enqueue", handler(store, put))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


@asynccontextmanager
async def calls():  # type: ignore[no-untyped-def]
    """Yields the call of a task; any answer but 2xx raises, which the queue takes as a failure."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=OPEN)) as session:

        async def call(task: dict[str, Any]) -> None:
            async with session.request(
                task["method"], task["url"], data=task["body"], headers=task["headers"]
            ) as answer:
                await answer.read()
                answer.raise_for_status()

        yield call


async def load(queue: Queue, url: str, tasks: int, target: str) -> None:
    """Put ``tasks`` tasks into the queue."""
    from bench.payload import task  # noqa: PLC0415 - the path to it is set above

    made = task(target)
    left = iter(range(tasks))
    async with queue(url) as put:

        async def some() -> None:
            for _ in left:
                await put(made)

        await asyncio.gather(*(some() for _ in range(50)))


def main(queue: Queue, work: Work) -> None:
    """Do what the command line says."""
    what, url, *rest = sys.argv[1:]
    if what == "serve":
        uvloop.run(serve(queue, url, int(rest[0])))
    elif what == "load":
        uvloop.run(load(queue, url, int(rest[0]), rest[1]))
    else:
        uvloop.run(work(url))
