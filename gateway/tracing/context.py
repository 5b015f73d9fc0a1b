"""W3C Trace Context: the two headers as one short string, which travels with a task from its request to its target.
Pure, and nothing here needs OpenTelemetry: a context is handed on also where no spans are made."""

import re
from collections.abc import Mapping

from multidict import MultiMapping

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
MOST_STATE = 512  # characters; the standard asks that at least so many are handed on

# A version from the future may say more after the flags (3.2.4 of the standard); what it says is not ours to send on.
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"[a-z0-9][a-z0-9_*/-]{0,255}(?:@[a-z][a-z0-9_*/-]{0,13})?"
_MEMBER = re.compile(_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS = 32


def received(headers: MultiMapping[str]) -> str:
    """The context of a request, "" where it has none or one that is not valid, which the standard says to ignore."""
    if headers.get(TRACEPARENT) is None:
        return ""
    given = headers.getall(TRACEPARENT)
    return joined(given[0], ",".join(headers.getall(TRACESTATE, ()))) if len(given) == 1 else ""


def joined(parent: str, state: str = "") -> str:
    """`traceparent`, and `tracestate` behind a line break where there is one; "" where the first is not valid.

    >>> joined("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1, b=2")
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\\na=1,b=2'
    >>> joined("00-00000000000000000000000000000000-b7ad6b7169203331-01")
    ''
    """
    match = _PARENT.fullmatch(parent)
    if match is None or (match[1] == "00" and match[5] is not None):
        return ""
    context = f"00-{match[2]}-{match[3]}-{match[4]}"
    state = _state(state) if state else ""
    return f"{context}\n{state}" if state else context


def _state(text: str) -> str:
    """The members, at most `MOST_STATE` characters; "" where one is malformed."""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    state = ",".join(members)
    if len(state) > MOST_STATE or len(members) > _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return state


def of_task(trace: str, own: Mapping[str, str]) -> str:
    """The context of a task: that of its request (``trace``), but what the task's own headers say wins.

    >>> of_task("", {"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"})
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'
    """
    for name, value in own.items():
        if len(name) == len(TRACEPARENT) and name.lower() == TRACEPARENT:
            named = {other.lower(): text for other, text in own.items()}
            return joined(value, named.get(TRACESTATE, ""))
    return trace


def sent(trace: str, own: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers that tell a target of the context; what the task's own headers (``own``) say is not said twice."""
    names = {name.lower() for name in own}
    if not trace or TRACEPARENT in names:
        return []
    parent, _, state = trace.partition("\n")
    headers = [(TRACEPARENT, parent)]
    if state and TRACESTATE not in names:
        headers.append((TRACESTATE, state))
    return headers


def trace_id(trace: str) -> str:
    """The trace's id, which logs name; "" where there is no context.

    >>> trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '0af7651916cd43dd8448eb211c80319c'
    """
    return trace[3:35]
