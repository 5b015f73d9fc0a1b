"""The span of a request that brings tasks; in the chain only where traces are exported."""

from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.keys import RequestKeys
from gateway.middleware.contracts import Planned
from gateway.tracing.context import trace_id

if TYPE_CHECKING:
    from gateway.tracing.spans import Spans

_ROUTES = {"/v1/enqueue", "/v1/enqueue/batch"}


def traced(spans: "Spans") -> Middleware:
    """Inside `request_id`, which has read the caller's context, and outside everything that may answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical
        if route not in _ROUTES:
            return await handler(request)
        span = spans.request(request[RequestKeys.TRACE], request.method, route, request.scheme)
        trace = request[RequestKeys.TRACE] = spans.told(span)
        structlog.contextvars.bind_contextvars(trace_id=trace_id(trace))
        try:
            response = await handler(request)
        except BaseException:
            spans.abandoned(span, "cancelled")
            raise
        client = request.get(RequestKeys.CLIENT)
        plans = request.get(RequestKeys.PLANS, [])
        queues = {plan.spec.task.queue for plan in plans if isinstance(plan, Planned)}
        spans.answered(span, response.status, None if client is None else client.client_id, queues, len(plans))
        return response

    return middleware
