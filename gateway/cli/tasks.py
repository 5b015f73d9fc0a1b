"""`gateway tasks …`: the tasks of a running gateway."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.admin_api import AdminApi, Answer
from gateway.cli.choosing import Cursor, Limit, Oldest, filtered, list_page, show_tasks
from gateway.cli.output import CallFailed, Json, reported, table

app = typer.Typer(
    help="Find, show, explain, cancel, run and replay tasks.", no_args_is_help=True, rich_markup_mode=None
)

TaskId = Annotated[str, typer.Argument(metavar="TASK_ID", help="which", show_default=False)]
Whose = Annotated[
    str | None, typer.Option("--client", metavar="ID", help="whose; else it is looked for", show_default=False)
]

_ATTEMPTS = ("started", "ms", "status", "error", "answer")
_ANSWER_SHOWN = 120  # characters


@app.command("list")
@reported
@filtered()
def list_tasks(
    wanted: dict[str, Any],
    *,
    oldest: Oldest = False,
    limit: Limit = None,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List tasks of all clients, newest first within each."""
    list_page("/admin/tasks", wanted, oldest=oldest, limit=limit, cursor=cursor, as_json=as_json)


@app.command("get")
@reported
def get_task(task_id: TaskId, client: Whose = None, as_json: Json = False) -> None:
    """Show how a task stands, and each of its attempts."""
    answer = _call("GET", task_id, client)
    _show(answer, as_json=as_json)
    if not as_json and answer.data["trace_id"]:
        typer.echo(f"trace {answer.data['trace_id']}")
    if not as_json and answer.data["history"]:
        typer.echo()
        table(_ATTEMPTS, [_attempt(attempt) for attempt in answer.data["history"]])


@app.command("cancel")
@reported
def cancel_task(task_id: TaskId, client: Whose = None, as_json: Json = False) -> None:
    """Cancel a task that has not started."""
    _show(_call("DELETE", task_id, client), as_json=as_json)


@app.command("run")
@reported
def run_task(task_id: TaskId, client: Whose = None, as_json: Json = False) -> None:
    """Have a scheduled or retrying task start now."""
    _show(_call("POST", task_id, client, "/run"), as_json=as_json)


@app.command("replay")
@reported
def replay_task(task_id: TaskId, client: Whose = None, as_json: Json = False) -> None:
    """Queue a dead task again, as if it had just been enqueued."""
    _show(_call("POST", task_id, client, "/replay"), as_json=as_json)


@app.command("explain")
@reported
def explain_task(task_id: TaskId, client: Whose = None, as_json: Json = False) -> None:
    """Say why a task is where it is."""
    answer = _call("GET", task_id, client, "/explain")
    if as_json:
        typer.echo(answer.text)
        return
    told = answer.data
    typer.echo(f"{told['state']}: {told['message']}")
    for name in ("since", "until"):
        if told[name]:
            typer.echo(f"{name} {told[name]}")
    if told["blocking"]:
        typer.echo("in flight: " + ", ".join(told["blocking"]))


def _call(method: str, task_id: str, client: str | None, rest: str = "") -> Answer:
    with AdminApi() as api:
        whose = client or _owner(api, task_id)
        return api.call(method, f"/admin/tasks/{quote(task_id, safe='')}{rest}", query={"client_id": whose})


def _owner(api: AdminApi, task_id: str) -> str:
    query = {"task_id": task_id}
    while True:
        page = api.call("GET", "/admin/tasks", query=query).data
        if page["tasks"]:
            return str(page["tasks"][0]["client_id"])
        if page["next_cursor"] is None:
            msg = f"no client has a task {task_id}"
            raise CallFailed(msg, status=404)
        query["cursor"] = page["next_cursor"]


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
    else:
        show_tasks([answer.data])


def _attempt(attempt: dict[str, Any]) -> tuple[str, ...]:
    body = " ".join((attempt["body"] or "").split())
    shown = body if len(body) <= _ANSWER_SHOWN else body[:_ANSWER_SHOWN] + "…"
    status = "" if attempt["status"] is None else str(attempt["status"])
    return (attempt["started_at"] or "", f"{attempt['duration_ms']:g}", status, attempt["error"] or "", shown)
