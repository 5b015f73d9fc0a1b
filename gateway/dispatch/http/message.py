"""What goes out: a URL as an origin and a path, and the head of a request. Pure functions; whatever could change a
request's framing or smuggle a header in is refused here too, whoever let it pass before."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import msgspec
from yarl import URL

from gateway.dispatch.allowed import AllowedHosts
from gateway.dispatch.header_names import CONNECTION_HEADERS
from gateway.dispatch.hosts import literal_address
from gateway.dispatch.http.errors import InvalidRequest
from gateway.dispatch.http.proxy import Proxy

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Those whose body is expected, so that its absence is said too (RFC 9110, 8.6).
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-z:.%_~-]+\]|[a-z0-9!$&'()*+,;=._~%-]+)(?::([0-9]*))?", re.IGNORECASE)
_CACHED_LENGTH = 512


class Origin(NamedTuple):
    """What a connection belongs to. ``host`` is a lower-case name or an address in its plain notation; ``rule``: what
    the address must pass that the name turns out to have, where a client may call some alone."""

    tls: bool
    host: str
    port: int
    rule: AllowedHosts | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart once. ``authority`` is the Host header (RFC 9112, 3.2), ``path`` includes the query."""

    origin: Origin
    authority: str
    path: str


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request as bytes; ``body`` stays apart so that a large one is not copied. ``bodiless``: to HEAD."""

    head: bytes
    body: bytes | None
    bodiless: bool


def parse_url(text: str) -> Target:
    """Raises `InvalidRequest`. Path and query stay as they were given: the target may tell escapes and dots apart.

    >>> target = parse_url("http://Example.com/a/../b?q=%41#top")
    >>> target.origin[:3], target.authority, target.path
    ((False, 'example.com', 80), 'example.com', '/a/../b?q=%41')
    >>> parse_url("https://2130706433:8443").origin[:3]
    (True, '127.0.0.1', 8443)
    """
    # Targets are called again and again; a long URL is likely one of its kind.
    return _parse(text) if len(text) <= _CACHED_LENGTH else _parse.__wrapped__(text)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Target:
    if not _plain(text):
        try:
            text = str(URL(text))
        except ValueError as problem:
            raise InvalidRequest from problem
    url = _URL.fullmatch(text) if _plain(text) else None
    authority = _AUTHORITY.fullmatch(url[2]) if url else None
    if url is None or authority is None:
        raise InvalidRequest("invalid url")
    tls = len(url[1]) == 5
    default = 443 if tls else 80
    port = int(authority[2][:6]) if authority[2] else default
    if not 1 <= port <= 65535:
        raise InvalidRequest
    host = _host(authority[1])
    shown = f"[{host}]" if ":" in host else host.rstrip(".")
    path = url[3] if url[3].startswith("/") else "/" + url[3]
    return Target(Origin(tls, host, port), shown if port == default else f"{shown}:{port}", path)


def _host(text: str) -> str:
    """Every notation of an address becomes the address it stands for, so that it is judged, dialled and pooled as
    one."""
    address = literal_address(text)
    if address is not None:
        return str(address)
    if not text.strip(".") or "%" in text or text.startswith("["):
        raise InvalidRequest("invalid url")
    return text.lower()


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def encode(
    method: str,
    target: Target,
    headers: Iterable[tuple[str, str]],
    body: bytes | None,
    via: Proxy | None = None,
) -> Request:
    """The request with exactly these headers besides Host and Content-Length. ``via``: a proxy that is to forward it,
    which wants the whole URL in the first line (RFC 9112, 3.2.2). Raises `InvalidRequest`.

    >>> encode("POST", parse_url("http://a/x"), [("X-A", "1")], None).head
    b'POST /x HTTP/1.1\\r\\nHost: a\\r\\nX-A: 1\\r\\nContent-Length: 0\\r\\n\\r\\n'
    """
    if method not in METHODS:
        raise InvalidRequest
    form = target.path if via is None else f"http://{target.authority}{target.path}"
    text = f"{method} {form} HTTP/1.1\r\nHost: {target.authority}\r\n"
    lines = 3  # with the empty one at the end
    for name, value in headers:
        if name not in _sent and not _may_be_sent(name):
            raise InvalidRequest
        text += f"{name}: {value}\r\n"
        lines += 1
    if via is not None and via.authorization is not None:
        text += f"Proxy-Authorization: {via.authorization}\r\n"
        lines += 1
    if body is not None or method in _WITH_BODY:
        text += f"Content-Length: {len(body or b'')}\r\n"
        lines += 1
    text += "\r\n"
    try:
        head = text.encode()
    except UnicodeEncodeError as problem:
        raise InvalidRequest from problem
    # One look at all of it: a line that holds more than itself, or any other control character, is no header.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * lines:
        raise InvalidRequest
    return Request(head, body or None, method == "HEAD")


_sent: set[str] = set()  # names that passed before


def _may_be_sent(name: str) -> bool:
    if not _TOKEN.fullmatch(name) or name.lower() in CONNECTION_HEADERS:
        return False
    if len(_sent) < 1024:
        _sent.add(name)
    return True
