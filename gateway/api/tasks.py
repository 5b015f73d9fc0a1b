"""`GET` and `DELETE /v1/tasks/{task_id}`: how a task stands, and its end before its start."""

from aiohttp import web

from gateway.middleware.answers import json_answer, task_body
from gateway.middleware.one_task import cancel_task, find_task
from gateway.middleware.reading import client_id_of_query


async def show(request: web.Request) -> web.StreamResponse:
    """200 with the task, 404 for what is unknown or another client's."""
    return json_answer(task_body(await find_task(request, client_id_of_query(request), request.match_info["task_id"])))


async def cancel(request: web.Request) -> web.StreamResponse:
    """200 with the cancelled task, 409 for what runs or has ended."""
    return json_answer(
        task_body(await cancel_task(request, client_id_of_query(request), request.match_info["task_id"]))
    )
