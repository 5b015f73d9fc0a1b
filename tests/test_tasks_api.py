"""`GET` and `DELETE /v1/tasks/{id}`, `GET /v1/rate-limit`."""

from typing import Any

import pytest
from conftest import Gateway, GatewayFactory, Target, until


async def enqueue(gw: Gateway, client: str, url: str, **fields: Any) -> str:
    status, body, _ = await gw.enqueue({"client_id": client, "task": {"url": url}, **fields})
    assert status == 201, body
    return str(body["task_id"])


async def in_state(gw: Gateway, client: str, task: str, state: str) -> Any:
    """The task, once it is in this state."""
    seen: list[Any] = []

    async def reached() -> bool:
        _, body, _ = await gw.call("GET", f"/v1/tasks/{task}?client_id={client}")
        seen.append(body)
        return bool(body["state"] == state)

    await until(reached)
    return seen[-1]


async def test_a_task_that_succeeded(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Every field of a delivered task."""
    gw = await gateway()
    task = await enqueue(gw, a_client, target.url + "/ok")
    body = await in_state(gw, a_client, task, "succeeded")
    last = body["last_attempt"]
    assert set(body) == {
        "task_id", "client_id", "queue", "state", "attempts", "max_retry", "created_at", "run_at",
        "next_attempt_at", "finished_at", "last_attempt", "reason",
    }  # fmt: skip
    assert (body["attempts"], body["max_retry"], body["queue"]) == (1, 5, "default")
    assert (last["status"], last["error"], last["body"]) == (200, None, "seen")
    assert last["duration_ms"] >= 0
    assert all(text.endswith("Z") for text in (body["created_at"], body["finished_at"], last["started_at"]))


async def test_a_dead_task_says_why(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """A 404 of the target is final and told."""
    gw = await gateway()
    target.statuses["/gone"] = 404
    task = await enqueue(gw, a_client, target.url + "/gone")
    body = await in_state(gw, a_client, task, "dead")
    assert body["last_attempt"]["status"] == 404
    assert body["reason"]


async def test_cancelling(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """A scheduled task is cancelled once and never called; another client's is unknown; one that ended is 409."""
    gw = await gateway()
    task = await enqueue(gw, a_client, target.url + "/never", delay=3600)
    path = f"/v1/tasks/{task}?client_id="
    assert (await gw.call("GET", path + a_client))[1]["state"] == "scheduled"
    assert (await gw.call("DELETE", path + "another"))[0] == 404
    status, body, _ = await gw.call("DELETE", path + a_client)
    assert (status, body["state"]) == (200, "cancelled")
    status, body, _ = await gw.call("DELETE", path + a_client)
    assert (status, body["error"]) == (409, "Conflict")
    assert target.calls == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_whose_task_must_be_said(gateway: GatewayFactory, method: str) -> None:
    """No client_id is 400, one that can't be is 400, an unknown task 404."""
    gw = await gateway(dispatch=False)
    status, body, _ = await gw.call(method, "/v1/tasks/x")
    assert (status, body["error"]) == (400, "client_id query parameter is required")
    assert (await gw.call(method, "/v1/tasks/x?client_id=a%20b"))[0] == 400
    assert (await gw.call(method, "/v1/tasks/x?client_id=abc&client_id=abd"))[0] == 400
    status, body, _ = await gw.call(method, "/v1/tasks/x?client_id=abc")
    assert (status, body["error"]) == (404, "Task not found")


async def test_the_rate_limit_query(gateway: GatewayFactory, a_client: str) -> None:
    """It tells policy and use, consumes nothing, and creates nobody."""
    gw = await gateway(dispatch=False)
    path = f"/v1/rate-limit?client_id={a_client}"
    status, body, _ = await gw.call("GET", path)
    assert (status, body["error"]) == (404, "Client not found")
    await enqueue(gw, a_client, "http://example.com/")
    await gw.call("GET", path)
    status, body, _ = await gw.call("GET", path)
    assert 0 < body.pop("reset") <= 61
    assert (status, body) == (
        200,
        {
            "client_id": a_client,
            "tier": "default",
            "rate_limit": {"max_concurrent": 3, "requests_per_min": 50},
            "source": "default",
            "current_usage": 1,
            "remaining": 49,
            "in_flight": 0,
            "queued": 1,
        },
    )
    own = {"max_concurrent": 1, "requests_per_min": 1}
    for change, source in (({"tier": "free"}, "tier"), ({"rate_limit": own}, "client")):
        await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, **change})
        assert (await gw.call("GET", path))[1]["source"] == source
