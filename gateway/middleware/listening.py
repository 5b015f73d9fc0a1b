"""The HTTP server under an application: what it answers where no middleware is reached, since the bytes are no HTTP
or ask for what this server does not do. Those answers too are JSON with a request id."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadStatusLine, InvalidURLError, LineTooLong

from gateway import metrics
from gateway.errors import GatewayError, ServiceUnavailable
from gateway.keys import AppKeys
from gateway.middleware.answers import error_answer
from gateway.middleware.contracts import Express
from gateway.middleware.express import ExpressConnection
from gateway.middleware.limits import Limits
from gateway.middleware.request_id import HEADER, request_id_of
from gateway.middleware.security_headers import harden

log = structlog.get_logger()

LINGER_SECONDS = 1.0  # for the rest of a body that nobody wants: who still sends it could not read the answer
_CLOSE = {"Connection": "close"}
_SHOWN = 100  # characters of a parser's complaint, which quotes what was sent


class _Connection(ExpressConnection):
    """aiohttp's connection, with its own plain-text errors worded as everything else is."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refused (``status`` 400), or to a defect outside of every middleware."""
        if request.writer.output_size > 0:
            msg = "an answer was begun already"
            raise ConnectionError(msg)  # as aiohttp does: nothing but closing is left
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            request_id = request_id_of(request)
            log.error("unexpected_error", request_id=request_id, exc_info=exc)
            msg = f"the gateway failed; its log has request id {request_id}"
            return _answer(request, GatewayError(msg, headers=_CLOSE), exc, request_id)
        return _answer(request, _malformed(exc, message), exc)


def _malformed(exc: BaseException | None, message: str | None) -> GatewayError:
    if isinstance(exc, LineTooLong):
        msg = "the request line or a header is longer than this server reads (8190 bytes)"
    elif isinstance(exc, InvalidURLError):
        msg = "the request line holds a malformed URL"
    else:
        what = (message or "").partition("\n")[0].rstrip(": ")[:_SHOWN]
        place = "the request line" if isinstance(exc, BadStatusLine) else "the request"
        msg = f"{place} is not HTTP/1.1 as this server reads it: {what or 'malformed'}"
    return GatewayError(msg, status=400, error="Malformed request", headers=_CLOSE)


def _answer(
    request: web.BaseRequest, problem: GatewayError, exc: BaseException | None, request_id: str | None = None
) -> web.Response:
    """``problem`` as its response, counted and told like any other. The parser's own words stay out of the log: they
    quote what was sent, which may be a key."""
    response = error_answer(problem)
    response.headers[HEADER] = request_id = request_id or request_id_of(request)
    harden(response.headers)
    metrics.http_request("unmatched", request.method, problem.status, 0.0)
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=problem.status,
        reason=type(exc).__name__,
        remote=request.remote,
        request_id=request_id,
    )
    return response


class _Server(web.Server):
    """Makes a `_Connection` for every connection, all within the same limits."""

    limits: Limits
    express: Express | None

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, express=self.express, limits=self.limits, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Serves ``app``; open requests get ``shutdown_timeout`` seconds once it is left."""

    def __init__(self, app: web.Application, *, shutdown_timeout: float) -> None:
        super().__init__(
            app,
            access_log=None,
            handle_signals=False,
            # A caller that hangs up must not leave a task stored and nobody told of it.
            handler_cancellation=False,
            shutdown_timeout=shutdown_timeout,
            lingering_time=LINGER_SECONDS,
            # A compressed body is refused, so it must not be unpacked before that.
            auto_decompress=False,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        handle: Callable[[Any], Any] = made.request_handler

        settings = self.app[AppKeys.SETTINGS]
        limits = Limits(
            settings.max_connections_per_address,
            settings.max_open_requests,
            exempt=settings.trusted_proxies,
            most=self.app.get(AppKeys.CONNECTIONS),
        )

        async def outermost(request: web.BaseRequest) -> web.StreamResponse:
            if request.version.major < 1:
                msg = "HTTP before 1.0 is not spoken here"
                return _answer(request, GatewayError(msg, status=400, error="Malformed request", headers=_CLOSE), None)
            try:
                limits.enter(request.path)
            except ServiceUnavailable as problem:
                problem.headers.update(_CLOSE)  # what is still to come of its body is not worth reading
                return _answer(request, problem, problem)
            try:
                answer: web.StreamResponse = await handle(request)
            except web.HTTPExpectationFailed as exc:
                # aiohttp looks at `Expect` before any middleware.
                msg = f"Expect is {request.headers.get(hdrs.EXPECT, '')[:_SHOWN]!r}; only 100-continue is known"
                return _answer(request, GatewayError(msg, status=417, error="Expectation failed", headers=_CLOSE), exc)
            finally:
                limits.leave()
            return answer

        server = _Server(outermost, request_factory=made.request_factory, **self._kwargs)
        server.limits = limits
        server.express = self.app[AppKeys.EXPRESS](limits) if AppKeys.EXPRESS in self.app else None
        return server
