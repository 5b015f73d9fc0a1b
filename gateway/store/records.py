"""The stored form of a task, as lib/record.lua lays it out: one packed array, version first."""

from itertools import count
from os import urandom
from time import time
from typing import Any

import msgspec
import orjson

from gateway.models import Attempt, ClaimedTask, Outcome, State, TaskDetail, TaskSpec, TaskView, Verdict

_EARLIER_HEAD = 512  # characters of an answer that others came after


class Record(msgspec.Struct, array_like=True, frozen=True):
    """A task's record. Times are Unix ms by Redis's clock, 0 for none; `headers` and `last` are JSON, `labels` apart by
    spaces; `earlier`, there only once an attempt has failed, is a line of JSON for each that did. Older records lack
    the last three."""

    version: int
    state: str
    entry: str
    due: int
    created: int
    attempts: int
    crashes: int
    fence: int
    finished: int
    last: str
    reason: str
    client: str
    queue: str
    run_at: int
    expires: int
    bound: int
    max_retry: int
    timeout: float
    size: int
    method: str
    url: str
    headers: str
    has_body: int
    body: str
    trace: str = ""
    labels: str = ""
    earlier: str = ""


_decode = msgspec.msgpack.Decoder(Record).decode
_encoder = msgspec.msgpack.Encoder()
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

_process = urandom(5).hex()
_sequence = count()


def new_task_id() -> str:
    """A unique, roughly time-ordered id: 12 hex digits of ms, 10 of this process start, 6 of a counter."""
    return f"{int(time() * 1000):012x}{_process}{next(_sequence) & 0xFFFFFF:06x}"


def fixed_fields(client_id: str, spec: TaskSpec) -> tuple[bytes, int]:
    """The fields admit appends to the ones it makes, packed without an array header, and the size they count as."""
    headers = orjson.dumps(spec.headers).decode() if spec.headers else ""
    body = spec.body.decode() if spec.body is not None else ""
    labels = " ".join(spec.labels)
    size = _OVERHEAD + len(spec.url) + len(headers) + len(spec.body or b"") + len(spec.trace) + len(labels)
    values: tuple[Any, ...] = (
        client_id,
        spec.queue,
        spec.run_at,
        spec.expires_at,
        spec.bound,
        spec.max_retry,
        spec.timeout,
        size,
        spec.method,
        spec.url,
        headers,
        int(spec.body is not None),
        body,
        spec.trace,
        labels,
    )
    return _encoder.encode(values)[1:], size  # 15 fields: the array header is one byte, as it is not for more


def claimed(task_id: bytes, entry: bytes, fence: int, packed: bytes, now: int) -> ClaimedTask:
    """The claim as the dispatcher sees it."""
    record = _decode(packed)
    return ClaimedTask(
        task_id=task_id.decode(),
        client_id=record.client,
        queue=record.queue,
        entry=entry.decode(),
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
    )


def encode_attempt(outcome: Outcome) -> bytes:
    """An attempt as the record keeps it."""
    attempt = outcome.attempt
    if outcome.verdict is Verdict.RETRY and outcome.retry_after:
        attempt = msgspec.structs.replace(attempt, retry_after=outcome.retry_after)
    return msgspec.json.encode(attempt)


def encode_failure(attempt: Attempt) -> bytes:
    """The same as it is kept beside those that come after it: with less of the answer."""
    body = None if attempt.body is None else attempt.body[:_EARLIER_HEAD]
    return msgspec.json.encode(msgspec.structs.replace(attempt, body=body))


def detail(task_id: str, packed: bytes, *, running: bool) -> TaskDetail:
    """The task as operators see it."""
    record = _decode(packed)
    return TaskDetail(
        view=view(task_id, packed, running=running),
        method=record.method,
        url=record.url,
        due_at=record.due or None,
        expires_at=record.expires or None,
        bound=record.bound or None,
        timeout=record.timeout,
        size=record.size,
        history=_history(record),
    )


def _history(record: Record) -> list[Attempt]:
    told = [_decode_attempt(line) for line in record.earlier.split("\n") if line]
    last = _decode_attempt(record.last) if record.last else None
    if last is not None and told and _same(told[-1], last):
        told.pop()
    return told if last is None else [*told, last]


def _same(one: Attempt, other: Attempt) -> bool:
    return (one.started_at, one.duration_ms, one.status) == (other.started_at, other.duration_ms, other.status)


def view(task_id: str, packed: bytes, *, running: bool) -> TaskView:
    """The task as the API tells it."""
    record = _decode(packed)
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
