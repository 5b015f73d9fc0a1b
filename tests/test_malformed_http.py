"""What is no HTTP, or asks for what this server does not do: refused as everything else is, as JSON with an id."""

import asyncio
import contextlib
import json

import pytest
from conftest import Gateway, GatewayFactory
from structlog.testing import capture_logs

from gateway import metrics

SECRET = b"hunter2"


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes, also where it does before it has read all that was sent: that resets the
    connection, and the reader would keep back what had come until then."""
    got = b""
    try:
        while part := await reader.read(65536):
            got += part
    except ConnectionResetError:
        got += bytes(reader._buffer)  # type: ignore[attr-defined]
    return got


async def raw(gw: Gateway, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower-case names) and body of the one answer to these bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    writer.write(sent)
    async with asyncio.timeout(10):
        head, _, body = (await all_of(reader)).partition(b"\r\n\r\n")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    first, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, body


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (b"hunter2\r\n\r\n", "request line"),
        (b"BREW /livez HTTP/1.1\r\nHost: x\r\n\r\n", "Invalid method"),
        (b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n", "Invalid method"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1"),
        (b"GET /livez HTTP/1.1\r\n\r\n", "Host"),
        (b"GET /hunter2\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", "URL"),
        (b"GET http://[hunter2 HTTP/1.1\r\nHost: x\r\n\r\n", "URL"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "8190"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n", "8190"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: 1\r\n" * 40_000 + b"\r\n", "header"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Admin-Key hunter2\r\n\r\n", "header"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Admin-Key: hunter2\x00\r\n\r\n", "header"),
        (b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "Content-Length"),
        (b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "Content-Length"),
        (
            b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding",
        ),
        (b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "chunk"),
    ],
)
async def test_malformed_http_is_a_json_400(gateway: GatewayFactory, sent: bytes, named: str) -> None:
    """400 in JSON with a request id, the connection closed; logged once without a traceback or what was sent."""
    gw = await gateway(dispatch=False)
    with capture_logs() as logs:
        status, headers, body = await raw(gw, sent)
    answer = json.loads(body)
    assert (status, answer["error"], headers["content-type"]) == (400, "Malformed request", "application/json")
    assert named in answer["message"]
    assert headers["connection"] == "close"
    [entry] = [entry for entry in logs if entry.get("status") == 400]
    assert (entry["event"], entry["log_level"], entry["request_id"]) == ("request", "info", headers["x-request-id"])
    assert SECRET.decode() not in str(logs)
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    assert b'gateway_http_requests_total{method="other",route="unmatched",status="400"} 1.0' in metrics.render()[0]


async def test_a_good_request_before_a_malformed_one_is_answered(gateway: GatewayFactory) -> None:
    """On a kept connection the first answer stays whole and the second is the 400."""
    gw = await gateway(dispatch=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gw.url.rpartition(":")[2]))
    async with asyncio.timeout(10):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"nonsense\r\n\r\n")
        assert b" 400 " in (await reader.read()).partition(b"\r\n")[0]
    writer.close()
    await writer.wait_closed()


async def test_an_expectation_that_can_not_be_met_is_417(gateway: GatewayFactory) -> None:
    """`Expect: 100-continue` is met, anything else is 417, in JSON with a request id."""
    gw = await gateway(dispatch=False)
    head = b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nContent-Length: 2\r\nConnection: close\r\n"
    head += b"Expect: "
    status, headers, body = await raw(gw, head + b"more\r\n\r\n{}")
    assert (status, json.loads(body)["error"]) == (417, "Expectation failed")
    assert headers["x-request-id"] == "mine"
    status, _, body = await raw(gw, head + b"100-continue\r\n\r\n{}")
    assert status == 100
    assert body.startswith(b"HTTP/1.1 401 ")


async def test_a_defect_outside_of_the_middlewares_tells_nothing(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 in JSON without a word of the defect; the log has its traceback."""

    counted = metrics.http_request

    def broken(route: str, method: str, status: int, seconds: float) -> None:
        if route == "/livez":
            raise ZeroDivisionError(SECRET)
        counted(route, method, status, seconds)

    gw = await gateway(dispatch=False)
    monkeypatch.setattr(metrics, "http_request", broken)
    with capture_logs() as logs:
        status, headers, body = await raw(gw, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    told = [(entry["event"], entry["request_id"]) for entry in logs if "request_id" in entry]
    assert told == [("unexpected_error", headers["x-request-id"]), ("request", headers["x-request-id"])]
    assert (status, json.loads(body)["error"]) == (500, "Internal error")
    assert headers["x-request-id"] in json.loads(body)["message"]
    assert SECRET not in body
