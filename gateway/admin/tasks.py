"""`/admin/tasks/{task_id}`: one task of any client; how it stands, what holds it, its end before its start."""

from aiohttp import web

from gateway.admin.journal import note
from gateway.admin.views import operators_body
from gateway.middleware.answers import json_answer
from gateway.middleware.explanation import answer_explanation
from gateway.middleware.one_task import cancel_task, find_task
from gateway.middleware.reading import client_id_of_query


async def show(request: web.Request) -> web.StreamResponse:
    """200 with the task, 404 for one the client does not have."""
    return json_answer(operators_body(await find_task(request, *_named(request))))


async def cancel(request: web.Request) -> web.StreamResponse:
    """200 with the cancelled task, 409 for what runs or has ended; the audit log has it."""
    client_id, task_id = _named(request)
    view = await cancel_task(request, client_id, task_id)
    await note(request, "cancel", client_id, queue=view.queue, before={"task_id": task_id}, tasks=1)
    return json_answer(operators_body(view))


async def explain(request: web.Request) -> web.StreamResponse:
    """200 with the constraint, 404 for a task the client does not have."""
    return await answer_explanation(request, *_named(request))


def _named(request: web.Request) -> tuple[str, str]:
    return client_id_of_query(request), request.match_info["task_id"]


ROUTES = (
    web.get("/tasks/{task_id}", show),
    web.delete("/tasks/{task_id}", cancel),
    web.get("/tasks/{task_id}/explain", explain),
)
