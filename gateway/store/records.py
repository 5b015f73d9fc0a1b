"""From a task to its stored forms and back: a fresh one is its stream entry, every other one has a record. Both are
packed arrays and share the fields from `run_at` on; `stored` has their layouts."""

from functools import lru_cache
from itertools import count
from os import urandom
from typing import Any, Final, cast

import msgspec
import orjson

from gateway.models import Attempt, ClaimedTask, Outcome, State, TaskDetail, TaskSpec, TaskView, Verdict
from gateway.store.stored import (
    SEALED,
    UNREADABLE,
    Fresh,
    Record,
    decode,
    decode_fresh,
    readable,
    salvaged,
    salvaged_fresh,
)

_EARLIER_HEAD = 512  # characters of an answer that others came after

_encode = msgspec.msgpack.Encoder().encode
encode_attempt = msgspec.json.Encoder().encode
_decode_attempt = msgspec.json.Decoder(Attempt).decode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_OVERHEAD = 160  # bytes a record takes beside url, headers and body: keys, index and stream entry not counted

_STATES = {
    "q": State.QUEUED,
    "s": State.SCHEDULED,
    "r": State.RETRYING,
    "S": State.SUCCEEDED,
    "D": State.DEAD,
    "C": State.CANCELLED,
}

Payload = tuple[str, str, int, str]  # url, headers, has_body, body

_process = urandom(5).hex()
_sequence = count()


_TEXT: Final = b"\xdb"  # MessagePack's str 32; its length follows


def packed(*told: str | int) -> bytes:
    """The values one after the other: an array's without its header, which is one byte up to 15 of them."""
    return _encode(told)[1:]


def as_text(told: bytes) -> bytes:
    """Bytes packed as text: Lua's cmsgpack knows no binary type."""
    return _TEXT + len(told).to_bytes(4, "big") + told


# The record of a task that succeeded at once, an array of 26 as lib/task.lua's `pack_record` makes it, up to the time
# at which it finished, as a text: without the 8 bytes of when it was created, an unsigned 64-bit number.
_BEFORE_FINISHED: Final = packed(1, 0, 0)
_BEFORE_CREATED: Final = as_text(b"\xdc\x00\x1a" + packed(1, "S", "", 0) + b"\xcf" + bytes(8) + _BEFORE_FINISHED)[
    : -8 - len(_BEFORE_FINISHED)
]


def unique_end() -> str:
    """What makes a task's id unique behind the time that the script puts before it: 10 hex digits of this process
    start, 6 of a counter."""
    return f"{_process}{next(_sequence) & 0xFFFFFF:06x}"


@lru_cache(maxsize=1024)
def _hexadecimal(number: str, digits: int) -> str:
    return f"{int(number):0{digits}x}"


def id_at(entry: str, unique: str) -> str:
    """The id of a fresh task, as lib/task.lua makes it: where it is, and what makes it unique. Tasks that are stored
    together have their ms in common, and sequences are small."""
    ms, _, sequence = entry.partition("-")
    return _hexadecimal(ms, 12) + _hexadecimal(sequence, 4) + unique


def entry_value(unique: str, spec: TaskSpec, payload: Payload | None = None) -> tuple[bytes, int]:
    """A task as its stream entry holds it, a packed `Fresh`, and the size it counts as. ``payload``: what is stored in
    place of the task's own."""
    task = spec.task
    if payload is None:
        headers = orjson.dumps(task.headers).decode() if task.headers else ""
        body = task.body.decode() if task.body is not None else ""
        payload = (task.url, headers, int(task.body is not None), body)
        length = len(task.body or b"")
    else:
        length = len(payload[3])
    labels = " ".join(task.labels)
    size = _OVERHEAD + len(payload[0]) + len(payload[1]) + length + len(spec.trace) + len(labels)
    timeout = int(task.timeout)
    values = (
        unique,
        task.run_at,
        task.expires_at,
        spec.bound,
        task.max_retry,
        timeout if timeout == task.timeout else task.timeout,  # six bytes less
        size,
        task.method,
        *payload,
        spec.trace,
        labels,
    )
    return _encode(values), size


def claimed(client_id: str, row: list[Any], now: int) -> ClaimedTask:
    """The claim as the dispatcher sees it; ``row`` is queue, entry, fence, id, task (see claim.lua). Raises ValueError
    where the task can't be read."""
    queue, entry, fence, task_id, packed = row
    place = entry.decode()
    if task_id:
        record = readable(decode(packed))
        return ClaimedTask(
            task_id=task_id.decode(),
            client_id=client_id,
            queue=queue.decode(),
            entry=place,
            fence=fence,
            attempt=record.attempts + record.crashes + 1,
            failures=record.attempts,
            max_retry=record.max_retry,
            timeout=record.timeout,
            method=record.method,
            url=record.url,
            headers=_decode_headers(record.headers) if record.headers else {},
            body=record.body.encode() if record.has_body else None,
            due_at=record.due,
            claimed_at=now,
            trace=record.trace,
            stored=record,
        )
    fresh = decode_fresh(packed)
    return ClaimedTask(
        task_id=id_at(place, fresh.unique),
        client_id=client_id,
        queue=queue.decode(),
        entry=place,
        fence=fence,
        attempt=1,
        failures=0,
        max_retry=fresh.max_retry,
        timeout=fresh.timeout,
        method=fresh.method,
        url=fresh.url,
        headers=_decode_headers(fresh.headers) if fresh.headers else {},
        body=fresh.body.encode() if fresh.has_body else None,
        due_at=int(place.partition("-")[0]),
        claimed_at=now,
        trace=fresh.trace,
        stored=fresh,
    )


