"""Which tasks somebody means: a value without I/O, by which listings and jobs choose."""

from urllib.parse import urlsplit

import msgspec

from gateway.models import State, TaskDetail, TaskView


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which tasks: all conditions that are given hold.

    ``states`` empty: any. ``host``: of the URL, with a port or without. ``status``: of the last attempt. ``error`` is
    part of the reason or of the last attempt's error, or its status. ``after`` (included) and ``before`` are when the
    task ended, ``created_after`` and ``created_before`` when it was enqueued; by ``untouched_since`` (excluded) it had
    last changed its state. All are in Unix ms.
    """

    client_id: str | None = None
    queue: str | None = None
    states: frozenset[State] = frozenset()
    task_id: str | None = None
    host: str | None = None
    status: int | None = None
    label: str | None = None
    error: str | None = None
    after: int | None = None
    before: int | None = None
    created_after: int | None = None
    created_before: int | None = None
    untouched_since: int | None = None

    def matches(self, task: TaskDetail) -> bool:
        """Whether the task is one of these."""
        view = task.view
        return (
            (self.client_id is None or view.client_id == self.client_id)
            and (self.queue is None or view.queue == self.queue)
            and (not self.states or view.state in self.states)
            and (self.task_id is None or view.task_id == self.task_id)
            and (self.label is None or self.label in view.labels)
            and (self.host is None or self.host.lower() in hosts(task.url))
            and self._answered(view)
            and _between(view.finished_at, self.after, self.before)
            and _between(view.created_at, self.created_after, self.created_before)
            and _between(touched(view), None, self.untouched_since)
        )

    def _answered(self, view: TaskView) -> bool:
        last = view.last_attempt
        status = None if last is None else last.status
        if self.status is not None and status != self.status:
            return False
        told = f"{view.reason or ''}\n{last.error or '' if last else ''}".lower()
        return self.error is None or self.error.lower() in told or self.error == str(status)


def hosts(url: str) -> tuple[str, ...]:
    """How a URL's host may be named: with its port and without.

    >>> hosts("https://Api.example.com:8443/x")
    ('api.example.com:8443', 'api.example.com')
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # of a task that was changed by hand
        return ()
    return (parts.netloc.lower(), parts.hostname or "")


def touched(view: TaskView) -> int:
    """When the task last changed its state as far as it tells, Unix ms."""
    last = view.last_attempt
    return max(view.created_at, view.finished_at or 0, 0 if last is None else last.started_at)


def _between(moment: int | None, after: int | None, before: int | None) -> bool:
    moment = moment or 0
    return (after is None or moment >= after) and (before is None or moment < before)
