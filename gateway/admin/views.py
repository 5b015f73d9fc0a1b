"""Tasks as operators see them. Whoever may look is not thereby given what the tasks carry: of the URL no query, and
of an answer nothing that looks like a credential. The task's own client sees its answers as they came."""

from typing import Any

from gateway.middleware.answers import task_body
from gateway.models import DeadLetter, TaskView
from gateway.redaction import scrub, shown_url


def operators_body(view: TaskView) -> dict[str, Any]:
    """A task."""
    body = task_body(view)
    last = body["last_attempt"]
    if last is not None and last["body"] is not None:
        last["body"] = scrub(last["body"])
    return body


def letter_body(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter: a task, and what it was to call."""
    return {**operators_body(letter.view), "method": letter.method, "url": shown_url(letter.url)}
