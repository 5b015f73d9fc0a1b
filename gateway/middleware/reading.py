"""Reading what a request carries: its body within size and time, its query parameters. Nothing here knows what
the body means."""

import asyncio
import re
from collections.abc import Collection
from datetime import UTC, datetime

from aiohttp import StreamReader, hdrs, web

from gateway.errors import GatewayError, InvalidBody, nearest
from gateway.models import CLIENT_ID_PATTERN

BODY_DEADLINE = 10.0  # seconds for a whole body; aiohttp itself has none
_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)
_CURLS_DEFAULT = "application/x-www-form-urlencoded"
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN)
MOMENT_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$"
_MOMENT = re.compile(MOMENT_PATTERN, re.ASCII)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The body's bytes. 413 past ``limit``, 408 where it stalls, 415 unless it is declared JSON or nothing."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    content = request.content
    if content.is_eof() and content.exception() is None:  # it came with the head: nothing to wait for
        raw = content.read_nowait()
        if len(raw) > limit:
            raise _too_large(limit)
    else:
        raw = await _arriving(content, limit)
    _check_declared(request)
    return raw


async def _arriving(content: StreamReader, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            # Counted while it arrives: a chunked body declares no length.
            while part := await content.readany():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        msg = f"the body did not arrive within {BODY_DEADLINE:g} seconds"
        raise GatewayError(
            msg,
            status=408,
            error="Request timeout",
            headers={"Connection": "close"},
        ) from None
    except web.RequestPayloadError:
        msg = "$: the body's transfer encoding is broken"
        raise InvalidBody(msg) from None
    except ConnectionError:
        # Nobody reads this any more; it is no defect of the gateway's that would belong in its log.
        msg = "$: the connection ended before the body did"
        raise InvalidBody(msg) from None
    return b"".join(parts)


def is_json_type(declared: str | None) -> bool:
    """Whether a Content-Type is JSON in UTF-8; none is taken for it."""
    if not declared:
        return True
    kind, _, parameters = declared.partition(";")
    charset = _CHARSET.search(parameters)
    known = charset is None or charset[1].lower() in {"utf-8", "utf8", "us-ascii"}
    return known and _JSON_TYPE.fullmatch(kind.strip()) is not None


def _check_declared(request: web.Request) -> None:
    declared = header(request, hdrs.CONTENT_TYPE) or ""
    if not declared and hdrs.ORIGIN in request.headers:
        # A page of anybody's may have the browser send what declares nothing, without asking first whether it may.
        msg = "a request of a web page (it has an Origin) must declare Content-Type: application/json"
        raise _unsupported(msg)
    if not is_json_type(declared):
        curls = declared.partition(";")[0].strip().lower() == _CURLS_DEFAULT
        hint = " (curl -H 'Content-Type: application/json')" if curls else ""
        msg = f"Content-Type is {declared[:100]!r}; send application/json in UTF-8{hint}, or none"
        raise _unsupported(msg)
    encoding = header(request, hdrs.CONTENT_ENCODING) or "identity"
    if encoding.strip().lower() not in {"", "identity"}:
        msg = f"Content-Encoding is {encoding[:100]!r}; send the JSON without one"
        raise _unsupported(msg)


def _unsupported(message: str) -> GatewayError:
    return GatewayError(message, status=415, error="Unsupported media type")


def _too_large(limit: int) -> GatewayError:
    # Closed: what is still to come of the body is not worth reading.
    return GatewayError(
        f"the body is larger than {limit} bytes",
        status=413,
        error="Body too large",
        headers={"Connection": "close"},
    )


def header(request: web.Request, name: str) -> str | None:
    """A header's value, None where it is absent; lines of the same name joined, as RFC 9110, 5.2 has it, so that no
    second one goes unseen."""
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def query(request: web.Request, name: str, known: Collection[str]) -> str | None:
    """A query parameter, None where absent or empty. 400 for one that is not ``known`` or given twice."""
    for other in request.query:
        if other not in known:
            msg = f"{other[:64]}: unknown query parameter; {nearest(other[:64], known)}"
            raise InvalidBody(msg, error="Invalid query")
    values = request.query.getall(name, [])
    if len(values) > 1:
        msg = f"{name}: query parameter given twice"
        raise InvalidBody(msg, error="Invalid query")
    return (values[0] if values else "") or None


def page_limit(text: str | None, most: int) -> int | None:
    """The query parameter ``limit`` of a page, None where it was not given; 400 unless it is 1 to ``most``."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        message = f"limit: must be a whole number from 1 to {most}"
        raise InvalidBody(message, error="Invalid query")
    return int(text)


def moment(name: str, text: str | None) -> int | None:
    """A query parameter's RFC 3339 time as Unix ms, None where it was not given; 400 for anything else."""
    if text is None:
        return None
    told = parse_moment(text)
    if told is None:
        msg = f"{name}: must be an RFC 3339 time such as 2024-01-15T10:30:00Z (a + in it as %2B)"
        raise InvalidBody(msg, error="Invalid query")
    return told


def parse_moment(text: str) -> int | None:
    """An RFC 3339 time as Unix ms, None where it is none.

    >>> parse_moment("2024-01-15T10:30:00+01:00"), parse_moment("2024-01-15"), parse_moment("0001-01-01T00:00:00+14:00")
    (1705311000000, None, None)
    """
    try:
        told = datetime.fromisoformat(text).astimezone(UTC) if _MOMENT.fullmatch(text) else None
    except (ValueError, OverflowError):
        told = None
    return None if told is None else int(told.timestamp() * 1000)


def client_id_of_query(request: web.Request, known: Collection[str] = ("client_id",)) -> str:
    """The query parameter ``client_id``; 400 where it is missing or can't be one."""
    given = query(request, "client_id", known)
    if given is None:
        msg = f"say whose: {request.path}?client_id=…"
        raise InvalidBody(msg, error="client_id query parameter is required")
    if not is_client_id(given):
        msg = f"client_id: {CLIENT_ID_FORMAT}"
        raise InvalidBody(msg, error="Invalid query")
    return given


CLIENT_ID_FORMAT = "must be 3 to 64 of the characters A-Z a-z 0-9 _ -"


def is_client_id(text: str) -> bool:
    """Whether this is a well-formed client id."""
    return _CLIENT_ID.fullmatch(text) is not None
