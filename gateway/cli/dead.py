"""`gateway dead …`: the dead letters of a running gateway's clients."""

from typing import Annotated, Any

import typer

from gateway.cli import jobs
from gateway.cli.admin_api import AdminApi
from gateway.cli.choosing import Cursor, Limit, Oldest, as_query, filtered, list_page
from gateway.cli.output import Json, Misused, reported

app = typer.Typer(help="Show, replay and purge dead letters.", no_args_is_help=True, rich_markup_mode=None)

All = Annotated[bool, typer.Option("--all", help="all of them, where nothing else says which")]

# They are dead, and told apart by when they ended.
_chosen = filtered(without={"state", "min_age", "max_age"})


@app.command("list")
@reported
@_chosen
def list_dead(
    wanted: dict[str, Any],
    *,
    oldest: Oldest = False,
    limit: Limit = None,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List dead letters, of one client or all, newest first within each."""
    list_page("/admin/dead", wanted, oldest=oldest, limit=limit, cursor=cursor, as_json=as_json)


@app.command("replay")
@reported
@_chosen
def replay(wanted: dict[str, Any], *, everything: All = False, as_json: Json = False) -> None:
    """Queue dead letters again, oldest first, as if they had just been enqueued."""
    _do("POST", "/admin/dead/replay", wanted, "queued again", everything=everything, as_json=as_json)


@app.command("purge")
@reported
@_chosen
def purge(wanted: dict[str, Any], *, everything: All = False, as_json: Json = False) -> None:
    """Remove dead letters for good."""
    _do("DELETE", "/admin/dead", wanted, "removed", everything=everything, as_json=as_json)


def _do(method: str, path: str, wanted: dict[str, Any], what: str, *, everything: bool, as_json: bool) -> None:
    if not everything and not set(wanted) - {"client_id"}:
        raise Misused("say which: --task, --error, --queue, --host, --status, --label, --after, --before, or --all")
    with AdminApi() as api:
        answer = api.call(method, path, query=as_query(wanted))
        if answer.status == 202:  # of all clients a job does it
            jobs.finish(jobs.follow(api, answer), as_json=as_json)
            return
    typer.echo(answer.text if as_json else f"{answer.data['tasks']} {what}")
