"""The stored forms of a task, as lib/task.lua lays them out, and what is made of one that can't be read: changed by
hand, or written by a version to come. It is a task all the same, so something well-formed stands for it."""

from hashlib import sha1
from typing import Final, TypeVar

import msgspec

from gateway.models import Unshown

VERSION: Final = 1
SEALED: Final = 2  # in the place of `has_body`: `body` holds URL, headers and body, see payload.py
UNREAD: Final = 3  # the same: `body` holds what was stored, each byte as a character (Latin-1)
UNREADABLE: Final = "the stored task can't be read: it was changed by hand, or by a newer version of the gateway"

_UNIQUE: Final = slice(2, 18)  # of a fresh task's bytes


class Record(Unshown, array_like=True, frozen=True):
    """A task's record. Times are Unix ms by Redis's clock, 0 for none; `headers` and `last` are JSON, `labels` apart by
    spaces; `earlier`, there only once an attempt has failed, is a line of JSON for each that did."""

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


class Fresh(Unshown, array_like=True, frozen=True):
    """The value of a stream entry that is a task: the end of its id, and a record's fields from `run_at` on."""

    unique: str
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
    trace: str
    labels: str


Form = TypeVar("Form", Record, Fresh)

decode: Final = msgspec.msgpack.Decoder(Record).decode
decode_fresh: Final = msgspec.msgpack.Decoder(Fresh).decode
_decode_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_NO_RECORD: Final = Record(
    VERSION, "q", "", 0, 0, 0, 0, 0, 0, "", UNREADABLE, "", "", 0, 0, 0, 0, 0.0, 0, "", "", "", 0, ""
)
_NO_TASK: Final = Fresh("", 0, 0, 0, 0, 0.0, 0, "", "", "", UNREAD, "", "", "")


def readable(record: Record) -> Record:
    """The record, with the task that it holds unread where this version can read it by now; raises ValueError."""
    if record.version != VERSION:
        raise ValueError(UNREADABLE)
    if record.has_body != UNREAD:
        return record
    held = record.body.encode("latin-1")
    try:
        task: Fresh | Record = decode_fresh(held)
    except ValueError:
        task = readable(decode(held))
    fields = Fresh.__struct_fields__[1:]
    return msgspec.structs.replace(record, **{name: getattr(task, name) for name in fields})


def salvaged(packed: bytes) -> Record:
    """What stands for a record that can't be read: those of its fields that can be, one by one."""
    return _filled(_NO_RECORD, packed)


def salvaged_fresh(packed: bytes) -> Fresh:
    """The same for a fresh task, which is kept as it is."""
    unique = packed[_UNIQUE]
    if len(unique) < _UNIQUE.stop - _UNIQUE.start or not unique.isalnum():  # lib/task.lua's `unique_in` does the same
        unique = sha1(packed, usedforsecurity=False).hexdigest()[: _UNIQUE.stop - _UNIQUE.start].encode()
    size = _filled(_NO_TASK, packed).size
    return msgspec.structs.replace(
        _NO_TASK, unique=unique.decode(), size=size or len(packed), body=packed.decode("latin-1")
    )


def _filled(empty: Form, packed: bytes) -> Form:
    """The fields that can be read, in place of the empty ones."""
    try:
        parts = _decode_parts(packed)
    except ValueError:
        return empty
    found = {}
    for name, part in zip(empty.__struct_fields__, parts, strict=False):
        value = getattr(empty, name)
        try:
            found[name] = msgspec.msgpack.decode(part, type=type(value))
        except ValueError:
            continue
    return msgspec.structs.replace(empty, **found)
