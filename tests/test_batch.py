"""`POST /v1/enqueue/batch`: each task judged by itself, the malformed ones for the whole."""

from typing import Any

from conftest import GatewayFactory, Target

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
    assert (body["accepted"], body["rejected"]) == (3, 6)


async def test_one_malformed_task_accepts_none(gateway: GatewayFactory, a_client: str) -> None:
    """A 400 names the task, and nothing of the batch is stored or counted."""
    gw = await gateway(dispatch=False)
    tasks = [ITEM, ITEM, ITEM, {"task": {"url": "nope"}}]
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    assert (status, body["error"]) == (400, "Invalid body")
    assert body["message"].startswith("$.tasks[3].task.url")
    assert (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[0] == 404


async def test_redis_away_is_503(gateway: GatewayFactory, a_client: str) -> None:
    """Where Redis is away from the start the whole is a 503."""
    gw = await gateway(dispatch=False, redis_url="unix:///nonexistent/valkey.sock")
    status, body, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": [ITEM]})
    assert (status, body["error"]) == (503, "Service unavailable")
