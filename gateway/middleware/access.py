"""One log line and one observation of the metrics for each request."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway import metrics

log = structlog.get_logger()

_PROBES = {"/health", "/livez", "/readyz", "/metrics"}


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around the error handling, so that it sees the status that is really sent.

    What succeeds on the clients' API and the probes is told at debug, since there it is the metrics that count; and so
    are the dashboard's files.
    """
    started = time.monotonic()
    response = await handler(request)
    seconds = time.monotonic() - started
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unmatched"
    status = response.status
    metrics.http_request(route, request.method, status, seconds)
    quiet = status < 400 and (not route.startswith("/admin") or route.startswith("/admin/ui"))
    write = log.debug if quiet or route in _PROBES else log.info
    write(
        "request",
        method=request.method,
        path=request.path,
        status=status,
        duration_ms=round(seconds * 1000, 2),
        remote=request.remote,
    )
    return response
