"""Bad inputs by name: the bytes that are sent, and the status that docs/api.md has for them. None: the connection ends
without an answer, since nothing was asked. `test_bad_input` sends each one."""

import gzip
import json
from typing import Any, NamedTuple

from conftest import ADMIN_KEY

MAX_BODY = 2000  # MAX_BODY_BYTES and MAX_BATCH_BYTES of the gateway that is asked
URL = "http://example.com/"
KEY = f"X-Admin-Key: {ADMIN_KEY}"


class Bad(NamedTuple):
    """``sent`` at once; with ``half_closed`` nothing more can come, else the caller waits for the answer."""

    name: str
    sent: bytes
    status: int | None
    half_closed: bool = False


def request(line: str, *headers: str, body: bytes = b"", length: bool = True) -> bytes:
    """A request as it should be but for what it is given."""
    lines = [line if " HTTP/" in line else f"{line} HTTP/1.1", "Host: gateway", "Connection: close", *headers]
    if body and length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(body: bytes, *headers: str, path: str = "/v1/enqueue") -> bytes:
    """A body for the clients' API."""
    return request(f"POST {path}", *headers, body=body)


def asks(task: Any = None, **fields: Any) -> bytes:
    """A good request of the client `acme` but for these fields."""
    return post(json.dumps({"client_id": "acme", "task": {"url": URL, **(task or {})}, **fields}).encode())


def field(text: bytes) -> bytes:
    """The same with a piece of JSON that Python would not write."""
    return post(b'{"client_id":"acme","task":{"url":"http://example.com/"},' + text + b"}")


def chunked(raw: bytes, *headers: str) -> bytes:
    """A body in chunks as they are given."""
    return request("POST /v1/enqueue", "Transfer-Encoding: chunked", *headers) + raw


def admin(line: str, body: bytes = b"") -> bytes:
    """An operator's call."""
    return request(line, KEY, body=body)


GOOD = json.dumps({"client_id": "acme", "task": {"url": URL}}).encode()
GZIPPED = b"14\r\n" + gzip.compress(b"")[:20] + b"\r\n0\r\n\r\n"
BATCH = b'{"client_id":"acme","tasks":'

