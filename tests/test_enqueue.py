"""`POST /v1/enqueue` through the whole chain against a real Valkey: statuses, bodies, headers, precedence."""

import time

import aiohttp
import pytest
from conftest import GatewayFactory, Target, until
from redis.asyncio import from_url
from structlog.testing import capture_logs

from gateway import metrics

TASK = {"url": "http://example.com/"}


async def test_201_and_what_it_says(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """An accepted task is answered with its policy and the window, and reaches its target."""
    gw = await gateway()
    task = {"url": target.url + "/x", "headers": {"X-A": "b"}, "body": {"a": 1}}
    status, body, headers = await gw.enqueue({"client_id": a_client, "task": task})
    assert status == 201
    task_id = body.pop("task_id")
    assert body == {
        "status": "enqueued",
        "queue": "default",
        "client_id": a_client,
        "rate_limit": {"max_concurrent": 3, "requests_per_min": 50},
    }
    assert headers["RateLimit-Policy"] == '"client";q=50;w=60'
    assert headers["RateLimit"].startswith('"client";r=49;t=')
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("50", "49")
    assert 0 < int(headers["X-RateLimit-Reset"]) - time.time() <= 63
    assert headers["Content-Type"] == "application/json"
    [call] = await target.received(1)
    assert (call["method"], call["path"], call["body"]) == ("POST", "/x", b'{"a": 1}')
    assert call["headers"]["Content-Type"] == "application/json"
    assert (call["headers"]["X-Task-ID"], call["headers"]["X-Client-ID"]) == (task_id, a_client)
    assert (call["headers"]["X-A"], call["headers"]["X-Attempt"]) == ("b", "1")


@pytest.mark.parametrize(
    ("raw", "headers", "status", "error"),
    [
        (b"{", {}, 400, "Invalid body"),
        (b"{}", {}, 401, "Client validation failed: client_id is required"),
        (b"[]", {}, 401, "Client validation failed: client_id is required"),
        (b"[]", {"X-Client-ID": "abc"}, 400, "Invalid body"),
        (b'{"client_id": ""}', {}, 401, "Client validation failed: client_id is required"),
        (b'{"client_id": null}', {}, 401, "Client validation failed: client_id is required"),
        (b'{"client_id": 5}', {}, 401, "Client validation failed: invalid client_id format"),
        (b'{"client_id": "ab"}', {}, 401, "Client validation failed: invalid client_id format"),
        (b'{"client_id": "abc\\n"}', {}, 401, "Client validation failed: invalid client_id format"),
        (b'{"client_id": "abc"}', {}, 400, "Invalid body"),
        (b'{"client_id": "abc"}', {"X-Client-ID": "abd"}, 400, "Invalid body"),
        (b"{", {"Content-Type": "text/plain"}, 415, "Unsupported media type"),
        (b"{", {"Content-Encoding": "gzip"}, 415, "Unsupported media type"),
        (b"x" * 2000, {}, 413, "Body too large"),
        (b"x" * 2000, {"Content-Type": "text/plain"}, 413, "Body too large"),
        (b"x" * 2000, {"Content-Encoding": "gzip"}, 413, "Body too large"),
        (b"", {}, 400, "Invalid body"),
        (b"null", {}, 401, "Client validation failed: client_id is required"),
        (b"{}", {"X-Client-ID": "a b"}, 401, "Client validation failed: invalid client_id format"),
        (b'{"client_id": "", "task": 5}', {"X-Client-ID": "abc"}, 400, "Invalid body"),
    ],
)
async def test_refusals_in_their_order(
    gateway: GatewayFactory, raw: bytes, headers: dict[str, str], status: int, error: str
) -> None:
    """What comes first in the precedence is what is answered, as JSON with a request id; nobody is created."""
    gw = await gateway(dispatch=False, max_body_bytes="1000")
    sent = {"Content-Type": "application/json", "X-Request-ID": "my.id-1", **headers}
    got, body, answered = await gw.call("POST", "/v1/enqueue", data=raw, headers=sent)
    assert (got, body["error"]) == (status, error)
    assert body["message"]
    assert answered["X-Request-ID"] == "my.id-1"
    assert (await gw.admin("GET", "/admin/clients"))[1]["count"] == 0


async def test_the_client_comes_before_the_schema(gateway: GatewayFactory, a_client: str) -> None:
    """Disabled and unknown clients are 401, even where the body is wrong too."""
    gw = await gateway(dispatch=False, auto_create_clients="false")
    wrong = {"client_id": a_client, "task": 5}
    status, body, _ = await gw.enqueue(wrong)
    assert (status, body["error"]) == (401, "Client validation failed: unknown client")
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "enabled": False})
    status, body, _ = await gw.enqueue(wrong)
    assert (status, body["error"]) == (401, "Client validation failed: client is disabled")


