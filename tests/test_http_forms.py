"""Paths, methods, headers and how a body may come: what is judged before anybody looks into the body."""

import asyncio
import json
from typing import Any

import pytest
import structlog
from conftest import ADMIN_KEY, GatewayFactory
from structlog.testing import capture_logs
from yarl import URL

TASK = {"url": "http://example.com/"}


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
    assert [entry["request_id"] for entry in logs if "request_id" in entry] == [headers["X-Request-ID"]]


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
