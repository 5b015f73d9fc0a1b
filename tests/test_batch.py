"""`POST /v1/enqueue/batch`: each task judged by itself, the malformed ones for the whole."""

from typing import Any

import pytest
from conftest import GatewayFactory, Target

from gateway.api import batch
from gateway.errors import StoreUnavailable

ITEM: dict[str, Any] = {"task": {"url": "http://example.com/"}}


async def test_all_accepted_is_201_and_delivered(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Every task of an accepted batch reaches its target under its own id."""
    gw = await gateway()
    tasks = [{"task": {"url": f"{target.url}/{n}"}} for n in range(5)]
    status, body, headers = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    assert (status, body["accepted"], body["rejected"]) == (201, 5, 0)
    assert headers["X-RateLimit-Remaining"] == "45"
    calls = await target.received(5)
    ids = {result["task_id"] for result in body["results"]}
    assert {call["headers"]["X-Task-ID"] for call in calls} == ids


async def test_each_is_judged_by_itself(gateway: GatewayFactory, a_client: str) -> None:
    """403, ceilings, 409, duplicates and 429 are per item, in order, in a 207."""
    gw = await gateway(dispatch=False)
    settings = {"client_id": a_client, "tier": "free", "allowed_queues": ["default"]}
    await gw.admin("POST", "/admin/clients/set", json=settings)
    high = {"max_concurrent": 101, "requests_per_min": 1}
    tasks = [
        {**ITEM, "idempotency_key": "k"},
        {**ITEM, "queue": "other"},
        {**ITEM, "rate_limit": high},
        {**ITEM, "idempotency_key": "k"},
        {"task": {"url": "http://example.com/2"}, "idempotency_key": "k"},
        {**ITEM, "cost": 11},
        {**ITEM, "cost": 9},
        ITEM,
        {"task": {"url": "http://169.254.169.254/"}},
    ]
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    results = body["results"]
    assert status == 207
    assert [result["status"] for result in results] == [201, 403, 400, 200, 409, 400, 201, 429, 400]
    assert (results[3]["duplicate"], results[3]["task_id"]) == (True, results[0]["task_id"])
    assert results[1]["error"] == "Queue not allowed"
    assert results[7]["error"] == "Rate limit exceeded"
    assert results[7]["retry_after"] >= 1
    refused = [result for result in results if result["status"] >= 400]
    assert all(result["error"] and result["message"] for result in refused)
    assert results[2]["message"].startswith("$.tasks[2].rate_limit.max_concurrent")
    assert results[5]["message"].startswith("$.tasks[5].cost")
    assert (body["accepted"], body["rejected"]) == (3, 6)


async def test_a_batch_wakes_the_dispatcher_once(
    gateway: GatewayFactory, target: Target, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tasks it has that may start, and not for those that wait for their time."""
    woken: list[str] = []
    monkeypatch.setattr(batch, "wake", lambda _, client_id: woken.append(client_id))
    gw = await gateway()
    later = {"task": {"url": target.url}, "delay": 60}
    for tasks, count in ([later] * 3, 0), ([later, *[{"task": {"url": target.url}}] * 3], 1):
        woken.clear()
        status, _, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
        assert status == 201
        assert woken == [a_client] * count


async def test_one_malformed_task_accepts_none(gateway: GatewayFactory, a_client: str) -> None:
    """A 400 names the task, and nothing of the batch is stored or counted."""
    gw = await gateway(dispatch=False)
    tasks = [ITEM, ITEM, ITEM, {"task": {"url": "nope"}}]
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    assert (status, body["error"]) == (400, "Invalid body")
    assert body["message"].startswith("$.tasks[3].task.url")
    assert (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[0] == 404


async def test_the_rest_are_503_where_redis_fails_midway(
    gateway: GatewayFactory, a_client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored before stays accepted, in order; every later item is a 503 of its own that says when to retry."""
    gw = await gateway(dispatch=False)
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "premium"})
    admit, calls = gw.store.tasks.admissions._carry_out, []

    async def fails_the_second_time(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            msg = "Redis is out of reach"
            raise StoreUnavailable(msg)
        return await admit(*args, **kwargs)

    monkeypatch.setattr(gw.store.tasks.admissions, "_carry_out", fails_the_second_time)
    tasks = [ITEM] * 120
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    assert status == 207
    statuses = [result["status"] for result in body["results"]]
    assert statuses == [201] * body["accepted"] + [503] * body["rejected"]
    assert (len(calls), body["accepted"], body["rejected"]) == (2, 50, 70)
    assert body["results"][-1]["error"] == "Service unavailable"
    assert body["results"][-1]["retry_after"] >= 1
    _, usage, _ = await gw.call("GET", f"/v1/rate-limit?client_id={a_client}")
    assert (usage["current_usage"], usage["queued"]) == (50, 50)


async def test_where_redis_fails_at_once_the_whole_is_a_503(gateway: GatewayFactory, a_client: str) -> None:
    """Also for a client that needs no look-up any more."""
    gw = await gateway(dispatch=False)
    asked = {"client_id": a_client, "tasks": [ITEM]}
    for _ in range(2):
        assert (await gw.call("POST", "/v1/enqueue/batch", json=asked))[0] == 201
    await gw.store._front.close()
    status, body, headers = await gw.call("POST", "/v1/enqueue/batch", json=asked)
    assert (status, body["error"]) == (503, "Service unavailable")
    assert int(headers["Retry-After"]) >= 1


async def test_a_batch_has_its_own_size_limit_and_its_client_may_stand_in_the_header(
    gateway: GatewayFactory, a_client: str
) -> None:
    """MAX_BATCH_BYTES, not MAX_BODY_BYTES; 1,000 tasks fit, 1,001 are 400."""
    gw = await gateway(dispatch=False, max_body_bytes="1000", max_batch_bytes="100000")
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "enterprise"})
    who = {"X-Client-ID": a_client}
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"tasks": [ITEM] * 1000}, headers=who)
    assert (status, body["accepted"]) == (201, 1000)
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"tasks": [ITEM] * 1001}, headers=who)
    assert (status, body["error"]) == (400, "Invalid body")
    assert body["message"].startswith("$.tasks")
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"tasks": ["x" * 100_000]}, headers=who)
    assert (status, body["error"]) == (413, "Body too large")


@pytest.mark.parametrize(
    ("client", "error"),
    [("off", "client is disabled"), ("", "client_id is required"), ("a b", "invalid client_id format")],
)
async def test_who_asks_is_judged_once(gateway: GatewayFactory, client: str, error: str) -> None:
    """A batch of a client that may not is 401 as a whole, and the key header is 400."""
    gw = await gateway(dispatch=False)
    await gw.admin("POST", "/admin/clients/set", json={"client_id": "off", "enabled": False})
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": client, "tasks": [ITEM]})
    assert (status, body["error"]) == (401, "Client validation failed: " + error)
    key = {"Idempotency-Key": "k"}
    asked = {"client_id": "other", "tasks": [ITEM]}
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json=asked, headers=key)
    assert (status, body["error"]) == (400, "Invalid body")
    assert "Idempotency-Key" in body["message"]


async def test_redis_away_is_503(gateway: GatewayFactory, a_client: str) -> None:
    """Where Redis is away from the start the whole is a 503."""
    gw = await gateway(dispatch=False, redis_url="unix:///nonexistent/valkey.sock")
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": [ITEM]})
    assert (status, body["error"]) == (503, "Service unavailable")
