"""Which tasks an operator means: the filters that listings, dead letters and jobs share, from a query or a body."""

import re
from collections.abc import Sequence
from time import time
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.errors import InvalidBody
from gateway.middleware.reading import CLIENT_ID_FORMAT, MOMENT_PATTERN, is_client_id, page_limit, parse_moment, query
from gateway.models import CLIENT_ID_PATTERN, QUEUE_PATTERN, State
from gateway.store.listing import Place, parse_cursor
from gateway.task_filter import TaskFilter

PAGE: Final = 50
PAGE_MAX: Final = 500
TASK_ID_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"
_QUEUE = re.compile(QUEUE_PATTERN)
_TASK_ID = re.compile(TASK_ID_PATTERN)
_NUMBER = re.compile(r"\d{1,10}(?:\.\d{1,6})?", re.ASCII)
_MOST_SECONDS: Final = 10**10
_LONGEST: Final = 256
_STATES = tuple(state.value for state in State)
STATES_PATTERN: Final = f"^(?:{'|'.join(_STATES)})(?:,(?:{'|'.join(_STATES)}))*$"

Text = Annotated[str, Meta(max_length=_LONGEST)]
Seconds = Annotated[float, Meta(ge=0, le=_MOST_SECONDS)]


class FilterBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Which tasks; all conditions that are given hold."""

    client_id: Annotated[
        str | None, Meta(description="none: all", examples=["acme"], extra_json_schema={"pattern": CLIENT_ID_PATTERN})
    ] = None
    queue: Annotated[str | None, Meta(examples=["default"], extra_json_schema={"pattern": QUEUE_PATTERN})] = None
    state: Annotated[
        str | None,
        Meta(
            description="one or several, comma separated",
            examples=["scheduled,retrying"],
            extra_json_schema={"pattern": STATES_PATTERN},
        ),
    ] = None
    task_id: Annotated[
        str | None, Meta(description="only this one", extra_json_schema={"pattern": TASK_ID_PATTERN})
    ] = None
    host: Annotated[
        Text | None, Meta(description="of the target, with its port or without", examples=["api.example.com"])
    ] = None
    status: Annotated[
        Annotated[int, Meta(ge=100, le=999)] | None, Meta(description="of the last attempt", examples=[503])
    ] = None
    label: Annotated[Text | None, Meta(examples=["order-4711"])] = None
    error: Annotated[
        Text | None, Meta(description="part of the reason or of the last error, or the last status", examples=["503"])
    ] = None
    min_age: Annotated[Seconds | None, Meta(description="seconds since it was enqueued", examples=[0])] = None
    max_age: Annotated[Seconds | None, Meta(description="seconds since it was enqueued", examples=[86400])] = None
    after: Annotated[
        str | None, Meta(description="ended then or later", extra_json_schema={"pattern": MOMENT_PATTERN})
    ] = None
    before: Annotated[str | None, Meta(description="ended earlier", extra_json_schema={"pattern": MOMENT_PATTERN})] = (
        None
    )


FILTERS: Final = FilterBody.__struct_fields__


def filter_of_query(request: web.Request, known: Sequence[str]) -> FilterBody:
    """The filters of a query in which ``known`` parameters may be; 400 names what is malformed."""
    given = {name: query(request, name, known) for name in FILTERS if name in known}
    typed: dict[str, str | int | float | None] = dict(given)
    for name, text in given.items():
        if text is not None and len(text) > _LONGEST:
            raise _wrong(name, f"must be at most {_LONGEST} characters", "")
        if text is not None and name in {"status", "min_age", "max_age"}:
            if not _NUMBER.fullmatch(text) or (name == "status" and not 100 <= float(text) <= 999):
                what = "an HTTP status such as 503" if name == "status" else "seconds"
                raise _wrong(name, f"must be {what}", "")
            typed[name] = int(float(text)) if name == "status" else float(text)
    return FilterBody(**typed)  # type: ignore[arg-type]


def chosen(given: FilterBody, place: str = "") -> TaskFilter:
    """The filter; raises `InvalidBody`. ``place`` stands before a field's name: the path of the object in a body."""
    if given.client_id is not None and not is_client_id(given.client_id):
        raise _wrong("client_id", CLIENT_ID_FORMAT, place)
    if given.queue is not None and not _QUEUE.fullmatch(given.queue):
        raise _wrong("queue", "must be 1 to 64 of the characters A-Z a-z 0-9 _ -", place)
    # It becomes part of a key: braces would send a script to another node of a Cluster, which then fails.
    if given.task_id is not None and not _TASK_ID.fullmatch(given.task_id):
        raise _wrong("task_id", "must be as enqueue answered it: 1 to 64 of the characters A-Z a-z 0-9 _ -", place)
    states = frozenset() if given.state is None else frozenset(given.state.split(","))
    if not states <= set(_STATES):
        raise _wrong("state", f"must be one or several of {', '.join(_STATES)}, comma separated", place)
    now = int(time() * 1000)
    return TaskFilter(
        client_id=given.client_id,
        queue=given.queue,
        states=frozenset(map(State, states)),
        task_id=given.task_id,
        host=given.host,
        status=given.status,
        label=given.label,
        error=given.error,
        after=_moment("after", given.after, place),
        before=_moment("before", given.before, place),
        created_after=None if given.max_age is None else int(now - given.max_age * 1000),
        created_before=None if given.min_age is None else int(now - given.min_age * 1000) + 1,
    )


def paging(request: web.Request, known: Sequence[str], most: int = PAGE_MAX) -> tuple[Place | None, int]:
    """Where a listing goes on, and how many it shows at most."""
    limit = page_limit(query(request, "limit", known), most) or PAGE
    text = query(request, "cursor", known)
    place = None if text is None else parse_cursor(text)
    if text is not None and place is None:
        raise _wrong("cursor", "must be the next_cursor of an earlier page", "")
    return place, limit


def newest_first(request: web.Request, known: Sequence[str]) -> bool:
    """The query parameter ``order``."""
    order = query(request, "order", known) or "newest"
    if order not in {"newest", "oldest"}:
        raise _wrong("order", "must be newest or oldest", "")
    return order == "newest"


def _moment(name: str, text: str | None, place: str) -> int | None:
    if text is None:
        return None
    moment = parse_moment(text)
    if moment is None:
        hint = "" if place else " (a + in it as %2B)"
        raise _wrong(name, f"must be an RFC 3339 time such as 2024-01-15T10:30:00Z{hint}", place)
    return moment


def _wrong(name: str, what: str, place: str) -> InvalidBody:
    if place:
        return InvalidBody(f"{place}.{name}: {what}")
    return InvalidBody(f"{name}: {what}", error="Invalid query")
