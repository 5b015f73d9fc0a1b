"""Which tasks a command means: the flags of the filters, and how a page of tasks is shown."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.flags import flag, with_flags
from gateway.cli.output import table


def _filter(kind: Any, shown: str, *declared: str, **how: Any) -> Any:
    return Annotated[kind | None, typer.Option(*declared, help=shown, show_default=False, **how)]


Oldest = Annotated[bool, typer.Option("--oldest", help="the oldest first")]
Limit = Annotated[int | None, typer.Option(min=1, max=500, help="at most so many", show_default="50")]
Cursor = Annotated[str | None, typer.Option(help="go on where the last page ended", show_default=False)]

_STATES = ("queued", "scheduled", "running", "retrying", "succeeded", "dead", "cancelled")


def _completed(incomplete: str) -> list[str]:
    """What a shell offers for ``incomplete``: states, after those that are there already."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + state for state in _STATES if state.startswith(last)]


# The filters by the API's names.
_FLAGS = {
    "client_id": _filter(str, "only of this client", "--client", metavar="ID"),
    "queue": _filter(str, "only of this queue"),
    "state": _filter(str, f"{', '.join(_STATES)}; a,b: both", autocompletion=_completed),
    "task_id": _filter(str, "only this one", "--task", metavar="ID"),
    "host": _filter(str, "only to this host, with its port or without"),
    "status": _filter(int, "only where the last attempt had it", min=100, max=999),
    "label": _filter(str, "only with this label"),
    "error": _filter(str, "only with this in their reason or error, or this status"),
    "min_age": _filter(float, "at least so old", min=0, metavar="SECONDS"),
    "max_age": _filter(float, "at most so old", min=0, metavar="SECONDS"),
    "after": _filter(str, "only those that ended then or later, RFC 3339", metavar="TIME"),
    "before": _filter(str, "only those that ended earlier, RFC 3339", metavar="TIME"),
}

_COLUMNS = ("task", "client", "queue", "state", "attempts", "when", "last", "reason", "labels", "target")


def filtered(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of the filters but these; its first argument is the filters that were given."""
    flags = [flag(name, annotation) for name, annotation in _FLAGS.items() if name not in without]
    return lambda command: with_flags(command, flags)


def as_query(wanted: Mapping[str, Any]) -> dict[str, str]:
    """Filters as a query."""
    return {name: str(value) for name, value in wanted.items()}


def list_page(
    path: str, wanted: Mapping[str, Any], *, oldest: bool, limit: int | None, cursor: str | None, as_json: bool
) -> None:
    """Show a page of what is wanted as a table, and on standard error how to go on."""
    paging = {"order": "oldest" if oldest else None, "limit": limit, "cursor": cursor}
    given = {name: value for name, value in paging.items() if value is not None}
    with AdminApi() as api:
        answer = api.call("GET", path, query=as_query({**wanted, **given}))
    if as_json:
        typer.echo(answer.text)
        return
    show_tasks(answer.data["tasks"])
    if answer.data["next_cursor"]:
        typer.echo(f"more: --cursor {answer.data['next_cursor']}", err=True)


def show_tasks(tasks: Sequence[dict[str, Any]]) -> None:
    """The table of these tasks; ``when``: when each ended, is due, or was enqueued, as its state has it."""
    table(_COLUMNS, [_row(task) for task in tasks])


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    last = task["last_attempt"]
    return (
        task["task_id"],
        task["client_id"],
        task["queue"],
        task["state"],
        f"{task['attempts']} of {task['max_retry'] + 1}",
        task["finished_at"] or task["next_attempt_at"] or task["created_at"],
        "" if last is None else str(last["status"] or last["error"]),
        task["reason"] or "",
        ", ".join(task["labels"]),
        f"{task['method']} {task['url']}",
    )
