"""The least that aiohttp costs, and what a leaner client could reach: no checks, no queue, no Redis.

python bench/floors.py server PORT; or aiohttp|httptools URL TASKS OPEN, which posts to the target.
"""

import asyncio
import sys
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import uvloop
from aiohttp import web

_BODY = b"x" * 90


async def _enqueue(request: web.Request) -> web.Response:
    asked = orjson.loads(await request.read())
    answer = {"status": "enqueued", "task_id": asked["client_id"]}
    return web.Response(body=orjson.dumps(answer), status=201, content_type="application/json")


async def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_post("/v1/enqueue", _enqueue)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def _aiohttp(url: str, total: int, at_once: int) -> None:
    numbers = count()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:

        async def work() -> None:
            while next(numbers) < total:
                async with session.post(url, data=_BODY, headers={"Content-Type": "text/plain"}) as answer:
                    await answer.read()

        await asyncio.gather(*(work() for _ in range(at_once)))


class _Connection(asyncio.Protocol):
    """Request after request on one connection, parsed by llhttp, each with a time-out."""

    def __init__(self, request: bytes, numbers: "count[int]", total: int, make_parser: Any) -> None:
        self._request, self._numbers, self._total = request, numbers, total
        self._parser = make_parser(self)
        self._loop = asyncio.get_running_loop()
        self.done = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._timer = self._loop.call_later(30, transport.close)
        self._send()

    def _send(self) -> None:
        self._timer.cancel()
        if next(self._numbers) >= self._total:
            self.done.set_result(None)
            return
        self._timer = self._loop.call_later(30, self._transport.close)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._send()


async def _httptools(url: str, total: int, at_once: int) -> None:
    import httptools  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - the one mode that needs it

    parts = urlsplit(url)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(_BODY)}\r\n\r\n"
    ).encode() + _BODY
    numbers = count()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda: _Connection(request, numbers, total, httptools.HttpResponseParser), "127.0.0.1", parts.port or 80
        )
        for _ in range(at_once)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))


if __name__ == "__main__":
    mode = sys.argv[1]
    if mode == "server":
        uvloop.run(_serve(int(sys.argv[2])))
    else:
        run = {"aiohttp": _aiohttp, "httptools": _httptools}[mode]
        uvloop.run(run(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
