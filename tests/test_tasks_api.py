"""`GET` and `DELETE /v1/tasks/{id}`, `GET /v1/rate-limit`."""

from datetime import UTC, datetime, timedelta, timezone
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


async def test_what_waits_can_be_cancelled_and_nothing_else(
    gateway: GatewayFactory, target: Target, a_client: str
) -> None:
    """Queued, scheduled and retrying: 200 with the task, which is never called again; running and dead: 409."""
    gw = await gateway()
    await gw.admin(
        "POST",
        "/admin/clients/set",
        json={"client_id": a_client, "rate_limit": {"max_concurrent": 1, "requests_per_min": 50}},
    )
    target.statuses.update({"/fails": 503, "/gone": 404})
    target.answer_headers["/fails"] = {"Retry-After": "3600"}
    release = target.hold("/slow")
    tasks = {
        "retrying": await enqueue(gw, a_client, target.url + "/fails"),
        "dead": await enqueue(gw, a_client, target.url + "/gone"),
        "scheduled": await enqueue(gw, a_client, target.url + "/later", delay=3600),
    }
    for state, task in tasks.items():
        await in_state(gw, a_client, task, state)
    tasks["running"] = await enqueue(gw, a_client, target.url + "/slow")
    await in_state(gw, a_client, tasks["running"], "running")
    tasks["queued"] = await enqueue(gw, a_client, target.url + "/behind")
    await in_state(gw, a_client, tasks["queued"], "queued")
    for state, task in tasks.items():
        status, body, _ = await gw.call("DELETE", f"/v1/tasks/{task}?client_id={a_client}")
        if state in {"queued", "scheduled", "retrying"}:
            assert (status, body["state"], body["task_id"]) == (200, "cancelled", task)
            assert body["finished_at"]
            assert body["next_attempt_at"] is None
        else:
            assert (status, body["error"], body["state"]) == (409, "Conflict", state)
    release.set()
    await in_state(gw, a_client, tasks["running"], "succeeded")
    assert [call["path"] for call in target.calls] == ["/fails", "/gone", "/slow"]


async def test_a_retry_tells_its_last_attempt_and_its_next(
    gateway: GatewayFactory, target: Target, a_client: str
) -> None:
    """What the target answered, and a next attempt no earlier than its `Retry-After`."""
    gw = await gateway()
    target.statuses["/fails"] = 503
    target.answer_headers["/fails"] = {"Retry-After": "100"}
    body = await in_state(gw, a_client, await enqueue(gw, a_client, target.url + "/fails", max_retry=1), "retrying")
    assert (body["attempts"], body["max_retry"], body["last_attempt"]["status"]) == (1, 1, 503)
    assert (body["finished_at"], body["reason"], body["run_at"]) == (None, None, None)
    started, following = (
        datetime.fromisoformat(text) for text in (body["last_attempt"]["started_at"], body["next_attempt_at"])
    )
    assert (following - started).total_seconds() >= 100


async def test_times_of_a_scheduled_task(gateway: GatewayFactory, a_client: str) -> None:
    """`run_at` comes back in UTC, whatever its offset was; a delay has none; one that has passed means now."""
    gw = await gateway(dispatch=False)
    soon = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=250_000)
    given = soon.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    told = soon.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def stands(**fields: Any) -> Any:
        task = await enqueue(gw, a_client, "http://example.com/", **fields)
        return (await gw.call("GET", f"/v1/tasks/{task}?client_id={a_client}"))[1]

    body = await stands(run_at=given)
    assert (body["state"], body["run_at"], body["next_attempt_at"]) == ("scheduled", told, told)
    body = await stands(delay=3600)
    assert (body["state"], body["run_at"]) == ("scheduled", None)
    assert body["next_attempt_at"]
    for past in ({"run_at": "2001-01-01T00:00:00.5+02:00"}, {"delay": 0}):
        body = await stands(**past)
        assert (body["state"], body["run_at"], body["next_attempt_at"]) == ("queued", None, None)


async def test_a_task_that_did_not_start_in_time_is_dead(
    gateway: GatewayFactory, target: Target, a_client: str
) -> None:
    """Past `expires_at` it is `dead` for the reason `expired`, and was never called."""
    gw = await gateway()
    await gw.admin(
        "POST",
        "/admin/clients/set",
        json={"client_id": a_client, "rate_limit": {"max_concurrent": 1, "requests_per_min": 50}},
    )
    release = target.hold("/slow")
    await enqueue(gw, a_client, target.url + "/slow")
    await target.received(1)
    soon = datetime.now(UTC) + timedelta(milliseconds=300)
    task = await enqueue(gw, a_client, target.url + "/late", expires_at=soon.isoformat())
    await until(lambda: datetime.now(UTC) > soon + timedelta(milliseconds=50))
    release.set()
    body = await in_state(gw, a_client, task, "dead")
    assert (body["reason"], body["attempts"], body["last_attempt"]) == ("expired", 0, None)
    assert [call["path"] for call in target.calls] == ["/slow"]


async def test_what_an_answer_keeps(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """The first 4 KiB of a target's body, as text whatever its bytes are."""
    gw = await gateway()
    target.bodies["/big"] = b"\xff" + b"a" * 10_000
    body = await in_state(gw, a_client, await enqueue(gw, a_client, target.url + "/big"), "succeeded")
    kept = body["last_attempt"]["body"]
    assert len(kept) <= 4096
    assert kept.endswith("a" * 4000)


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
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "enabled": False})
    assert (await gw.call("GET", path))[0] == 200
    own = {"max_concurrent": 1, "requests_per_min": 1}
    for change, source in (({"tier": "free"}, "tier"), ({"rate_limit": own}, "client")):
        await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, **change})
        assert (await gw.call("GET", path))[1]["source"] == source
