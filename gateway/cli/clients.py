"""`gateway clients …`: the clients of a running gateway, through its operators' API."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.admin_api import AdminApi
from gateway.cli.importing import Entry, read
from gateway.cli.output import FAILED, CallFailed, Json, Misused, complain, done, reported, table

app = typer.Typer(help="Show and change the clients of a running gateway.", no_args_is_help=True, rich_markup_mode=None)

ClientId = Annotated[str, typer.Argument(metavar="ID", help="client id")]
Queue = Annotated[str | None, typer.Option(help="only this queue; all of them unless given", show_default=False)]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", show_default=False)]

_COLUMNS = ("client", "tier", "max_concurrent", "requests_per_min", "source", "queues", "hosts", "enabled", "updated")
_FIGURES = ("client", "paused", "admitted", "in_flight", "queued", "oldest", "scheduled", "dead")
# Refusals that every further line would meet too.
_HOPELESS = {None, 401, 403, 404, 405}


@app.command("list")
@reported
def list_clients(
    tier: Annotated[str | None, typer.Option(help="only clients of this tier")] = None,
    enabled: Enabled = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many")] = None,
    cursor: Annotated[str | None, typer.Option(help="go on where the last page ended")] = None,
    as_json: Json = False,
) -> None:
    """List clients, sorted by id."""
    given = {
        "tier": tier,
        "enabled": None if enabled is None else str(enabled).lower(),
        "limit": None if limit is None else str(limit),
        "cursor": cursor,
    }
    with AdminApi() as api:
        answer = api.call(
            "GET", "/admin/clients", query={name: value for name, value in given.items() if value is not None}
        )
    if as_json:
        typer.echo(answer.text)
        return
    table(_COLUMNS, [_row(client) for client in answer.data["clients"]])
    shown, count = len(answer.data["clients"]), answer.data["count"]
    typer.echo(f"{shown} of {count} clients" if shown != count else f"{count} clients", err=True)
    if answer.data.get("next_cursor"):
        typer.echo(f"more: --cursor {answer.data['next_cursor']}", err=True)


@app.command("get")
@reported
def get_client(client_id: ClientId, as_json: Json = False) -> None:
    """Show one client."""
    with AdminApi() as api:
        _show(api.call("GET", "/admin/clients/get", query={"client_id": client_id}), as_json=as_json)


@app.command("set")
@reported
def set_client(
    client_id: ClientId,
    *,
    tier: Annotated[str | None, typer.Option(help="its tier")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="its own limit: calls in flight")] = None,
    requests_per_min: Annotated[int | None, typer.Option(help="its own limit: requests a minute")] = None,
    enabled: Enabled = None,
    queues: Annotated[str | None, typer.Option(metavar="a,b", help="the queues it may use; empty: all")] = None,
    hosts: Annotated[str | None, typer.Option(metavar="a,b", help="the hosts its tasks may call; empty: all")] = None,
    tier_limits: Annotated[bool, typer.Option("--tier-limits", help="drop its own limits, go by the tier's")] = False,
    as_json: Json = False,
) -> None:
    """Create a client, or change what is given of it."""
    body: dict[str, Any] = {"client_id": client_id}
    if tier is not None:
        body["tier"] = tier
    if (max_concurrent is None) != (requests_per_min is None):
        raise Misused("--max-concurrent and --requests-per-min are given together")
    if tier_limits and max_concurrent is not None:
        raise Misused("--tier-limits drops the client's own limits: leave out --max-concurrent and --requests-per-min")
    if tier_limits:
        body["rate_limit"] = None
    elif max_concurrent is not None:
        body["rate_limit"] = {"max_concurrent": max_concurrent, "requests_per_min": requests_per_min}
    if enabled is not None:
        body["enabled"] = enabled
    if queues is not None:
        body["allowed_queues"] = [queue.strip() for queue in queues.split(",") if queue.strip()] or None
    if hosts is not None:
        body["allowed_hosts"] = [host.strip() for host in hosts.split(",") if host.strip()] or None
    with AdminApi() as api:
        _show(api.call("PUT", "/admin/clients/set", body=body), as_json=as_json)


@app.command("delete")
@reported
def delete_client(
    client_id: ClientId,
    cancel_tasks: Annotated[bool, typer.Option("--cancel-tasks", help="also cancel what it has queued")] = False,
    as_json: Json = False,
) -> None:
    """Remove a client's settings."""
    query = {"client_id": client_id} | ({"cancel_tasks": "true"} if cancel_tasks else {})
    with AdminApi() as api:
        api.call("DELETE", "/admin/clients/delete", query=query)
    done(f"deleted {client_id}", as_json=as_json)


