"""`POST /v1/enqueue/batch`: each task judged by itself, in order."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from gateway.api.enqueue import explained, note_admitted, wake
from gateway.errors import GatewayError, StoreUnavailable
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.answers import json_answer
from gateway.middleware.contracts import Plan, Planned
from gateway.middleware.window import refused
from gateway.models import Admission, Admitted, Client, Duplicate

Judged = Admission | StoreUnavailable


async def batch(request: web.Request) -> web.StreamResponse:
    """201 when all were accepted, else 207 with a status for each."""
    plans = request[RequestKeys.PLANS]
    client = request[RequestKeys.CLIENT]
    planned = [plan for plan in plans if isinstance(plan, Planned)]
    judged = await _admit(request, client, planned) if planned else []
    if judged and isinstance(judged[0], StoreUnavailable):
        raise explained(judged[0])  # at once, so nothing is known to be accepted
    answers = iter(judged)
    results, window = [], None
    for plan in plans:
        if isinstance(plan, Planned):
            outcome = next(answers)
            results.append(_item(outcome, plan, client))
            if not isinstance(outcome, StoreUnavailable):
                window = outcome.window, plan.limit.requests_per_min
        else:
            results.append(_refused_item(plan))
    if window is not None:
        request[RequestKeys.WINDOW] = window
    accepted = sum(result["status"] in {200, 201} for result in results)
    body = {"results": results, "accepted": accepted, "rejected": len(results) - accepted}
    return json_answer(body, 201 if accepted == len(results) else 207)


async def _admit(request: web.Request, client: Client, planned: Sequence[Planned]) -> list[Judged]:
    """What the store says to each, in order."""
    dispatcher = request.app[AppKeys.DISPATCHER]
    specs = [plan.spec for plan in planned]
    judged = await request.app[AppKeys.STORE].tasks.admit_many(
        client.client_id, specs, create=request[RequestKeys.CREATE]
    )
    new = False
    for plan, outcome in zip(planned, judged, strict=True):
        if isinstance(outcome, Admitted):
            note_admitted(outcome, client.client_id, plan.spec.task.queue, None)
            new = new or not outcome.scheduled
    if dispatcher is not None and new:
        wake(dispatcher, client.client_id)  # once for all of them
    return judged


def _item(outcome: Judged, plan: Planned, client: Client) -> dict[str, Any]:
    match outcome:
        case Admitted(task_id=task_id):
            return {"status": 201, "task_id": task_id}
        case Duplicate(task_id=task_id):
            return {"status": 200, "task_id": task_id, "duplicate": True}
        case StoreUnavailable():
            return _refused_item(explained(outcome))
        case _:
            return _refused_item(refused(outcome, plan, client))


def _refused_item(problem: Plan) -> dict[str, Any]:
    assert isinstance(problem, GatewayError)
    item = {"status": problem.status, **problem.body()}
    if "Retry-After" in problem.headers:
        item["retry_after"] = int(problem.headers["Retry-After"])
    return item
