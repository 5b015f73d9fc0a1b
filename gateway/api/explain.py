"""`GET /v1/tasks/{task_id}/explain`: what holds a task now."""

from aiohttp import web

from gateway.middleware.explanation import answer_explanation
from gateway.middleware.reading import client_id_of_query


async def explain(request: web.Request) -> web.StreamResponse:
    """200 with the constraint, 404 for what is unknown or another client's."""
    return await answer_explanation(request, client_id_of_query(request), request.match_info["task_id"])
