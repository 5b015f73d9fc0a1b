"""`POST /v1/enqueue` through the whole chain against a real Valkey: statuses, bodies, headers, precedence."""

import asyncio
import json
import time
from typing import Any

import pytest
import structlog
from conftest import ADMIN_KEY, GatewayFactory, Target
from redis.asyncio import from_url
from structlog.testing import capture_logs
from yarl import URL

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


@pytest.mark.parametrize(
    ("declared", "status"),
    [
        ("application/json; charset=utf-8", 201),
        ('Application/JSON;Charset="UTF-8"', 201),
        ("application/problem+json", 201),
        ("", 201),
        (None, 201),
        ("application/json; charset=latin1", 415),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_what_a_body_may_be_declared_as(
    gateway: GatewayFactory, a_client: str, declared: str | None, status: int
) -> None:
    """JSON in UTF-8 or nothing; who forgot curl's -H is told to give it."""
    gw = await gateway(dispatch=False)
    raw = json.dumps({"client_id": a_client, "task": TASK}).encode()
    headers = {} if declared is None else {"Content-Type": declared}
    skip = {"Content-Type"} if declared is None else None
    async with gw.client.post("/v1/enqueue", data=raw, headers=headers, skip_auto_headers=skip) as answer:
        assert answer.status == status
        message = (await answer.json()).get("message", "")
    assert ("curl -H 'Content-Type: application/json'" in message) == (declared == "application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("name", "values", "status"),
    [
        ("X-Client-ID", ("first", "second"), 401),
        ("X-Client-ID", ("first", "first"), 401),
        ("Content-Encoding", ("identity", "gzip"), 415),
        ("Idempotency-Key", ("k1", "k2"), 400),
    ],
)
async def test_a_header_given_twice_is_not_half_read(
    gateway: GatewayFactory, name: str, values: tuple[str, str], status: int
) -> None:
    """The second line of a header counts as well: nobody is taken for another client by it."""
    gw = await gateway(dispatch=False)
    headers = [(name, value) for value in values]
    if name != "X-Client-ID":
        headers.append(("X-Client-ID", "first"))
    assert (await gw.enqueue({"task": TASK}, headers=headers))[0] == status


@pytest.mark.parametrize(("given", "kept"), [("a.B_1-2", True), ("a" * 128, True), ("a" * 129, False), ("a b", False)])
async def test_a_callers_request_id_is_kept_where_it_is_valid(gateway: GatewayFactory, given: str, kept: bool) -> None:
    """It comes back on the answer and stands in the log lines; another is replaced, not repeated."""
    gw = await gateway(dispatch=False)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        _, _, headers = await gw.call("GET", "/nope", headers={"X-Request-ID": given})
    assert (headers["X-Request-ID"] == given) == kept
    assert headers["X-Request-ID"]
    assert [entry["request_id"] for entry in logs] == [headers["X-Request-ID"]]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/v1/enqueue/", 404, None),
        ("GET", "/v1/tasks/", 404, None),
        ("PATCH", "/v1/enqueue", 405, "POST"),
        ("OPTIONS", "/v1/enqueue/batch", 405, "POST"),
        ("PUT", "/v1/tasks/x", 405, "DELETE, GET, HEAD"),
        ("POST", "/v1/rate-limit", 405, "GET, HEAD"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
        ("POST", "/admin/tiers", 405, "GET, HEAD"),
        ("GET", "/admin/clients/set", 405, "POST, PUT"),
        ("POST", "/admin/clients/delete", 405, "DELETE"),
    ],
)
async def test_paths_and_methods_come_before_bodies(
    gateway: GatewayFactory, method: str, path: str, status: int, allow: str | None
) -> None:
    """404 and 405 whatever the body is: too long, of another type, and no JSON."""
    gw = await gateway(dispatch=False, max_body_bytes="1000")
    headers = {"Content-Type": "text/plain", "X-Admin-Key": ADMIN_KEY}
    got, body, answered = await gw.call(method, path, data=b"{" * 2000, headers=headers)
    assert (got, answered.get("Allow")) == (status, allow)
    assert body["error"] == {404: "Not found", 405: "Method not allowed"}[status]
    assert body["message"]
    assert answered["X-Request-ID"]


async def test_a_percent_encoded_path_is_the_same_path(gateway: GatewayFactory, a_client: str) -> None:
    """As HTTP has it."""
    gw = await gateway(dispatch=False)
    async with gw.client.post(
        URL(f"{gw.url}/v1/%65nqueue", encoded=True), json={"client_id": a_client, "task": TASK}
    ) as answer:
        assert answer.status == 201


async def test_a_chunked_body_is_counted_while_it_comes(gateway: GatewayFactory) -> None:
    """A body without a length is 413 once it is over the limit."""
    gw = await gateway(dispatch=False, max_body_bytes="1000")

    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100

    for declared in ("application/json", "text/plain"):
        status, body, _ = await gw.call("POST", "/v1/enqueue", data=chunks(), headers={"Content-Type": declared})
        assert (status, body["error"]) == (413, "Body too large")


async def test_a_body_that_stalls_is_408(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A declared body that never comes is answered and the connection closed."""
    monkeypatch.setattr("gateway.middleware.reading.BODY_DEADLINE", 0.1)
    gw = await gateway(dispatch=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    writer.write(b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    writer.close()
    await writer.wait_closed()


async def test_404_and_405_are_json(gateway: GatewayFactory) -> None:
    """An unknown path and a wrong method, the latter with Allow."""
    gw = await gateway(dispatch=False)
    status, body, headers = await gw.call("GET", "/nope")
    assert (status, body["error"]) == (404, "Not found")
    assert headers["X-Request-ID"]
    status, body, headers = await gw.call("GET", "/v1/enqueue")
    assert (status, body["error"], headers["Allow"]) == (405, "Method not allowed", "POST")


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


async def test_redis_away_is_503(gateway: GatewayFactory, a_client: str) -> None:
    """Without Redis: 503 with Retry-After, /livez and /metrics 200, refusals that need no Redis as ever."""
    gw = await gateway(dispatch=False, redis_url="unix:///nonexistent/valkey.sock")
    started = time.monotonic()
    status, body, headers = await gw.enqueue({"client_id": a_client, "task": TASK})
    assert time.monotonic() - started < 2
    assert (status, body["error"]) == (503, "Service unavailable")
    assert int(headers["Retry-After"]) >= 1
    assert "nonexistent" not in json.dumps(body)
    for method, path in (
        ("GET", f"/v1/tasks/x?client_id={a_client}"),
        ("DELETE", f"/v1/tasks/x?client_id={a_client}"),
        ("GET", f"/v1/rate-limit?client_id={a_client}"),
        ("GET", "/admin/clients"),
        ("GET", f"/admin/clients/get?client_id={a_client}"),
        ("DELETE", f"/admin/clients/delete?client_id={a_client}"),
    ):
        status, body, headers = await gw.admin(method, path)
        assert (path, status, body["error"]) == (path, 503, "Service unavailable")
        assert int(headers["Retry-After"]) >= 1
    assert (await gw.admin("GET", "/admin/tiers"))[0] == 200
    assert (await gw.call("GET", "/readyz"))[0] == 503
    assert (await gw.call("GET", "/health"))[0] == 503
    assert (await gw.call("GET", "/livez"))[0] == 200
    async with gw.client.get("/metrics") as metrics:
        assert metrics.status == 200
    assert (await gw.enqueue({}))[0] == 401
    assert (await gw.admin("POST", "/admin/clients/set", json={}))[0] == 400


async def test_a_full_redis_is_503(gateway: GatewayFactory, valkey: str, a_client: str) -> None:
    """Out of memory it takes no task and says so in its own words; what is asked about tasks is still answered."""
    gw = await gateway(dispatch=False)
    body = {"client_id": a_client, "task": TASK}
    _, kept, _ = await gw.enqueue(body)
    redis = from_url(valkey)
    await redis.config_set("maxmemory", "1")
    try:
        status, refused, headers = await gw.enqueue(body)
        assert (status, refused["error"]) == (503, "Service unavailable")
        assert int(headers["Retry-After"]) >= 1
        assert "OOM" not in str(refused)
        tasks = [{"task": TASK}]
        assert (await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks}))[0] == 503
        path = f"/v1/tasks/{kept['task_id']}?client_id={a_client}"
        assert (await gw.call("GET", path))[0] == 200
        assert (await gw.call("DELETE", path))[1]["state"] == "cancelled"
        assert (await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client}))[0] == 503
    finally:
        await redis.config_set("maxmemory", "0")
        await redis.aclose()
    assert (await gw.enqueue(body))[0] == 201


async def test_probes(gateway: GatewayFactory) -> None:
    """With Redis all probes are ok."""
    gw = await gateway(dispatch=False)
    for path in ("/health", "/readyz", "/livez"):
        status, body, _ = await gw.call("GET", path)
        assert (status, body["status"]) == (200, "ok")
