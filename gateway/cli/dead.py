"""`gateway dead …`: the dead letters of a running gateway's clients."""

from typing import Annotated

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, Misused, reported, table

app = typer.Typer(help="Show, replay and purge dead letters.", no_args_is_help=True, rich_markup_mode=None)

Client = Annotated[str, typer.Option("--client", metavar="ID", help="whose", show_default=False)]
TaskId = Annotated[str | None, typer.Option("--task", metavar="ID", help="only this one", show_default=False)]
Error = Annotated[
    str | None, typer.Option(help="only those with this in their reason or error, or this status", show_default=False)
]
After = Annotated[
    str | None, typer.Option(metavar="TIME", help="only those that died then or later, RFC 3339", show_default=False)
]
Before = Annotated[
    str | None, typer.Option(metavar="TIME", help="only those that died earlier, RFC 3339", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="all of the client's, where nothing else says which")]

_COLUMNS = ("task", "queue", "died", "attempts", "status", "reason", "target")


def _filters(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


@app.command("list")
@reported
def list_dead(
    client: Client,
    *,
    error: Error = None,
    after: After = None,
    before: Before = None,
    limit: Annotated[int | None, typer.Option(min=1, max=500, help="at most so many", show_default="50")] = None,
    cursor: Annotated[str | None, typer.Option(help="go on where the last page ended", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first."""
    query = _filters(client_id=client, error=error, after=after, before=before, cursor=cursor)
    if limit is not None:
        query["limit"] = str(limit)
    with AdminApi() as api:
        answer = api.call("GET", "/admin/dead", query=query)
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for task in answer.data["tasks"]:
        status = (task["last_attempt"] or {}).get("status")
        target = f"{task['method']} {task['url']}"
        counts = (str(task["attempts"]), "" if status is None else str(status))
        rows.append((task["task_id"], task["queue"], task["finished_at"], *counts, task["reason"] or "", target))
    table(_COLUMNS, rows)
    if answer.data["next_cursor"]:
        typer.echo(f"more: --cursor {answer.data['next_cursor']}", err=True)


@app.command("replay")
@reported
def replay(
    client: Client,
    *,
    task_id: TaskId = None,
    error: Error = None,
    after: After = None,
    before: Before = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Queue dead letters again, oldest first, as if they had just been enqueued."""
    query = _chosen(client, everything=everything, task_id=task_id, error=error, after=after, before=before)
    _do("POST", "/admin/dead/replay", query, "queued again", as_json=as_json)


@app.command("purge")
@reported
def purge(
    client: Client,
    *,
    task_id: TaskId = None,
    error: Error = None,
    after: After = None,
    before: Before = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Remove dead letters for good."""
    query = _chosen(client, everything=everything, task_id=task_id, error=error, after=after, before=before)
    _do("DELETE", "/admin/dead", query, "removed", as_json=as_json)


def _chosen(client: str, *, everything: bool, **given: str | None) -> dict[str, str]:
    filters = _filters(**given)
    if not filters and not everything:
        raise Misused("say which: --task, --error, --after, --before, or --all")
    return {"client_id": client, **filters}


def _do(method: str, path: str, query: dict[str, str], what: str, *, as_json: bool) -> None:
    with AdminApi() as api:
        answer = api.call(method, path, query=query)
    typer.echo(answer.text if as_json else f"{answer.data['tasks']} {what}")
