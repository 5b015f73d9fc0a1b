"""`/admin/tasks`: the tasks of all clients by filter; and one of them, how it stands, what holds it, its end before its
start, its start before its time, its second life."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from gateway.admin.choosing import FILTERS, chosen, filter_of_query, newest_first, paging
from gateway.admin.journal import note
from gateway.admin.views import detailed_body, operators_body
from gateway.errors import Conflict
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer
from gateway.middleware.explanation import answer_explanation
from gateway.middleware.one_task import cancel_task, unknown_task
from gateway.middleware.reading import client_id_of_query
from gateway.models import TaskDetail
from gateway.store.steering import STATES, Action

_LISTING: Final = (*FILTERS, "order", "limit", "cursor")


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """200 with a page; it may be short of its limit, or empty, where few match, and still have a next."""
    wanted = chosen(filter_of_query(request, _LISTING))
    place, limit = paging(request, _LISTING)
    newest = newest_first(request, _LISTING)
    page = await request.app[AppKeys.STORE].listing.page(wanted, cursor=place, limit=limit, newest=newest)
    return json_answer({"tasks": [operators_body(task) for task in page.tasks], "next_cursor": page.next_cursor})


async def show(request: web.Request) -> web.StreamResponse:
    """200 with the task and its attempts, 404 for one the client does not have."""
    return json_answer(detailed_body(await _find(request, *_named(request))))


async def cancel(request: web.Request) -> web.StreamResponse:
    """200 with the cancelled task, 409 for what runs or has ended; the audit log has it."""
    client_id, task_id = _named(request)
    task = await _find(request, client_id, task_id)
    view = await cancel_task(request, client_id, task_id)
    await note(request, "cancel", client_id, queue=view.queue, before={"task_id": task_id}, tasks=1)
    return json_answer(operators_body(msgspec.structs.replace(task, view=view)))


def _doing(action: Action) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def do(request: web.Request) -> web.StreamResponse:
        """200 with the task as it is then, 409 where its state does not allow it; the audit log has it."""
        client_id, task_id = _named(request)
        task = await _find(request, client_id, task_id)
        if not await request.app[AppKeys.STORE].steering.apply(action, [task]):
            state = (await _find(request, client_id, task_id)).view.state
            allowed = " and ".join(sorted(each.value for each in STATES[action]))
            msg = f"the task is {state.value}; {action} is for {allowed} ones"
            raise Conflict(msg, extra={"task_id": task_id, "state": state.value})
        await note(request, action, client_id, queue=task.view.queue, before={"task_id": task_id}, tasks=1)
        return json_answer(operators_body(await _find(request, client_id, task_id)))

    return do


async def explain(request: web.Request) -> web.StreamResponse:
    """200 with the constraint, 404 for a task the client does not have."""
    return await answer_explanation(request, *_named(request))


async def _find(request: web.Request, client_id: str, task_id: str) -> TaskDetail:
    task = await request.app[AppKeys.STORE].tasks.detail(client_id, task_id)
    if task is None:
        raise unknown_task(client_id, task_id)
    return task


def _named(request: web.Request) -> tuple[str, str]:
    return client_id_of_query(request), request.match_info["task_id"]


ROUTES = (
    web.get("/tasks", list_tasks),
    web.get("/tasks/{task_id}", show),
    web.delete("/tasks/{task_id}", cancel),
    web.post("/tasks/{task_id}/run", _doing("run")),
    web.post("/tasks/{task_id}/replay", _doing("replay")),
    web.get("/tasks/{task_id}/explain", explain),
)
