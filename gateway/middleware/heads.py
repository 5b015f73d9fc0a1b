"""Heads of requests that the express way may take: read once, then known by their bytes. Most callers keep a connection
and send the same head again and again."""

import re
from typing import Final

import httptools
import msgspec

from gateway.middleware.reading import is_json_type
from gateway.tracing.context import TRACEPARENT, TRACESTATE, joined

_KEPT: Final = 1024  # heads
_KEPT_BYTES: Final = 2048  # of one head; a longer one is read each time
# What says nothing about the request that this service heeds. With any other name the request takes the ordinary way.
_INERT: Final = frozenset(
    {
        *(
            "accept",
            "accept-charset",
            "accept-encoding",
            "accept-language",
            "cache-control",
            "date",
            "dnt",
            "forwarded",
        ),
        *("from", "host", "origin", "pragma", "referer", "user-agent", "via", "x-forwarded-for", "x-forwarded-host"),
        *("x-forwarded-port", "x-forwarded-proto", "x-real-ip"),
    }
)
_HEEDED: Final = frozenset(
    {
        *("authorization", "connection", "content-length", "content-type", "idempotency-key", TRACEPARENT, TRACESTATE),
        *("x-client-id", "x-client-key", "x-request-id"),
    }
)
_DIGITS: Final = re.compile(r"[0-9]{1,9}")


class Head(msgspec.Struct, frozen=True):
    """What a head says: ``length`` of the body in bytes; the headers as they stand there, None where absent; the trace
    context, "" for none."""

    length: int
    client_id: str | None
    client_key: str | None
    authorization: str | None
    idempotency_key: str | None
    request_id: str | None
    trace: str


class _Lines:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


class Heads:
    """Reads heads of ``POST path``."""

    def __init__(self, path: str) -> None:
        self._path = path.encode()
        self._start = b"POST %b HTTP/1.1\r\n" % self._path
        self._known: dict[bytes, Head | None] = {}

    def read(self, head: bytes) -> Head | None:
        """The head that ends before its empty line; None where it takes the ordinary way, whatever the reason."""
        try:
            return self._known[head]
        except KeyError:
            pass
        found = self._parse(head) if head.startswith(self._start) else None
        if len(head) <= _KEPT_BYTES:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[head] = found
        return found

    def _parse(self, head: bytes) -> Head | None:
        lines = _Lines()
        parser = httptools.HttpRequestParser(lines)
        try:
            # The end of its lines alone: with the empty one the parser would wait for the body.
            parser.feed_data(head + b"\r\n\r\n")
            named = [(name.decode("ascii").lower(), value.decode("ascii")) for name, value in lines.headers]
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError):
            return None
        heeded = dict(named)
        if lines.url != self._path or len(heeded) != len(named) or not heeded.keys() <= _INERT | _HEEDED:
            return None
        if "host" not in heeded or heeded.get("connection", "keep-alive").lower() != "keep-alive":
            return None
        if "origin" in heeded and not heeded.get("content-type"):  # see `reading`
            return None
        length = heeded.get("content-length", "")
        if not _DIGITS.fullmatch(length) or not is_json_type(heeded.get("content-type")):
            return None
        return Head(
            int(length),
            heeded.get("x-client-id"),
            heeded.get("x-client-key"),
            heeded.get("authorization"),
            heeded.get("idempotency-key"),
            heeded.get("x-request-id"),
            joined(heeded[TRACEPARENT], heeded.get(TRACESTATE, "")) if TRACEPARENT in heeded else "",
        )
