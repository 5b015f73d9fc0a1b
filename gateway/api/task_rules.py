"""What one task must look like beyond its JSON types: address, headers, body, times. Pure functions of the settings;
the shape of the JSON is in `gateway.api.bodies`, what only a policy can refuse in `gateway.middleware.policy`."""

import difflib
import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta
from yarl import URL

from gateway.dispatch.header_names import spellings
from gateway.errors import InvalidBody
from gateway.models import DEFAULT_QUEUE, LABEL_PATTERN, QUEUE_PATTERN, Unshown
from gateway.settings import Settings

TimingFields = Annotated[datetime, Meta(tz=True)]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# What describes the connection and the framing of a call is the sender's alone (RFC 9110, 7.6.1).
REFUSED_HEADERS = spellings(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
KEY = r"[\x21-\x7e]{1,255}"
_TOKEN = re.compile(HEADER_NAME)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
_KEY = re.compile(KEY)
_QUEUE = re.compile(QUEUE_PATTERN)
_LABEL = re.compile(LABEL_PATTERN)
_CACHED_URL_LENGTH = 512


class TaskFields(Unshown, frozen=True, kw_only=True):
    """A decoded `task`; ``body`` is the JSON text that stood there, empty where none did."""

    url: str
    method: str | None
    headers: dict[str, str]
    body: bytes


class Start(msgspec.Struct, frozen=True):
    """When a task may start: seconds from now, or Unix ms; when it expires, in Unix ms. 0: none."""

    delay: float
    run_at: int
    expires_at: int


class Rules:
    """The rules under one gateway's settings. Every complaint is an `InvalidBody` that names the field."""

    def __init__(self, settings: Settings) -> None:
        self._origin = None if settings.upstream_url is None else str(URL(settings.upstream_url).origin())
        self._max_delay = settings.max_delay_seconds
        self._max_body = settings.max_body_bytes

    def queue(self, given: str | None, path: str) -> str:
        """The queue's name."""
        if given is None:
            return DEFAULT_QUEUE
        if not _QUEUE.fullmatch(given):
            place = f"{path}.queue"
            raise _wrong(place, "must be 1 to 64 of the characters A-Z a-z 0-9 _ -")
        return given

    def method(self, given: str | None, path: str) -> str:
        """The method, exactly as HTTP spells it."""
        if given is None:
            return "POST"
        if given not in METHODS:
            close = difflib.get_close_matches(given[:32].upper(), METHODS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            place = f"{path}.task.method"
            raise _wrong(place, f"must be one of {', '.join(METHODS)}{hint}")
        return given

    def url(self, given: str, path: str) -> str:
        """The absolute URL to call; a path is joined to the origin of `UPSTREAM_URL`."""
        target = given
        if given.startswith("/") and not given.startswith("//"):
            if self._origin is None:
                place = f"{path}.task.url"
                raise _wrong(place, "is a path, which needs UPSTREAM_URL; give an absolute http(s) URL")
            target = self._origin + given
        check = url_problem if len(target) <= _CACHED_URL_LENGTH else url_problem.__wrapped__
        problem = check(target)
        if problem is not None:
            place = f"{path}.task.url"
            raise _wrong(place, problem)
        return target

    def content(self, task: TaskFields, path: str) -> tuple[dict[str, str], bytes | None]:
        """The headers and the body to send; JSON gets its content type where the task sets none."""
        names = check_headers(task.headers, f"{path}.task.headers")
        raw = task.body
        if len(raw) > self._max_body:
            place = f"{path}.task.body"
            raise _wrong(place, f"is larger than {self._max_body} bytes")
        if not raw or raw == b"null":
            return task.headers, None
        if raw.startswith(b'"'):
            return task.headers, msgspec.json.decode(raw, type=str).encode()
        if not raw.startswith((b"{", b"[")):
            place = f"{path}.task.body"
            raise _wrong(place, "must be a string, an object or an array")
        try:
            msgspec.json.decode(raw)
        except (ValueError, RecursionError) as problem:
            place = f"{path}.task.body"
            detail = str(problem).partition(" - at ")[0]  # the place within it is worded in msgspec's way
            raise _wrong(place, f"is not JSON that can be sent: {detail[:1].lower()}{detail[1:]}") from None
        if "content-type" in names:
            return task.headers, raw
        return {**task.headers, "Content-Type": "application/json"}, raw

    def start(
        self, delay: float | None, run_at: datetime | None, expires_at: datetime | None, path: str, now: float
    ) -> Start:
        """When it starts and expires, ``now`` in Unix seconds; a `run_at` that has passed means now."""
        if delay is not None and run_at is not None:
            place = f"{path}.run_at"
            raise _wrong(place, "excludes delay; give one of the two")
        wait = delay or 0.0
        field = "delay" if run_at is None else "run_at"
        if run_at is not None:
            wait = max(0.0, run_at.timestamp() - now)
        if not wait <= self._max_delay:
            place = f"{path}.{field}"
            raise _wrong(place, f"is more than {self._max_delay:.12g} seconds ahead (MAX_DELAY_SECONDS)")
        if expires_at is not None and expires_at.timestamp() <= now + wait:
            place = f"{path}.expires_at"
            raise _wrong(place, "must be later than the task's start")
        return Start(
            delay or 0.0,
            int(run_at.timestamp() * 1000) if run_at is not None and wait > 0 else 0,
            int(expires_at.timestamp() * 1000) if expires_at is not None else 0,
        )

    def cost(self, outer: int | None, inner: int | None, path: str) -> int:
        """`cost` and `task.cost` are one field with two places."""
        if outer is not None and inner is not None and outer != inner:
            place = f"{path}.cost"
            raise _wrong(place, f"is {outer}, task.cost is {inner}; give one, or the same twice")
        return outer or inner or 1

    def key(self, given: str | None, path: str) -> str | None:
        """The idempotency key."""
        if given is not None and not _KEY.fullmatch(given):
            place = f"{path}.idempotency_key"
            raise _wrong(place, "must be 1 to 255 visible ASCII characters without spaces")
        return given

    def labels(self, given: list[str] | None, path: str) -> tuple[str, ...]:
        """The labels, each once."""
        if not given:
            return ()
        for index, label in enumerate(given):
            if not _LABEL.fullmatch(label):
                place = f"{path}.labels[{index}]"
                raise _wrong(place, "must be 1 to 64 of the characters A-Z a-z 0-9 _ . : / @ = + -")
        return tuple(dict.fromkeys(given))


@lru_cache(maxsize=4096)
def url_problem(url: str) -> str | None:
    """What is wrong with an absolute URL, None: nothing.

    >>> url_problem("ftp://example.com/")
    'must be an absolute http:// or https:// URL'
    """
    if _NOT_IN_URL.search(url):
        return "must not hold spaces, control characters or backslashes; percent-encode them"
    try:
        parsed = URL(url)
        host, user, password, port = parsed.host, parsed.user, parsed.password, parsed.port
    except ValueError as problem:
        return f"is not a URL: {problem}"
    if parsed.scheme not in {"http", "https"} or not host:
        return "must be an absolute http:// or https:// URL"
    if user is not None or password is not None:
        return "must not carry a user or password; send the header Authorization"
    return "has no valid port" if port == 0 else None


def check_headers(headers: dict[str, str], path: str) -> set[str]:
    """Refuse what is no header, or none of the caller's (RFC 9110, 5.1 and 5.5). Answers the names, lower-cased."""
    names: set[str] = set()
    for name, value in headers.items():
        place = f"{path}.{name[:64]}"
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise _wrong(place, "is not a header name")
        if lower in REFUSED_HEADERS:
            raise _wrong(place, "is set by the gateway and can't be given")
        if lower in names:
            raise _wrong(place, "given twice, in different case")
        if _CONTROL.search(value):
            raise _wrong(place, "must not hold control characters")
        names.add(lower)
    return names


def _wrong(place: str, what: str) -> InvalidBody:
    return InvalidBody(f"{place}: {what}")
