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

from gateway.dispatch.header_names import CONNECTION_HEADERS
from gateway.errors import InvalidBody
from gateway.models import DEFAULT_QUEUE, LABEL_PATTERN, QUEUE_PATTERN
from gateway.settings import Settings

TimingFields = Annotated[datetime, Meta(tz=True)]
Written = msgspec.Raw | msgspec.UnsetType  # a field that is kept as it was written

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
KEY = r"[\x21-\x7e]{1,255}"
_TOKEN = re.compile(HEADER_NAME)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
_KEY = re.compile(KEY)
_QUEUE = re.compile(QUEUE_PATTERN)
_LABEL = re.compile(LABEL_PATTERN)
_CACHED_URL_LENGTH = 512
_CACHED_NAME_LENGTH = 64
_decode_text = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode


class Start(msgspec.Struct, frozen=True):
    """When a task may start: seconds from now, or Unix ms; when it expires, in Unix ms. 0: none."""

    delay: float
    run_at: int
    expires_at: int


_AT_ONCE = Start(0.0, 0, 0)


class Rules:
    """The rules under one gateway's settings. Every complaint is an `InvalidBody` that names the field, by its path
    from the task's object on."""

    def __init__(self, settings: Settings) -> None:
        self._origin = None if settings.upstream_url is None else str(URL(settings.upstream_url).origin())
        self._max_delay = settings.max_delay_seconds
        self._max_body = settings.max_body_bytes

    def queue(self, given: str | None) -> str:
        """The queue's name."""
        if given is None:
            return DEFAULT_QUEUE
        if not _QUEUE.fullmatch(given):
            raise _wrong("queue", "must be 1 to 64 of the characters A-Z a-z 0-9 _ -")
        return given

    def method(self, given: str | None) -> str:
        """The method, exactly as HTTP spells it."""
        if given is None:
            return "POST"
        if given not in METHODS:
            close = difflib.get_close_matches(given[:32].upper(), METHODS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise _wrong("task.method", f"must be one of {', '.join(METHODS)}{hint}")
        return given

    def url(self, given: str) -> str:
        """The absolute URL to call; a path is joined to the origin of `UPSTREAM_URL`."""
        target = given
        if given.startswith("/") and not given.startswith("//"):
            if self._origin is None:
                raise _wrong("task.url", "is a path, which needs UPSTREAM_URL; give an absolute http(s) URL")
            target = self._origin + given
        check = url_problem if len(target) <= _CACHED_URL_LENGTH else url_problem.__wrapped__
        problem = check(target)
        if problem is not None:
            raise _wrong("task.url", problem)
        return target

    def content(self, headers: dict[str, str] | None, given: Written) -> tuple[dict[str, str], bytes | None]:
        """The headers and the body to send, of the JSON text that was ``given``; JSON gets its content type where the
        task sets none."""
        headers = headers or {}
        names = check_headers(headers)
        raw = b"" if given is msgspec.UNSET else bytes(given)
        if len(raw) > self._max_body:
            raise _wrong("task.body", f"is larger than {self._max_body} bytes")
        if not raw or raw == b"null":
            return headers, None
        if raw.startswith(b'"'):
            return headers, _decode_text(raw).encode()
        if not raw.startswith((b"{", b"[")):
            raise _wrong("task.body", "must be a string, an object or an array")
        try:
            _decode_any(raw)
        except (ValueError, RecursionError) as problem:
            detail = str(problem).partition(" - at ")[0]  # the place within it is worded in msgspec's way
            raise _wrong("task.body", f"is not JSON that can be sent: {detail[:1].lower()}{detail[1:]}") from None
        if "content-type" in names:
            return headers, raw
        return {**headers, "Content-Type": "application/json"}, raw

    def start(self, delay: float | None, run_at: datetime | None, expires_at: datetime | None, now: float) -> Start:
        """When it starts and expires, ``now`` in Unix seconds; a `run_at` that has passed means now."""
        if delay is None and run_at is None and expires_at is None:
            return _AT_ONCE
        if delay is not None and run_at is not None:
            raise _wrong("run_at", "excludes delay; give one of the two")
        wait = delay or 0.0
        field = "delay" if run_at is None else "run_at"
        if run_at is not None:
            wait = max(0.0, run_at.timestamp() - now)
        if not wait <= self._max_delay:
            raise _wrong(field, f"is more than {self._max_delay:.12g} seconds ahead (MAX_DELAY_SECONDS)")
        if expires_at is not None and expires_at.timestamp() <= now + wait:
            raise _wrong("expires_at", "must be later than the task's start")
        return Start(
            delay or 0.0,
            int(run_at.timestamp() * 1000) if run_at is not None and wait > 0 else 0,
            int(expires_at.timestamp() * 1000) if expires_at is not None else 0,
        )

    def cost(self, outer: int | None, inner: int | None) -> int:
        """`cost` and `task.cost` are one field with two places."""
        if outer is not None and inner is not None and outer != inner:
            raise _wrong("cost", f"is {outer}, task.cost is {inner}; give one, or the same twice")
        return outer or inner or 1

    def key(self, given: str | None) -> str | None:
        """The idempotency key."""
        if given is not None and not _KEY.fullmatch(given):
            raise _wrong("idempotency_key", "must be 1 to 255 visible ASCII characters without spaces")
        return given

    def labels(self, given: list[str] | None) -> tuple[str, ...]:
        """The labels, each once."""
        if not given:
            return ()
        for index, label in enumerate(given):
            if not _LABEL.fullmatch(label):
                place = f"labels[{index}]"
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


def check_headers(headers: dict[str, str]) -> set[str]:
    """Refuse what is no header, or none of the caller's (RFC 9110, 5.1 and 5.5). Answers the names, lower-cased."""
    names: set[str] = set()
    for name, value in headers.items():
        judge = _judged_name if len(name) <= _CACHED_NAME_LENGTH else _judged_name.__wrapped__
        lower, problem = judge(name)
        if problem is None and lower in names:
            problem = "given twice, in different case"
        # Nothing printable is a control character, and most values are printable: that is known faster.
        if problem is None and not value.isprintable() and _CONTROL.search(value):
            problem = "must not hold control characters"
        if problem is not None:
            place = f"task.headers.{name[:64]}"
            raise _wrong(place, problem)
        names.add(lower)
    return names


@lru_cache(maxsize=4096)
def _judged_name(name: str) -> tuple[str, str | None]:
    """The name of a header, lower-cased, and what is wrong with it, None: nothing."""
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        return lower, "is not a header name"
    return lower, "is set by the gateway and can't be given" if lower in CONNECTION_HEADERS else None


def _wrong(place: str, what: str) -> InvalidBody:
    return InvalidBody(f"{place}: {what}")
