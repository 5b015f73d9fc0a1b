"""The probes and the metrics: what an orchestrator and Prometheus ask."""

import asyncio

from aiohttp import web

import gateway
from gateway import metrics
from gateway.errors import ServiceUnavailable
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer

PING_DEADLINE = 1.8  # seconds; a probe's own is often 2


async def ready(request: web.Request) -> web.StreamResponse:
    """200 when Redis answers and the process is not about to end."""
    dispatcher = request.app[AppKeys.DISPATCHER]
    if dispatcher is not None and dispatcher.leaving:
        msg = "this process is stopping; others take over"
        raise ServiceUnavailable(msg, extra={"status": "stopping"})
    return await health(request)


async def health(request: web.Request) -> web.StreamResponse:
    """200 when Redis answers."""
    try:
        async with asyncio.timeout(PING_DEADLINE):
            await request.app[AppKeys.STORE].ping()
    except TimeoutError:
        msg = "Redis does not answer"
        raise ServiceUnavailable(msg, extra=_STATUS) from None
    except ServiceUnavailable as problem:
        raise ServiceUnavailable(problem.message, extra=_STATUS) from None
    dispatcher = request.app[AppKeys.DISPATCHER]
    return json_answer(
        {
            "status": "ok",
            "redis": "ok",
            "version": gateway.__version__,
            "in_flight": 0 if dispatcher is None else dispatcher.in_flight,
        }
    )


_STATUS = {"status": "unavailable"}


async def live(_: web.Request) -> web.StreamResponse:
    """200 while the process serves."""
    return json_answer({"status": "ok"})


async def show_metrics(_: web.Request) -> web.StreamResponse:
    """Prometheus's text format. A thousand clients take tens of milliseconds, in which others have their turn."""
    pieces = metrics.exposition()
    if metrics.of_all_workers():
        body = await asyncio.to_thread(b"".join, pieces)
    else:
        told = []
        for piece in pieces:
            told.append(piece)
            await asyncio.sleep(0)
        body = b"".join(told)
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


ROUTES = (
    web.get("/health", health),
    web.get("/readyz", ready),
    web.get("/livez", live),
    web.get("/metrics", show_metrics),
)