BODIES = (
    Bad("no body", post(b""), 400),
    Bad("half an object", post(b'{"client_id":'), 400),
    Bad("words", post(b"hello"), 400),
    Bad("two values", post(GOOD + b" {}"), 400),
    Bad("a list", post(b"[]"), 401),
    Bad("null", post(b"null"), 401),
    Bad("an empty object", post(b"{}"), 401),
    Bad("a key twice", field(b'"delay":1,"delay":2'), 400),
    Bad("a key twice, once escaped", field(b'"delay":1,"d\\u0065lay":2'), 400),
    Bad("an unknown field", asks(dealy=1), 400),
    Bad("a field of another type", asks(delay="soon"), 400),
    Bad("a task that is a list", field(b'"task":[]'), 400),
    Bad("nested lists without end", post(b"[" * MAX_BODY), 400),
    Bad("nested objects without end", post(b'{"a":' * (MAX_BODY // 5)), 400),
    Bad("a batch of none", post(BATCH + b"[]}", path="/v1/enqueue/batch"), 400),
    Bad("a batch of nothing but nulls", post(BATCH + b"[null,null]}", path="/v1/enqueue/batch"), 400),
    Bad("a batch with one bad task", post(BATCH + b'[{"task":{"url":"no"}}]}', path="/v1/enqueue/batch"), 400),
    Bad("a batch with a key for all", post(BATCH + b"[]}", "Idempotency-Key: k", path="/v1/enqueue/batch"), 400),
    Bad("settings that are a list", admin("PUT /admin/clients/set", b"[]"), 400),
    Bad("settings of nobody", admin("PUT /admin/clients/set", b'{"client_id":""}'), 400),
    Bad("settings with an unknown field", admin("PUT /admin/clients/set", b'{"client_id":"acme","admin":true}'), 400),
)

ENCODINGS = (
    Bad("UTF-16", post(GOOD.decode().encode("utf-16")), 400),
    Bad("a byte order mark", post(b"\xef\xbb\xbf" + GOOD), 400),
    Bad("Latin-1", field(b'"queue":"\xe9"'), 400),
    Bad("an overlong NUL", field(b'"queue":"\xc0\x80"'), 400),
    Bad("a lone surrogate", field(b'"queue":"\\ud800"'), 400),
    Bad("a surrogate in UTF-8", field(b'"queue":"\xed\xa0\x80"'), 400),
    Bad("a bare control character", field(b'"queue":"\x01"'), 400),
    Bad("a NUL in a name", asks({"headers": {"X\0A": "1"}}), 400),
    Bad("another charset", post(GOOD, "Content-Type: application/json; charset=utf-7"), 415),
    Bad("a form", post(b"client_id=acme", "Content-Type: application/x-www-form-urlencoded"), 415),
    Bad("a multipart form", post(b"--x--", "Content-Type: multipart/form-data; boundary=x"), 415),
    Bad("XML", post(b"<a/>", "Content-Type: application/xml"), 415),
    Bad("a gzip bomb", post(gzip.compress(b"0" * 1_000_000), "Content-Encoding: gzip"), 415),
    Bad("gzip that is none", post(b"hello", "Content-Encoding: gzip"), 415),
    Bad("an encoding nobody knows", post(GOOD, "Content-Encoding: br, gzip"), 415),
    Bad("gzip as a transfer encoding", request("POST /v1/enqueue", "Transfer-Encoding: gzip, chunked") + GZIPPED, 400),
)

NUMBERS = (
    Bad("NaN", field(b'"delay":NaN'), 400),
    Bad("infinity", field(b'"delay":-Infinity'), 400),
    Bad("a float past its range", field(b'"delay":1e999'), 400),
    Bad("an integer of a thousand digits", field(b'"cost":' + b"9" * 1000), 400),
    Bad("a negative delay", asks(delay=-1), 400),
    Bad("a delay of a century", asks(delay=3_200_000_000), 400),
    Bad("a cost of nothing", asks(cost=0), 400),
    Bad("half a cost", asks(cost=0.5), 400),
    Bad("true for a number", asks(max_retry=True), 400),
    Bad("more than 64 bits", asks(timeout=2**64), 400),
    Bad("a leading zero", field(b'"cost":01'), 400),
    Bad("a hexadecimal number", field(b'"cost":0x10'), 400),
    Bad("half an override", asks(rate_limit={"max_concurrent": 1}), 400),
    Bad("an override of nothing", asks(rate_limit={"max_concurrent": 0, "requests_per_min": 0}), 400),
    Bad("an override past the ceiling", asks(rate_limit={"max_concurrent": 10**9, "requests_per_min": 1}), 400),
)

IDS = (
    Bad("no client", post(b'{"task":{"url":"http://example.com/"}}'), 401),
    Bad("a client of two letters", post(b'{"client_id":"ab"}'), 401),
    Bad("a client of 65", post(b'{"client_id":"' + b"a" * 65 + b'"}'), 401),
    Bad("a pattern for a client", post(b'{"client_id":"acm*"}'), 401),
    Bad("a hash tag for a client", post(b'{"client_id":"{acme}"}'), 401),
    Bad("a path for a client", post(b'{"client_id":"../../acme"}'), 401),
    Bad("a line break after a client", post(b'{"client_id":"acme\\n"}'), 401),
    Bad("a number for a client", post(b'{"client_id":12345}'), 401),
    Bad("two clients", post(GOOD, "X-Client-ID: other"), 400),
    Bad("a client in another alphabet", request("GET /v1/rate-limit?client_id=%D0%B0%D1%81me"), 400),
    Bad("a client twice in a query", request("GET /v1/rate-limit?client_id=acme&client_id=other"), 400),
    Bad("an unknown parameter", request("GET /v1/rate-limit?client_id=acme&id=1"), 400),
    Bad("a queue with a colon", asks(queue="a:b"), 400),
    Bad("a queue of 65", asks(queue="q" * 65), 400),
    Bad("an idempotency key with a line break", asks(idempotency_key="a\nb"), 400),
    Bad("an unknown task", request("GET /v1/tasks/no-such-task?client_id=acme"), 404),
    Bad("a task that is a pattern", request("DELETE /v1/tasks/*?client_id=acme"), 404),
    Bad("a task of 4,000 letters", request(f"GET /v1/tasks/{'a' * 4000}?client_id=acme"), 404),
    Bad("a page of -1", admin("GET /admin/clients?limit=-1"), 400),
    Bad("a page past 64 bits", admin(f"GET /admin/clients?limit={2**70}"), 400),
    Bad("a cursor of nobody", admin("GET /admin/audit?cursor=%00"), 400),
)

URLS = (
    Bad("no URL", field(b'"task":{}'), 400),
    Bad("a file", asks({"url": "file:///etc/passwd"}), 400),
    Bad("a script", asks({"url": "javascript:alert(1)"}), 400),
    Bad("a URL without a host", asks({"url": "http:///x"}), 400),
    Bad("a path", asks({"url": "/x"}), 400),
    Bad("a host without a scheme", asks({"url": "//example.com/"}), 400),
    Bad("a user and a password", asks({"url": "http://ann:pw@example.com/"}), 400),
    Bad("a backslash before the host", asks({"url": "http://example.com\\@127.0.0.1/"}), 400),
    Bad("a line break in a URL", asks({"url": "http://example.com/\r\nX-A: 1"}), 400),
    Bad("a port past the last", asks({"url": "http://example.com:65536/"}), 400),
    Bad("half an IPv6 address", asks({"url": "http://[::1/"}), 400),
    Bad("the cloud's metadata", asks({"url": "http://169.254.169.254/latest/meta-data/"}), 400),
    Bad("the same inside IPv6", asks({"url": "http://[::ffff:169.254.169.254]/"}), 400),
    Bad("loopback", asks({"url": "http://127.0.0.2:8080/"}), 400),
    Bad("a header that ends the head", asks({"headers": {"X-A": "1\r\n\r\nGET / HTTP/1.1"}}), 400),
    Bad("a header that frames", asks({"headers": {"Transfer-Encoding": "chunked"}}), 400),
    Bad("another host", asks({"headers": {"Host": "169.254.169.254"}}), 400),
    Bad("a method that tunnels", asks({"method": "CONNECT"}), 400),
    Bad("a method with a line break", asks({"method": "GET / HTTP/1.1\r\nX: y"}), 400),
)
