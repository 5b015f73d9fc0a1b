"""The request's id: the caller's `X-Request-ID` where it is a valid one, else a new one; on every response and in
every log line of the request, as is the id of its trace where it came with one."""

import itertools
import os
import re

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.keys import RequestKeys
from gateway.tracing.context import received, trace_id

HEADER = "X-Request-ID"
_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# A random start of this process and a counter: as unique as a random id each, at a fraction of the cost. The last three
# digits are at hand, since to put two texts together costs half of wording a number.
_start = os.urandom(6).hex()
_last = [f"{number:03x}" for number in range(0x1000)]
_ids = itertools.chain.from_iterable(map(f"{_start}-{high:x}".__add__, _last) for high in itertools.count())


def request_id_of(request: web.BaseRequest) -> str:
    """The caller's id where it is a valid one, else a new one."""
    return chosen_id(request.headers.get(HEADER))


def chosen_id(given: str | None) -> str:
    """The id that the caller has ``given`` where it is a valid one, else a new one."""
    return given if given and _VALID.fullmatch(given) else next(_ids)


def new_request_id() -> str:
    """One that no other request has, of this process or another."""
    return next(_ids)


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost, so that even an unforeseen error carries it."""
    chosen = request_id_of(request)
    request[RequestKeys.REQUEST_ID] = chosen
    structlog.contextvars.bind_contextvars(request_id=chosen)
    trace = request[RequestKeys.TRACE] = received(request.headers)
    if trace:
        structlog.contextvars.bind_contextvars(trace_id=trace_id(trace))
    try:
        response = await handler(request)
    finally:
        structlog.contextvars.unbind_contextvars("request_id", "trace_id")
    response.headers[HEADER] = chosen
    return response
