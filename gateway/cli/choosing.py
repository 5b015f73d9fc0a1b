"""Which tasks a command means: the flags of the filters, and how a page of tasks is shown."""

from typing import Annotated, Any

import typer

from gateway.cli.output import table

Client = Annotated[str | None, typer.Option("--client", metavar="ID", help="only of this client", show_default=False)]
Queue = Annotated[str | None, typer.Option(help="only of this queue", show_default=False)]
State = Annotated[
    str | None,
    typer.Option(
        help="queued, scheduled, running, retrying, succeeded, dead, cancelled; a,b: both", show_default=False
    ),
]
Task = Annotated[str | None, typer.Option("--task", metavar="ID", help="only this one", show_default=False)]
Host = Annotated[str | None, typer.Option(help="only to this host, with its port or without", show_default=False)]
Status = Annotated[
    int | None, typer.Option(min=100, max=999, help="only where the last attempt had it", show_default=False)
]
Label = Annotated[str | None, typer.Option(help="only with this label", show_default=False)]
Error = Annotated[
    str | None, typer.Option(help="only with this in their reason or error, or this status", show_default=False)
]
MinAge = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="at least so old", show_default=False)]
MaxAge = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="at most so old", show_default=False)]
After = Annotated[
    str | None, typer.Option(metavar="TIME", help="only those that ended then or later, RFC 3339", show_default=False)
]
Before = Annotated[
    str | None, typer.Option(metavar="TIME", help="only those that ended earlier, RFC 3339", show_default=False)
]
Oldest = Annotated[bool, typer.Option("--oldest", help="the oldest first")]
Limit = Annotated[int | None, typer.Option(min=1, max=500, help="at most so many", show_default="50")]
Cursor = Annotated[str | None, typer.Option(help="go on where the last page ended", show_default=False)]

_COLUMNS = ("task", "client", "queue", "state", "attempts", "since", "last", "reason", "labels", "target")


def given(**values: Any) -> dict[str, Any]:
    """The filters that were given."""
    return {name: value for name, value in values.items() if value is not None}


def as_query(values: dict[str, Any], *, oldest: bool, limit: int | None, cursor: str | None) -> dict[str, str]:
    """The same as a query, with the paging."""
    paging = given(order="oldest" if oldest else None, limit=limit, cursor=cursor)
    return {name: str(value) for name, value in (values | paging).items()}


def show_page(data: dict[str, Any]) -> None:
    """A page as a table, and on standard error how to go on."""
    table(_COLUMNS, [_row(task) for task in data["tasks"]])
    if data["next_cursor"]:
        typer.echo(f"more: --cursor {data['next_cursor']}", err=True)


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
