"""The middleware chains, outermost first. This is the one place that says what a request passes, in which order."""

from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.middleware.access import access
from gateway.middleware.admin import admin_chain
from gateway.middleware.client import ClientMiddleware
from gateway.middleware.client_keys import own_client
from gateway.middleware.contracts import Decode
from gateway.middleware.errors import errors
from gateway.middleware.policy import policy
from gateway.middleware.request_id import request_id
from gateway.middleware.traced import traced
from gateway.middleware.url_keys import no_keys_in_urls
from gateway.middleware.window import window

if TYPE_CHECKING:
    from gateway.tracing.spans import Spans

# Every request. `access` is outside `errors`: it counts the status that is sent.
APP: tuple[Middleware, ...] = (request_id, access, errors, no_keys_in_urls)


def app_chain(spans: "Spans | None") -> tuple[Middleware, ...]:
    """The same with the spans of requests that bring tasks, where there are to be any."""
    return APP if spans is None else (request_id, traced(spans), *APP[1:])


# What a client asks of its own: who it is, which the query says.
OWN: tuple[Middleware, ...] = (own_client,)

# Every path below /admin.
ADMIN = admin_chain


def enqueue_chain(decode: Decode, *, batch: bool = False) -> tuple[Middleware, ...]:
    """The enqueue routes: who asks → what it may → what is left of its window."""
    return (ClientMiddleware(decode, batch=batch), policy, window)


def wrapped(handler: Handler, chain: tuple[Middleware, ...]) -> Handler:
    """A handler inside its route's own chain."""
    for middleware in reversed(chain):
        handler = partial(_call, middleware, handler)
    return handler


async def _call(middleware: Middleware, handler: Handler, request: web.Request) -> web.StreamResponse:
    return await middleware(request, handler)
