"""The log: what a line looks like, and that nothing can break it."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from gateway import log as gateway_log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put logging back as the other tests expect it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.NOTSET)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_fields_in_order() -> None:
    """timestamp (UTC), level in upper case, event, then the rest with the request's id."""
    stream = io.StringIO()
    gateway_log.configure("info", "json", stream)
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger().warning("rate_limited", client="acme", current=51)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["level"] == "WARNING"
    assert line["event"] == "rate_limited"
    assert (line["client"], line["current"], line["request_id"]) == ("acme", 51, "r-1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None


def test_a_caller_writes_no_line_of_its_own_and_nothing_to_the_terminal() -> None:
    """What a caller sent may end a line or hold a terminal's control codes: in both formats it is one line, shown."""
    sent = "/v1/x\n2026-01-01 [ERROR] forged\x1b[2J\x9b31m\r\x00"
    for form in ("json", "console"):
        stream = io.StringIO()
        gateway_log.configure("info", form, stream)  # type: ignore[arg-type]
        structlog.get_logger().info("request", path=sent, plain="ü…\tx")
        written = stream.getvalue()
        assert written.count("\n") == 1
        assert not set(written) & set("\x1b\x9b\r\x00")
        assert "forged" in written
        assert "ü…" in written


@pytest.mark.parametrize(("level", "expected"), [("debug", 3), ("INFO", 2), ("error", 1)])
def test_lines_below_the_level_are_dropped(level: str, expected: int) -> None:
    """LOG_LEVEL holds for our events and for the standard library's."""
    stream = io.StringIO()
    gateway_log.configure(level, "json", stream)
    for write in (structlog.get_logger(), logging.getLogger("aiohttp.server")):
        write.debug("low")
        write.info("middle")
        write.error("high")
    assert len(lines(stream)) == 2 * expected


def test_stdlib_records_look_the_same() -> None:
    """A record of asyncio or aiohttp is a JSON line with its logger's name and its traceback."""
    stream = io.StringIO()
    gateway_log.configure("info", "json", stream)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("aiohttp.server").exception("Error handling %s, 100%% sure", "request")
    logging.getLogger("asyncio").warning("Executing took %.1f seconds", 2)
    first, second = lines(stream)
    assert first["event"] == "Error handling request, 100% sure"
    assert first["logger"] == "aiohttp.server"
    assert first["level"] == "ERROR"
    assert "ZeroDivisionError" in first["exception"]
    assert second["level"] == "WARNING"


def test_configuring_twice_writes_once() -> None:
    """A second configure() replaces the first: no doubled lines, the new stream."""
    old, new = io.StringIO(), io.StringIO()
    gateway_log.configure("info", "json", old)
    gateway_log.configure("info", "json", new)
    logging.getLogger("aiohttp.server").error("once")
    structlog.get_logger().info("also_once")
    assert old.getvalue() == ""
    assert len(lines(new)) == 2


@pytest.mark.parametrize("value", ["\ud800", 2**70, {1, 2}, object(), {3: "x"}, b"\xff", "a\nb"])
def test_odd_values_do_not_break_a_line(value: object) -> None:
    """Whatever a caller's data is, the line is one line of JSON with its event."""
    stream = io.StringIO()
    gateway_log.configure("info", "json", stream)
    structlog.get_logger().info("odd", value=value)
    (line,) = lines(stream)
    assert line["event"] == "odd"
    assert "value" in line


def test_a_broken_stream_does_not_reach_the_caller() -> None:
    """A full disk costs the line and not the request."""

    tried = []

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise OSError(28, "No space left on device")

    gateway_log.configure("info", "json", Full())
    structlog.get_logger().info("lost")
    assert '"event":"lost"' in tried[0]


def test_console_shows_no_locals() -> None:
    """The console has level, event and traceback, and no variables, which may be secrets."""
    stream = io.StringIO()
    gateway_log.configure("info", "console", stream)
    secret = "hunter" + "2"
    try:
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger().exception("went_wrong", client="acme")
    text = stream.getvalue()
    assert "ERROR" in text
    assert "went_wrong" in text
    assert "client=acme" in text
    assert "ValueError: 7" in text
    assert "hunter2" not in text


def test_unknown_level_is_named() -> None:
    """A misspelt LOG_LEVEL says what is allowed."""
    with pytest.raises(ValueError, match="LOG_LEVEL must be one of debug, info"):
        gateway_log.configure("verbose", "json")


async def test_context_is_per_task() -> None:
    """The id of one request never shows in another's lines."""
    stream = io.StringIO()
    gateway_log.configure("info", "json", stream)

    async def request(number: str) -> None:
        structlog.contextvars.bind_contextvars(request_id=number)
        await asyncio.sleep(0)
        structlog.get_logger().info("handled", number=number)

    await asyncio.gather(*(request(str(n)) for n in range(5)))
    assert all(line["request_id"] == line["number"] for line in lines(stream))
    assert len(lines(stream)) == 5
