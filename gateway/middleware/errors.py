"""Every error becomes JSON here: the gateway's own, aiohttp's (404, 405) and the unforeseen, which tells the caller
nothing but its request id."""

from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway.errors import GatewayError
from gateway.keys import RequestKeys
from gateway.middleware.answers import error_answer

log = structlog.get_logger()


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns what is raised further in into a response."""
    try:
        return await handler(request)
    except GatewayError as problem:
        return error_answer(problem)
    except web.HTTPException as problem:
        return error_answer(_translated(request, problem))
    except Exception:
        log.exception("unexpected_error", method=request.method, path=request.path)
        reference = request[RequestKeys.REQUEST_ID]
        return error_answer(GatewayError(f"the gateway failed; its log has request id {reference}"))


def _translated(request: web.Request, problem: web.HTTPException) -> GatewayError:
    """aiohttp's error in the gateway's words, with the headers that belong to it (`Allow`)."""
    if isinstance(problem, web.HTTPNotFound):
        return GatewayError(
            f"there is no {request.path[:200]} here; /docs has what there is", status=404, error="Not found"
        )
    if isinstance(problem, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(problem.allowed_methods))
        return GatewayError(
            f"{request.method} is not possible on {request.path[:200]}; use {allowed}",
            status=405,
            error="Method not allowed",
            headers={hdrs.ALLOW: allowed},
        )
    phrase = HTTPStatus(problem.status).phrase.capitalize()
    return GatewayError(phrase, status=problem.status, error=phrase)
