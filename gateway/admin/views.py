"""Tasks as operators see them. Whoever may look is not thereby given what the tasks carry: of the URL no query, and
of an answer nothing that looks like a credential. The task's own client sees its answers as they came."""

from typing import Any

from gateway.middleware.answers import attempt_body, rfc3339, task_body
from gateway.models import Attempt, TaskDetail
from gateway.redaction import scrub, shown_url
from gateway.tracing.context import trace_id


def operators_body(task: TaskDetail) -> dict[str, Any]:
    """A task, and what it is to call."""
    last = task.view.last_attempt
    return {
        **task_body(task.view),
        "last_attempt": None if last is None else _attempt(last),
        "method": task.method,
        "url": shown_url(task.url),
        "labels": list(task.view.labels),
    }


def detailed_body(task: TaskDetail) -> dict[str, Any]:
    """The same with its attempts and its own bounds."""
    return {
        **operators_body(task),
        "expires_at": rfc3339(task.expires_at),
        "timeout": task.timeout,
        "size": task.size,
        "max_concurrent": task.bound,
        "trace_id": trace_id(task.trace) or None,
        "history": [_attempt(attempt) for attempt in task.history],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    body = attempt_body(attempt)
    return body if body["body"] is None else {**body, "body": scrub(body["body"])}
