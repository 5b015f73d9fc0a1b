"""Log lines: one JSON object a line (or coloured columns in a terminal), for our own events and for what
the standard library's loggers say. What is logged, and when, is decided where it happens."""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
import structlog

from gateway.redaction import scrub_fields

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but for tabs and the line ends of tracebacks

# One list for the life of the process, changed in place: loggers cached by an earlier configure() keep
# pointing at it, and so does structlog.testing.capture_logs().
_processors: list[Any] = []


class _Sink:
    """Where lines go. A full disk or a closed pipe costs the line, never the request that wrote it."""

    stream: TextIO = sys.stderr

    def msg(self, line: str) -> None:
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            return

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


_sink = _Sink()


class _FromStdlib(logging.Handler):
    """Hands the records of aiohttp, asyncio and others to structlog, so that there is one format to parse."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as problem:
            # Not handleError, which prints the arguments as they are.
            structlog.get_logger().error("log_record_malformed", logger=record.name, error=type(problem).__name__)
            return
        # Levels between structlog's own are rounded down: it knows only the five.
        level = max((n for n in _LEVELS.values() if n <= record.levelno), default=logging.DEBUG)
        # A flat % in the message would be taken as a format if arguments went along; none do.
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info or None)


def _ordered(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Fixed fields first, so that lines can be read without a tool."""
    head = {"timestamp": event.pop("timestamp"), "level": method.upper(), "event": event.pop("event", "")}
    return {**head, **event}


def _redacted(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No line holds a secret, whoever wrote it: a library, an exception's text, a line of ours that says too much."""
    return scrub_fields(event)


def _to_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    try:
        line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # A lone surrogate or an integer past 64 bits: rare, and no reason to lose the line.
        return json.dumps({str(key): value for key, value in event.items()}, default=str)
    # JSON leaves the upper control characters as they are, and a terminal that shows the log obeys them.
    return line if line.isascii() else _CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", line)


def _unarmed(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No caller speaks to the operator's terminal: control characters in what it sent are shown, not obeyed."""
    return {name: _CONTROL.sub(_as_escape, value) if isinstance(value, str) else value for name, value in event.items()}


def _as_escape(control: re.Match[str]) -> str:
    return f"\\x{ord(control[0]):02x}"


def _console(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    colours = stream.isatty()
    styles = structlog.dev.ConsoleRenderer.get_default_level_styles(colors=colours)
    return structlog.dev.ConsoleRenderer(
        colors=colours,
        level_styles={name.upper(): style for name, style in styles.items()},
        exception_formatter=structlog.dev.plain_traceback,
    )


def tells_debug() -> bool:
    """Whether debug lines are written: to gather one costs more than not to write it."""
    return logging.root.isEnabledFor(logging.DEBUG)


def configure(level: str, fmt: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Set up logging for the process; once, before the first line. ``stream`` defaults to standard error.

    Fields of a line: ``timestamp`` (RFC 3339, UTC), ``level`` (upper case), ``event``, then the rest,
    which includes what ``structlog.contextvars`` holds (``request_id``). ``level`` is debug, info,
    warning, error or critical, in any case.
    """
    number = _LEVELS.get(level.lower())
    if number is None:
        msg = f"LOG_LEVEL must be one of {', '.join(_LEVELS)}, not {level!r}"
        raise ValueError(msg)
    _sink.stream = sys.stderr if stream is None else stream
    _processors[:] = [
        structlog.contextvars.merge_contextvars,
        # Before the console's renderer too, so that tracebacks are redacted; and without the locals of their frames.
        structlog.processors.format_exc_info,
        _redacted,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _ordered,
        *((_unarmed, _console(_sink.stream)) if fmt == "console" else (_to_json,)),
    ]
    structlog.configure(
        processors=_processors,
        # Methods below the level are replaced by one that returns: a debug line costs a call and nothing
        # else.
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _sink,
        cache_logger_on_first_use=True,
    )
    _route_stdlib(number)
    sys.excepthook = _crashed


def _crashed(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    """What nobody caught is a line of the log like any other, and redacted like any other."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, problem, trace)
        return
    structlog.get_logger().critical("crashed", exc_info=(kind, problem, trace))


def _route_stdlib(level: int) -> None:
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _FromStdlib)]:
        root.removeHandler(handler)
    root.addHandler(_FromStdlib())
    root.setLevel(level)
    # asyncio's own debug lines ("Using selector") tell an operator nothing.
    logging.getLogger("asyncio").setLevel(max(level, logging.INFO))
