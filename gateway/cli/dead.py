"""`gateway dead …`: the dead letters of a running gateway's clients."""

from typing import Annotated, Any

import typer

from gateway.cli import jobs
from gateway.cli.admin_api import AdminApi
from gateway.cli.choosing import (
    After,
    Before,
    Client,
    Cursor,
    Error,
    Host,
    Label,
    Limit,
    Oldest,
    Queue,
    Status,
    Task,
    as_query,
    given,
    show_page,
)
from gateway.cli.output import Json, Misused, reported

app = typer.Typer(help="Show, replay and purge dead letters.", no_args_is_help=True, rich_markup_mode=None)

All = Annotated[bool, typer.Option("--all", help="all of them, where nothing else says which")]


@app.command("list")
@reported
def list_dead(
    *,
    client: Client = None,
    queue: Queue = None,
    task: Task = None,
    host: Host = None,
    status: Status = None,
    label: Label = None,
    error: Error = None,
    after: After = None,
    before: Before = None,
    oldest: Oldest = False,
    limit: Limit = None,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List dead letters, of one client or all, newest first within each."""
    wanted = _wanted(client, queue, task, host, status, label, error, after, before)
    with AdminApi() as api:
        answer = api.call("GET", "/admin/dead", query=as_query(wanted, oldest=oldest, limit=limit, cursor=cursor))
    if as_json:
        typer.echo(answer.text)
    else:
        show_page(answer.data)


@app.command("replay")
@reported
def replay(
    *,
    client: Client = None,
    queue: Queue = None,
    task: Task = None,
    host: Host = None,
    status: Status = None,
    label: Label = None,
    error: Error = None,
    after: After = None,
    before: Before = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Queue dead letters again, oldest first, as if they had just been enqueued."""
    wanted = _wanted(client, queue, task, host, status, label, error, after, before)
    _do("POST", "/admin/dead/replay", wanted, "queued again", everything=everything, as_json=as_json)


@app.command("purge")
@reported
def purge(
    *,
    client: Client = None,
    queue: Queue = None,
    task: Task = None,
    host: Host = None,
    status: Status = None,
    label: Label = None,
    error: Error = None,
    after: After = None,
    before: Before = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Remove dead letters for good."""
    wanted = _wanted(client, queue, task, host, status, label, error, after, before)
    _do("DELETE", "/admin/dead", wanted, "removed", everything=everything, as_json=as_json)


_NAMES = ("client_id", "queue", "task_id", "host", "status", "label", "error", "after", "before")


def _wanted(*values: Any) -> dict[str, Any]:
    return given(**dict(zip(_NAMES, values, strict=True)))


def _do(method: str, path: str, wanted: dict[str, Any], what: str, *, everything: bool, as_json: bool) -> None:
    if not everything and not set(wanted) - {"client_id"}:
        raise Misused("say which: --task, --error, --queue, --host, --status, --label, --after, --before, or --all")
    with AdminApi() as api:
        answer = api.call(method, path, query=as_query(wanted, oldest=False, limit=None, cursor=None))
        if answer.status == 202:  # of all clients a job does it
            jobs.finish(jobs.follow(api, answer), as_json=as_json)
            return
    typer.echo(answer.text if as_json else f"{answer.data['tasks']} {what}")
