"""How many files the process may open, and who gets them. What is past the number fails somewhere: it must be a caller,
who can be told, and neither the links to Redis, with which every lease would go, nor a call."""

import resource
from typing import Final, NamedTuple

import structlog

log = structlog.get_logger()

OURS: Final = 32  # Redis, listeners, the log
CALLERS: Final = 32  # connections that callers may have in any case
_MANY: Final = 65_536  # connections; so many files are asked for where the system gives them


class Share(NamedTuple):
    """Calls that may be open at once, and connections of callers."""

    calls: int
    connections: int


def share_files(max_in_flight: int) -> Share:
    """Ask for enough files, and share what there is; fewer calls than MAX_IN_FLIGHT are told of.

    ``max_in_flight``: 0 for a process that makes none.
    """
    allowed = _allowed(max_in_flight + OURS + CALLERS, max_in_flight + OURS + _MANY)
    calls = min(max_in_flight, max(1, allowed - OURS - CALLERS))
    if calls < max_in_flight:
        log.warning(
            "max_in_flight_lowered",
            message=f"this process may open {allowed} files: MAX_IN_FLIGHT is {calls}, not {max_in_flight}; "
            "raise `ulimit -n`",
        )
    return Share(calls, max(1, allowed - OURS - calls))


def _allowed(needed: int, wanted: int) -> int:
    """How many files may be open, raised towards ``wanted`` as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    for allowed in (highest, min(highest, needed)):  # macOS refuses more than it has
        if allowed > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            except (OSError, ValueError):
                continue
            return allowed
    return soft
