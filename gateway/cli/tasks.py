"""`gateway tasks …`: one task of a running gateway."""

from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, reported, table

app = typer.Typer(help="Show, explain and cancel a task.", no_args_is_help=True, rich_markup_mode=None)

TaskId = Annotated[str, typer.Argument(metavar="TASK_ID", help="which", show_default=False)]
Client = Annotated[str, typer.Option("--client", metavar="ID", help="whose", show_default=False)]

_COLUMNS = ("task", "queue", "state", "attempts", "next", "last", "reason")


@app.command("get")
@reported
def get_task(task_id: TaskId, client: Client, as_json: Json = False) -> None:
    """Show how a task stands."""
    _show(_call("GET", task_id, client), as_json=as_json)


@app.command("cancel")
@reported
def cancel_task(task_id: TaskId, client: Client, as_json: Json = False) -> None:
    """Cancel a task that has not started."""
    _show(_call("DELETE", task_id, client), as_json=as_json)


@app.command("explain")
@reported
def explain_task(task_id: TaskId, client: Client, as_json: Json = False) -> None:
    """Say why a task is where it is."""
    answer = _call("GET", f"{task_id}/explain", client)
    if as_json:
        typer.echo(answer.text)
        return
    told = answer.data
    typer.echo(f"{told['state']}: {told['message']}")
    for label, name in (("since", "since"), ("until", "until")):
        if told[name]:
            typer.echo(f"{label} {told[name]}")
    if told["blocking"]:
        typer.echo("in flight: " + ", ".join(told["blocking"]))


def _call(method: str, path: str, client: str) -> Any:
    with AdminApi() as api:
        return api.call(method, f"/admin/tasks/{path}", query={"client_id": client})


def _show(answer: Any, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
        return
    task = answer.data
    last = task["last_attempt"]
    cells = (
        task["task_id"],
        task["queue"],
        task["state"],
        f"{task['attempts']} of {task['max_retry'] + 1}",
        task["next_attempt_at"] or task["run_at"] or "",
        "" if last is None else str(last["status"] or last["error"]),
        task["reason"] or "",
    )
    table(_COLUMNS, [cells])
