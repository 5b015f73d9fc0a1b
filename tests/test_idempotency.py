"""The idempotency key: what is the same task, for how long, and what keeps no key."""

from typing import Any

import pytest
from conftest import GatewayFactory
from redis.asyncio import from_url

TASK = {"url": "http://example.com/"}


async def test_duplicate_and_conflict(gateway: GatewayFactory, a_client: str) -> None:
    """The same key answers the first task and consumes nothing; with another task it is 409."""
    gw = await gateway(dispatch=False)
    body = {"client_id": a_client, "idempotency_key": "k", "task": TASK}
    _, first, _ = await gw.enqueue(body)
    status, again, headers = await gw.enqueue({**body, "delay": 5})
    assert (status, again["status"], again["task_id"]) == (200, "duplicate", first["task_id"])
    assert headers["X-RateLimit-Remaining"] == "49"
    status, other, _ = await gw.enqueue({**body, "queue": "other"})
    assert (status, other["error"]) == (409, "Conflict")
    key = {"Idempotency-Key": "k"}
    status, again, _ = await gw.enqueue({"client_id": a_client, "task": TASK}, headers=key)
    assert (status, again["task_id"]) == (200, first["task_id"])


async def test_header_and_field_must_name_the_same_key(gateway: GatewayFactory, a_client: str) -> None:
    """Two different ones are 400, the same one twice is fine."""
    gw = await gateway(dispatch=False)
    body = {"client_id": a_client, "idempotency_key": "k", "task": TASK}
    status, refused, _ = await gw.enqueue(body, headers={"Idempotency-Key": "other"})
    assert (status, refused["error"]) == (400, "Invalid body")
    assert refused["message"].startswith("$.idempotency_key")
    assert (await gw.enqueue(body, headers={"Idempotency-Key": "k"}))[0] == 201


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"delay": 5}, 200),
        ({"run_at": "2001-01-01T00:00:00Z", "expires_at": "2999-01-01T00:00:00Z"}, 200),
        ({"timeout": 5, "max_retry": 0, "cost": 2}, 200),
        ({"rate_limit": {"max_concurrent": 1, "requests_per_min": 100}}, 200),
        ({"queue": "other"}, 409),
        ({"task": {**TASK, "method": "PUT"}}, 409),
        ({"task": {**TASK, "headers": {"X-A": "1"}}}, 409),
        ({"task": {**TASK, "body": "b"}}, 409),
        ({"task": {"url": "http://example.com/other"}}, 409),
    ],
)
async def test_what_makes_a_task_another_one(
    gateway: GatewayFactory, a_client: str, change: dict[str, Any], status: int
) -> None:
    """Queue, url, method, headers and body are compared under a key, timing and policy are not."""
    gw = await gateway(dispatch=False)
    body = {"client_id": a_client, "idempotency_key": "k", "task": TASK}
    _, first, _ = await gw.enqueue(body)
    got, again, _ = await gw.enqueue({**body, **change})
    assert (got, again["task_id"]) == (status, first["task_id"])


async def test_a_key_is_kept_for_a_day(gateway: GatewayFactory, valkey: str, a_client: str) -> None:
    """24 h, or as long as IDEMPOTENCY_TTL says."""
    redis = from_url(valkey)
    for settings, seconds in (({}, 86400), ({"idempotency_ttl": "15m"}, 900)):
        gw = await gateway(dispatch=False, **settings)
        await gw.enqueue({"client_id": a_client, "idempotency_key": f"k{seconds}", "task": TASK})
        assert seconds - 5 <= await redis.ttl(f"idempotency:{a_client}:k{seconds}") <= seconds
    await redis.aclose()


async def test_a_refused_request_keeps_no_key(gateway: GatewayFactory, a_client: str) -> None:
    """After a 429 the key is free for any task; two clients' keys are apart."""
    gw = await gateway(dispatch=False)
    limit = {"max_concurrent": 1, "requests_per_min": 1}
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "rate_limit": limit})
    assert (await gw.enqueue({"client_id": a_client, "task": TASK}))[0] == 201
    keyed = {"client_id": a_client, "idempotency_key": "k", "task": TASK}
    assert (await gw.enqueue(keyed))[0] == 429
    limit["requests_per_min"] = 2
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "rate_limit": limit})
    assert (await gw.enqueue({**keyed, "queue": "other"}))[0] == 201
    assert (await gw.enqueue({**keyed, "client_id": a_client + "-b"}))[0] == 201