def unreadable(client_id: str, row: list[Any], now: int) -> ClaimedTask:
    """The same for one that can't be read: it can only end."""
    queue, entry, fence, task_id, packed = row
    place = entry.decode()
    stored = salvaged(packed) if task_id else salvaged_fresh(packed)
    return ClaimedTask(
        task_id=task_id.decode() if isinstance(stored, Record) else id_at(place, stored.unique),
        client_id=client_id,
        queue=queue.decode(),
        entry=place,
        fence=fence,
        attempt=1,
        failures=0,
        max_retry=0,
        timeout=1,
        method="",
        url="",
        headers={},
        body=None,
        due_at=now,
        claimed_at=now,
        stored=stored,
        unreadable=UNREADABLE,
    )


def sealed_payload(task: ClaimedTask) -> str | None:
    """What was stored in place of the task's payload, None where it is the payload itself."""
    stored = cast("Fresh | Record", task.stored)
    return stored.body if stored.has_body == SEALED else None


def kept_fields(task: ClaimedTask, *, payload: bool) -> tuple[int, bytes]:
    """The task's size, and what is to be stored of a fresh one at its first attempt's end: the fields from `run_at` on,
    without headers and body unless the ``payload`` is needed again. Empty for one that has a record."""
    fresh = cast("Fresh | Record", task.stored)
    if isinstance(fresh, Record):
        return fresh.size, b""
    rest = (fresh.headers, fresh.has_body, fresh.body) if payload else ("", 0, "")
    values = (
        fresh.run_at,
        fresh.expires,
        fresh.bound,
        fresh.max_retry,
        fresh.timeout,
        fresh.size,
        fresh.method,
        fresh.url,
        *rest,
        fresh.trace,
        fresh.labels,
    )
    return fresh.size, _encode(values)[1:]


def succeeded_record(task: ClaimedTask, attempt: bytes, kept: bytes) -> bytes:
    """The record of a fresh task whose first attempt succeeded, packed, as two texts: what is before the time at which
    it finished, which Redis's clock tells, and what is behind. ``kept`` is what `kept_fields` gave.
    """
    created = int(task.entry.partition("-")[0]).to_bytes(8, "big")
    behind = _encode((attempt.decode(), "", task.client_id, task.queue))[1:] + kept
    return b"%b%b%b%b" % (_BEFORE_CREATED, created, _BEFORE_FINISHED, as_text(behind))


def as_last(outcome: Outcome) -> Attempt:
    """An attempt as the record keeps it."""
    if outcome.verdict is Verdict.RETRY and outcome.retry_after:
        return msgspec.structs.replace(outcome.attempt, retry_after=outcome.retry_after)
    return outcome.attempt


def as_earlier(attempt: Attempt) -> Attempt:
    """The same as it is kept beside those that come after it: with less of the answer."""
    body = None if attempt.body is None else attempt.body[:_EARLIER_HEAD]
    return msgspec.structs.replace(attempt, body=body)


def detail(task_id: str, packed: bytes, *, running: bool) -> TaskDetail:
    """The task as operators see it, as far as it can be read."""
    try:
        return _detail(task_id, readable(decode(packed)), running=running)
    except ValueError:
        return _detail(task_id, _shown(salvaged(packed)), running=running)


def view(task_id: str, packed: bytes, *, running: bool) -> TaskView:
    """The task as the API tells it, as far as it can be read."""
    try:
        return _view(task_id, readable(decode(packed)), running=running)
    except ValueError:
        return _view(task_id, _shown(salvaged(packed)), running=running)


def _shown(record: Record) -> Record:
    """A record that could not be read, without what in its fields can't be."""
    try:
        _history(record)
    except ValueError:
        record = msgspec.structs.replace(record, last="", earlier="")
    state = record.state if record.state in _STATES else "q"
    return msgspec.structs.replace(record, state=state, reason=record.reason or UNREADABLE)


def _detail(task_id: str, record: Record, *, running: bool) -> TaskDetail:
    return TaskDetail(
        view=_view(task_id, record, running=running),
        method=record.method,
        url=record.url,
        due_at=record.due or None,
        expires_at=record.expires or None,
        bound=record.bound or None,
        timeout=record.timeout,
        size=record.size,
        history=_history(record),
        trace=record.trace,
    )


def _history(record: Record) -> list[Attempt]:
    told = [_decode_attempt(line) for line in record.earlier.split("\n") if line]
    last = _decode_attempt(record.last) if record.last else None
    if last is not None and told and _same(told[-1], last):
        told.pop()
    return told if last is None else [*told, last]


def _same(one: Attempt, other: Attempt) -> bool:
    return (one.started_at, one.duration_ms, one.status) == (other.started_at, other.duration_ms, other.status)


def _view(task_id: str, record: Record, *, running: bool) -> TaskView:
    if record.state not in _STATES:
        raise ValueError(UNREADABLE)
    state = State.RUNNING if running else _STATES[record.state]
    return TaskView(
        task_id=task_id,
        client_id=record.client,
        queue=record.queue,
        state=state,
        attempts=record.attempts + record.crashes + int(running),
        max_retry=record.max_retry,
        created_at=record.created,
        run_at=record.run_at or None,
        next_attempt_at=record.due if state in (State.SCHEDULED, State.RETRYING) else None,
        finished_at=record.finished or None,
        last_attempt=_decode_attempt(record.last) if record.last else None,
        reason=record.reason or None,
        labels=tuple(record.labels.split()),
    )
