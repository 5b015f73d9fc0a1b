"""What of a task is sealed before it is stored, and opened where it is needed: URL, headers and body for its call, its
targets' answers for whoever may look at it. Everything else is stored in the clear, with the URL's origin in place of
the URL: scripts, filters and operators go by it. How bytes are sealed is `gateway.store.sealing`'s affair."""

import re
from typing import Final, TypeVar

import msgspec

from gateway.models import Attempt, ClaimedTask, Task, TaskDetail, TaskView, Unshown
from gateway.store.records import Payload, sealed_payload
from gateway.store.sealing import Sealer, Unreadable
from gateway.store.stored import SEALED

_UNIQUE: Final = 16  # characters of an id's end that are known before the task is stored
_MARK: Final = "\x01"  # before an answer that is sealed; what a target answers is not stored with it in the clear
_ORIGIN: Final = re.compile(r"[^:]*://[^/?#]*")

Seen = TypeVar("Seen", TaskView, TaskDetail)


class _Plain(Unshown, array_like=True, frozen=True):
    url: str
    headers: dict[str, str]
    body: bytes | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Plain).decode


class Payloads:
    """Seals and opens, under the keys of the settings; passes everything on as it is where there are none."""

    def __init__(self, keys: tuple[tuple[str, bytes], ...]) -> None:
        self._sealer = Sealer(keys)
        self.on = self._sealer.on

    def packed(self, client_id: str, unique: str, task: Task) -> Payload | None:
        """What is stored of the task in place of its URL, headers and body; None: these themselves."""
        if not self.on:
            return None
        plain = _encode(_Plain(task.url, task.headers, task.body))
        origin = _ORIGIN.match(task.url)
        shown = f"{origin[0] if origin else ''}/…"
        return shown, "", SEALED, self._sealer.seal(client_id, unique, plain, "task")

    def ready(self, task: ClaimedTask) -> ClaimedTask:
        """The task as it is to be called; ``unreadable`` says why it can't be."""
        sealed = sealed_payload(task)
        if sealed is None:
            return task
        try:
            raw = self._sealer.open(task.client_id, task.task_id[-_UNIQUE:], sealed, "task")
        except Unreadable as problem:
            return msgspec.structs.replace(task, body=None, unreadable=problem.reason)
        plain = _decode(raw)
        return msgspec.structs.replace(task, url=plain.url, headers=plain.headers, body=plain.body)

    def closed(self, task: ClaimedTask, attempt: Attempt) -> Attempt:
        """The attempt as it is stored: what the target answered may be as secret as what it was sent."""
        if not attempt.body:
            return attempt
        if not self.on:
            if not attempt.body.startswith(_MARK):
                return attempt
            return msgspec.structs.replace(attempt, body=f"\ufffd{attempt.body.removeprefix(_MARK)}")
        unique = task.task_id[-_UNIQUE:]
        sealed = self._sealer.seal(task.client_id, unique, attempt.body.encode(), "answer")
        return msgspec.structs.replace(attempt, body=_MARK + sealed)

    def opened(self, seen: Seen) -> Seen:
        """The task with its targets' answers; of one that can't be opened the reason in its place."""
        view = seen.view if isinstance(seen, TaskDetail) else seen
        last = view.last_attempt
        if last is not None:
            view = msgspec.structs.replace(view, last_attempt=self._opened(view, last))
        if isinstance(seen, TaskDetail):
            history = [self._opened(view, attempt) for attempt in seen.history]
            return msgspec.structs.replace(seen, view=view, history=history)
        return view

    def _opened(self, view: TaskView, attempt: Attempt) -> Attempt:
        if attempt.body is None or not attempt.body.startswith(_MARK):
            return attempt
        try:
            sealed = attempt.body.removeprefix(_MARK)
            body = self._sealer.open(view.client_id, view.task_id[-_UNIQUE:], sealed, "answer").decode()
        except Unreadable as problem:
            body = problem.reason
        return msgspec.structs.replace(attempt, body=body)

    def fingerprint(self, plain: bytes) -> str:
        """See `Sealer.fingerprint`."""
        return self._sealer.fingerprint(plain)

    def same(self, stored: str, plain: bytes) -> bool:
        """See `Sealer.same`."""
        return self._sealer.same(stored, plain)