async def test_the_header_alone_names_the_client(gateway: GatewayFactory, a_client: str) -> None:
    """X-Client-ID instead of client_id."""
    gw = await gateway(dispatch=False)
    status, body, _ = await gw.enqueue({"task": TASK}, headers={"X-Client-ID": a_client})
    assert (status, body["client_id"]) == (201, a_client)


async def test_requests_without_an_id_go_to_the_legacy_client(gateway: GatewayFactory) -> None:
    """With LEGACY_CLIENT_ID they are booked to it, with a warning each."""
    gw = await gateway(dispatch=False, legacy_client_id="old-callers")
    with capture_logs() as logs:
        status, body, _ = await gw.enqueue({"task": TASK})
        assert (await gw.enqueue({"task": TASK}))[0] == 201
    assert (status, body["client_id"]) == (201, "old-callers")
    assert [entry["event"] for entry in logs].count("legacy_client_used") == 2
    assert [entry["event"] for entry in logs].count("client_created") == 1


async def test_the_window_is_full(gateway: GatewayFactory, a_client: str) -> None:
    """429 says what was exceeded and when to come again, and logs it."""
    gw = await gateway(dispatch=False)
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "free"})
    body = {"client_id": a_client, "task": TASK}
    for _ in range(10):
        assert (await gw.enqueue(body))[0] == 201
    with capture_logs() as logs:
        status, refused, headers = await gw.enqueue(body)
    assert (status, refused) == (
        429,
        {
            "error": "Rate limit exceeded",
            "message": "exceeded 10 requests per minute (current: 11)",
            "client_id": a_client,
            "requests_per_min": 10,
        },
    )
    assert 1 <= int(headers["Retry-After"]) <= 61
    assert headers["RateLimit"].startswith('"client";r=0;t=')
    [entry] = [entry for entry in logs if entry["event"] == "rate_limited"]
    assert (entry["tier"], entry["requests_per_min"], entry["current"]) == ("free", 10, 11)


async def test_the_queue_is_full(gateway: GatewayFactory, a_client: str) -> None:
    """Past MAX_QUEUED_PER_CLIENT 429 `Queue full`; past MAX_QUEUES_PER_CLIENT 400."""
    gw = await gateway(dispatch=False, max_queued_per_client="2", max_queues_per_client="1")
    body = {"client_id": a_client, "task": TASK}
    assert (await gw.enqueue(body))[0] == 201
    status, refused, _ = await gw.enqueue({**body, "queue": "second"})
    assert (status, refused["error"]) == (400, "Invalid body")
    assert (await gw.enqueue(body))[0] == 201
    status, refused, headers = await gw.enqueue(body)
    assert (status, refused["error"]) == (429, "Queue full")
    assert int(headers["Retry-After"]) >= 1


