"""The rate-limit headers, which every answer about a known client's enqueue carries, and what they promise."""

import re
import time
from typing import Any

import pytest
from conftest import Gateway, GatewayFactory, until
from redis.asyncio import from_url

TASK = {"url": "http://example.com/"}
HIGH = {"max_concurrent": 101, "requests_per_min": 1}
POLICY = re.compile(r'"client";q=(\d+);w=60')
LIMIT = re.compile(r'"client";r=(\d+);t=(\d+)')


def told(headers: Any) -> tuple[int, int, int]:
    """Limit, remaining and seconds to the next free one, after a look that both forms say the same."""
    policy, limit = POLICY.fullmatch(headers["RateLimit-Policy"]), LIMIT.fullmatch(headers["RateLimit"])
    assert policy is not None
    assert limit is not None
    assert headers["X-RateLimit-Limit"] == policy[1]
    assert headers["X-RateLimit-Remaining"] == limit[1]
    # Unix seconds; the server's clock was read up to a moment ago, and rounded up.
    assert abs(int(headers["X-RateLimit-Reset"]) - time.time() - int(limit[2])) < 5
    return int(policy[1]), int(limit[1]), int(limit[2])


@pytest.mark.parametrize(
    ("fields", "status", "remaining"),
    [
        ({}, 201, 8),
        ({"idempotency_key": "k"}, 200, 9),
        ({"idempotency_key": "k", "task": {"url": "http://example.com/2"}}, 409, 9),
        ({"cost": 10}, 429, 9),
        ({"cost": 11}, 400, 9),
        ({"queue": "third"}, 403, 9),
        ({"queue": "second"}, 400, 9),
        ({"rate_limit": HIGH}, 400, 9),
        ({"task": {"url": "http://169.254.169.254/"}}, 400, 9),
        ({"dealy": 1}, 400, 9),
        ({"task": None}, 400, 9),
    ],
)
async def test_every_answer_to_a_known_client_tells_its_window(
    gateway: GatewayFactory, a_client: str, fields: dict[str, Any], status: int, remaining: int
) -> None:
    """Accepted, duplicate, conflict, full, forbidden or malformed: the window as it stands after it."""
    gw = await gateway(dispatch=False, max_queues_per_client="1")
    settings = {"client_id": a_client, "tier": "free", "allowed_queues": ["default", "second"]}
    await gw.admin("POST", "/admin/clients/set", json=settings)
    first = {"client_id": a_client, "task": TASK, "idempotency_key": "k"}
    assert (await gw.enqueue(first))[0] == 201
    got, _, headers = await gw.enqueue({"client_id": a_client, "task": TASK, **fields})
    assert got == status
    limit, left, reset = told(headers)
    assert (limit, left) == (10, remaining)
    assert 1 <= reset <= 61
    assert ("Retry-After" in headers) == (status == 429)


async def test_a_client_that_is_not_there_yet_has_a_whole_window(gateway: GatewayFactory, a_client: str) -> None:
    """Its malformed first request tells default's limit, all of it left, and does not create it."""
    gw = await gateway(dispatch=False)
    status, _, headers = await gw.enqueue({"client_id": a_client, "task": 5})
    assert (status, told(headers)) == (400, (50, 50, 0))
    assert (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[0] == 404


@pytest.mark.parametrize(
    ("tasks", "status"),
    [
        ([{"task": TASK}], 201),
        ([{"task": TASK}, {"task": TASK, "cost": 51}], 207),
        ([{"task": TASK, "cost": 51}], 207),
        ([{"task": 5}], 400),
    ],
)
async def test_so_does_a_batch(gateway: GatewayFactory, a_client: str, tasks: list[Any], status: int) -> None:
    """Also where nothing of it reached the store."""
    gw = await gateway(dispatch=False)
    got, _, headers = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks})
    assert got == status
    assert told(headers)[:2] == (50, 49 if tasks[0] == {"task": TASK} else 50)


async def test_the_query_tells_the_same(gateway: GatewayFactory, a_client: str) -> None:
    """`GET /v1/rate-limit` has the headers too, and they agree with its body."""
    gw = await gateway(dispatch=False)
    await gw.enqueue({"client_id": a_client, "task": TASK, "cost": 3})
    _, body, headers = await gw.call("GET", f"/v1/rate-limit?client_id={a_client}")
    assert told(headers) == (50, body["remaining"], body["reset"])
    assert (body["remaining"], body["current_usage"]) == (47, 3)


async def test_a_refusal_needs_no_redis(gateway: GatewayFactory, a_client: str) -> None:
    """Where the window can't be read the refusal is the same, without the headers."""
    gw = await gateway(dispatch=False)
    for _ in range(2):  # the second look finds the client and keeps it
        await gw.enqueue({"client_id": a_client, "task": TASK})
    await _break(gw)
    status, body, headers = await gw.enqueue({"client_id": a_client, "task": {**TASK, "ulr": ""}})
    assert (status, body["error"]) == (400, "Invalid body")
    assert "RateLimit" not in headers
    status, body, headers = await gw.enqueue({"client_id": a_client, "task": TASK})
    assert (status, body["error"], headers["Retry-After"]) == (503, "Service unavailable", "1")


async def _break(gw: Gateway) -> None:
    """Take the store's links away, as a Redis that is gone would."""
    await gw.store._front.close()


async def test_retry_after_is_when_the_next_one_fits(gateway: GatewayFactory, valkey: str, a_client: str) -> None:
    """Whoever comes again after as many seconds by Redis's clock as `Retry-After` said is admitted."""
    gw = await gateway(dispatch=False)
    redis = from_url(valkey)
    body = {"client_id": a_client, "task": TASK}
    assert (await gw.enqueue(body))[0] == 201
    now = int((await redis.time())[0])
    burst = {str(now - 58): 50, "n": 50, "o": now - 58, "l": now - 58}
    await redis.delete(f"counts:{a_client}")
    await redis.hset(f"counts:{a_client}", mapping=burst)
    status, _, headers = await gw.enqueue(body)
    asked = await clock(redis)
    assert status == 429
    wait = int(headers["Retry-After"])
    assert 1 <= wait <= 3

    async def waited() -> bool:
        return await clock(redis) >= asked + wait

    await until(waited)
    assert (await gw.enqueue(body))[0] == 201
    await redis.aclose()


async def test_the_fixed_window_ends_with_the_minute(gateway: GatewayFactory, valkey: str, a_client: str) -> None:
    """With WINDOW_ALGORITHM=fixed `Retry-After` and `t` reach to the end of the calendar minute by Redis's clock."""
    gw = await gateway(dispatch=False, window_algorithm="fixed")
    redis = from_url(valkey)
    body = {"client_id": a_client, "task": TASK, "cost": 50}
    while True:
        before = await clock(redis)
        await redis.delete(*[f"ratelimit:{a_client}:{int(before // 60) + n}" for n in (0, 1)])
        first, _, _ = await gw.enqueue(body)
        status, _, headers = await gw.enqueue(body)
        if before // 60 == await clock(redis) // 60:  # else a minute began meanwhile
            break
    assert (first, status) == (201, 429)
    wait = int(headers["Retry-After"])
    assert told(headers) == (50, 0, wait)
    assert wait >= 1
    assert 0 <= (before + wait) % 60 < 5
    assert await redis.get(f"ratelimit:{a_client}:{int(before // 60)}") == b"50"
    await redis.aclose()


async def clock(redis: Any) -> float:
    """Redis's clock, in Unix seconds."""
    seconds, micros = await redis.time()
    return int(seconds) + int(micros) / 1_000_000
