"""`/admin/ui/events`: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) that tell an
open page what calls of the operators' API answer now, so that it need not ask again and again."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.admin import flow, overview, redis, replicas
from gateway.errors import GatewayError, InvalidBody, ServiceUnavailable
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.answers import error_answer
from gateway.middleware.sessions import session_of

log = structlog.get_logger()

# What can be watched: calls whose cost is small and does not grow with what is stored.
WATCHABLE: Final[Mapping[str, Handler]] = {
    "overview": overview.show_overview,
    "clients/usage": flow.usage,
    "replicas": replicas.list_replicas,
    "redis": redis.show_redis,
}
EVERY_SECONDS: Final = 2.0
_STREAM_SECONDS: Final = 600.0  # then the browser comes again, and its session is renewed
_MOST_WATCHED: Final = 4
_MOST_STREAMS: Final = 200


class Streams:
    """Those of one process. Pages that watch the same are told the same: it is asked for once."""

    def __init__(self) -> None:
        self.open = 0
        self.ending = asyncio.Event()
        self._told: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    async def answer(self, request: web.Request, watched: str) -> bytes:
        """The event for what this call answers, at most a tick old."""
        now = time.monotonic()
        found = self._told.get(watched)
        if found is None or now - found[0] >= EVERY_SECONDS * 0.9:
            self._told = {key: kept for key, kept in self._told.items() if now - kept[0] < EVERY_SECONDS}
            found = self._told[watched] = now, asyncio.create_task(_event(request, watched))
        return await found[1]

    async def wait(self) -> bool:
        """Until the next tick; whether there is one, for the process may stop."""
        try:
            async with asyncio.timeout(EVERY_SECONDS):
                await self.ending.wait()
        except TimeoutError:
            return True
        return False


STREAMS: Final = web.AppKey("streams", Streams)


async def stream(request: web.Request) -> web.StreamResponse:
    """An event for each of `watch` at once, and again whenever what it tells has changed."""
    watched = _watched(request)
    streams = request.app[STREAMS]
    if streams.open >= _MOST_STREAMS:
        msg = f"{_MOST_STREAMS} pages are being told already; close some"
        raise ServiceUnavailable(msg, retry_after=30)
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})  # nginx would keep it back
    response.content_type = "text/event-stream"
    streams.open += 1
    try:
        await response.prepare(request)
        await _tell(request, response, watched, streams)
    except ConnectionError:
        pass  # the page was closed or hidden
    except Exception:
        log.exception("events_failed")  # the head is sent, so it can't become an answer; the browser comes again
    finally:
        streams.open -= 1
    return response


async def _tell(request: web.Request, response: web.StreamResponse, watched: list[str], streams: Streams) -> None:
    end = time.monotonic() + _STREAM_SECONDS
    told: dict[str, bytes] = {}
    await response.write(b"retry: 1000\n\n")
    while await _still_in(request):
        for name in watched:
            event = await streams.answer(request, name)
            if told.get(name) != event:
                await response.write(event)
                told[name] = event
        await response.write(b":\n\n")  # a page that is gone is noticed by what can't be written
        if not await streams.wait() or time.monotonic() > end:
            break


async def _still_in(request: web.Request) -> bool:
    """Whether the key or the session that the stream began with still holds."""
    if RequestKeys.SESSION not in request:
        return request.app[AppKeys.KEYRING].holds(request[RequestKeys.ADMIN_KEY])
    try:
        return await session_of(request, request.app[AppKeys.KEYRING]) is not None
    except GatewayError:
        return True  # Redis is away: the page is told so by what it watches


def _watched(request: web.Request) -> list[str]:
    names = list(dict.fromkeys(request.query.getall("watch", [])))
    if not 1 <= len(names) <= _MOST_WATCHED or any(name.partition("?")[0] not in WATCHABLE for name in names):
        msg = f"watch: must be 1 to {_MOST_WATCHED} of {', '.join(WATCHABLE)}, with the query of each"
        raise InvalidBody(msg, error="Invalid query")
    return names


async def _event(request: web.Request, watched: str) -> bytes:
    call = request.clone(rel_url=f"/admin/{watched}")
    try:
        answer = await WATCHABLE[watched.partition("?")[0]](call)
    except GatewayError as problem:
        answer = error_answer(problem)
    body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b"null"
    head = orjson.dumps({"watch": watched, "status": answer.status})
    return b"data: " + head[:-1] + b',"body":' + body + b"}\n\n"


def set_up(app: web.Application) -> None:
    """Streams end when the process stops, since it waits for open answers."""
    app[STREAMS] = Streams()

    async def end(_: web.Application) -> None:
        app[STREAMS].ending.set()

    app.on_shutdown.append(end)


ROUTES = (web.get("/ui/events", stream),)