async def test_bytes_that_wait_are_bounded_too(gateway: GatewayFactory, a_client: str) -> None:
    """Past MAX_QUEUED_BYTES_PER_CLIENT 429 `Queue full`, and a smaller task still fits."""
    gw = await gateway(dispatch=False, max_queued_bytes_per_client="1000")
    status, refused, _ = await gw.enqueue({"client_id": a_client, "task": {**TASK, "body": "x" * 1000}})
    assert (status, refused["error"]) == (429, "Queue full")
    assert "bytes" in refused["message"]
    assert (await gw.enqueue({"client_id": a_client, "task": TASK}))[0] == 201


async def test_what_waits_of_all_clients_is_bounded(gateway: GatewayFactory) -> None:
    """Past MAX_QUEUED anybody's task is 503 with Retry-After, alone and in a batch; what waits stays."""
    gw = await gateway(dispatch=False, max_queued="2")
    assert (await gw.enqueue({"client_id": "one", "task": TASK}))[0] == 201
    status, body, _ = await gw.call(
        "POST", "/v1/enqueue/batch", json={"client_id": "two", "tasks": [{"task": TASK}] * 2}
    )
    assert (status, [item["status"] for item in body["results"]]) == (207, [201, 503])
    status, body, headers = await gw.enqueue({"client_id": "one", "task": TASK})
    assert (status, body["error"]) == (503, "Service unavailable")
    assert "MAX_QUEUED" in body["message"]
    assert int(headers["Retry-After"]) >= 1
    assert (await gw.call("GET", "/v1/rate-limit?client_id=one"))[1]["queued"] == 1


async def test_clients_are_bounded(gateway: GatewayFactory) -> None:
    """Past MAX_CLIENTS an unknown client is 401, for an operator 400; those there are go on."""
    gw = await gateway(dispatch=False, max_clients="1")
    assert (await gw.enqueue({"client_id": "first", "task": TASK}))[0] == 201
    status, body, _ = await gw.enqueue({"client_id": "second", "task": TASK})
    assert (status, body["error"]) == (401, "Client validation failed: unknown client")
    assert "MAX_CLIENTS" in body["message"]
    status, body, _ = await gw.admin("POST", "/admin/clients/set", json={"client_id": "second"})
    assert (status, body["error"]) == (400, "Too many clients")
    assert (await gw.enqueue({"client_id": "first", "task": TASK}))[0] == 201
    assert (await gw.admin("POST", "/admin/clients/set", json={"client_id": "first", "tier": "free"}))[0] == 200


async def test_unreadable_settings_are_a_503_to_their_client(
    gateway: GatewayFactory, valkey: str, a_client: str
) -> None:
    """Neither a task nor the settings are lost: the caller is told to come again, the record stays as it is."""
    gw = await gateway(dispatch=False)
    redis = from_url(valkey)
    await redis.set(f"client_config:{a_client}", b"{nope")
    with capture_logs() as logs:
        status, body, headers = await gw.enqueue({"client_id": a_client, "task": TASK})
    assert (status, body["error"]) == (503, "Service unavailable")
    assert int(headers["Retry-After"]) >= 1
    assert "client_unreadable" in [entry["event"] for entry in logs]
    assert (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[0] == 503
    assert await redis.get(f"client_config:{a_client}") == b"{nope"
    await redis.aclose()


async def test_a_caller_that_hangs_up_leaves_nothing_half_done(
    gateway: GatewayFactory, store_url: str, a_client: str
) -> None:
    """Gone while Redis still thinks: the task is stored, counted and told to the dispatcher like any other."""
    gw = await gateway(dispatch=False)
    assert (await gw.enqueue({"client_id": a_client, "task": TASK}))[0] == 201
    async with from_url(store_url) as raw:
        await raw.client_pause(500, all=True)
        with pytest.raises(TimeoutError):
            await gw.enqueue({"client_id": a_client, "task": TASK}, timeout=aiohttp.ClientTimeout(0.1))
    counted = f'tasks_enqueued_total{{client_id="{a_client}",queue="default"}} 2.0'.encode()
    await until(lambda: counted in metrics.render()[0])
    assert (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[1]["queued"] == 2
