"""How answers are encoded: JSON by orjson, times as RFC 3339 in UTC."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from gateway.errors import GatewayError
from gateway.models import Attempt, RateLimit, TaskView

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS


def json_bytes(body: Any) -> bytes:
    """The JSON of an answer."""
    return orjson.dumps(body, option=_OPTIONS)


class Pieces(Payload):
    """A long body, sent a piece at a time: joined, its megabytes would be copied several times in one turn of the event
    loop."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces)
        self._pieces = pieces
        self._size = sum(map(len, pieces))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The whole of it."""
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it, as fast as the caller reads."""
        for piece in self._pieces:
            await writer.write(piece)
            await asyncio.sleep(0)


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response; datetimes in it are told to the second."""
    return web.Response(
        body=json_bytes(body),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def error_answer(problem: GatewayError) -> web.Response:
    """A `GatewayError` as its response."""
    response = json_answer(problem.body(), problem.status, problem.headers)
    if problem.headers.get("Connection") == "close":
        response.force_close()
    return response


def rfc3339(milliseconds: int | None) -> str | None:
    """Unix milliseconds as RFC 3339 in UTC.

    >>> rfc3339(1705314600123)
    '2024-01-15T10:30:00.123Z'
    """
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def limit_body(limit: RateLimit) -> dict[str, int]:
    """A policy's two numbers as every answer shows them."""
    return {"max_concurrent": limit.max_concurrent, "requests_per_min": limit.requests_per_min}


def task_body(view: TaskView) -> dict[str, Any]:
    """A task as the API shows it; its labels where it has some."""
    body = {
        "task_id": view.task_id,
        "client_id": view.client_id,
        "queue": view.queue,
        "state": view.state.value,
        "attempts": view.attempts,
        "max_retry": view.max_retry,
        "created_at": rfc3339(view.created_at),
        "run_at": rfc3339(view.run_at),
        "next_attempt_at": rfc3339(view.next_attempt_at),
        "finished_at": rfc3339(view.finished_at),
        "last_attempt": None if view.last_attempt is None else attempt_body(view.last_attempt),
        "reason": view.reason,
    }
    return {**body, "labels": list(view.labels)} if view.labels else body


def attempt_body(attempt: Attempt) -> dict[str, Any]:
    """One attempt."""
    return {
        "status": attempt.status,
        "error": attempt.error,
        "started_at": rfc3339(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "body": attempt.body,
    }