@app.command("pause")
@reported
def pause_client(client_id: ClientId, queue: Queue = None, as_json: Json = False) -> None:
    """Start nothing more of a client, or of one of its queues; what runs goes on."""
    _flow("pause", client_id, queue, as_json=as_json)


@app.command("resume")
@reported
def resume_client(client_id: ClientId, queue: Queue = None, as_json: Json = False) -> None:
    """Start again what was paused."""
    _flow("resume", client_id, queue, as_json=as_json)


@app.command("usage")
@reported
def show_usage(client_id: ClientId, as_json: Json = False) -> None:
    """Show how a client stands: what it has used, what runs, what waits."""
    with AdminApi() as api:
        _show_figures(api.call("GET", "/admin/clients/usage", query={"client_id": client_id}), as_json=as_json)


@app.command("import")
@reported
def import_clients(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON, CSV with a header, or lines of id:tier; -: stdin")],
    as_json: Json = False,
) -> None:
    """Create or change the clients of a file; a line that fails is reported and the next one goes on."""
    entries = read(_content(file))
    failures: list[dict[str, str]] = []
    # Progress goes where errors go, so that stdout stays what was asked for.
    console = Console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with AdminApi() as api, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for entry in progress.track(entries):
            problem = _send(api, entry)
            if problem is not None:
                failures.append({"at": entry.place, "message": problem})
                complain(f"{entry.place}: {problem}")
    imported = len(entries) - len(failures)
    if as_json:
        typer.echo(json.dumps({"imported": imported, "failed": failures}))
    else:
        typer.echo(f"{imported} imported, {len(failures)} failed")
    if failures:
        raise typer.Exit(FAILED)


def _flow(action: str, client_id: str, queue: str | None, *, as_json: bool) -> None:
    query = {"client_id": client_id} | ({"queue": queue} if queue else {})
    with AdminApi() as api:
        _show_figures(api.call("POST", f"/admin/clients/{action}", query=query), as_json=as_json)


def _show_figures(answer: Any, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
        return
    seen = answer.data
    paused = "all" if seen["paused"] else ", ".join(seen["paused_queues"]) or "none"
    used = f"{seen['current_usage']} of {seen['rate_limit']['requests_per_min']}"
    running = f"{seen['in_flight']} of {seen['rate_limit']['max_concurrent']}"
    oldest = "-" if seen["oldest_waiting"] is None else f"{seen['oldest_waiting']:g} s"
    counts = (str(seen["queued"]), oldest, str(seen["scheduled"]), str(seen["dead"]))
    table(_FIGURES, [(seen["client_id"], paused, used, running, *counts)])


def _send(api: AdminApi, entry: Entry) -> str | None:
    """Set one client; what is wrong with it, if anything."""
    if entry.problem is not None:
        return entry.problem
    try:
        api.call("PUT", "/admin/clients/set", body=entry.body)
    except CallFailed as problem:
        if problem.status in _HOPELESS:
            stopped = f"stopped at {entry.place}: {problem}"
            raise type(problem)(stopped, answer=problem.answer, status=problem.status) from None
        return str(problem)
    return None


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as problem:
        msg = f"{file} can't be read ({problem.strerror}); FILE is a file, or - for stdin"
        raise Misused(msg) from None


def _show(answer: Any, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
    else:
        table(_COLUMNS, [_row(answer.data)])


def _row(client: dict[str, Any]) -> tuple[str, ...]:
    limit = client["rate_limit"]
    return (
        client["client_id"],
        client["tier"],
        str(limit["max_concurrent"]),
        str(limit["requests_per_min"]),
        client["source"],
        ", ".join(client["allowed_queues"] or ()) or "all",
        ", ".join(client.get("allowed_hosts", ())) or "all",
        "yes" if client["enabled"] else "no",
        client["updated_at"],
    )
