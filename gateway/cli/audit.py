"""`gateway audit`: what operators changed."""

import json
from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, reported, table

# By what a change names a tier, a key, a secret, a job or a task.
_NAMES = ("name", "key_id", "secret_id", "job_id", "task_id")
_COLUMNS = ("at", "action", "client", "address", "key", "what")


@reported
def audit(
    *,
    client: Annotated[
        str | None, typer.Option(metavar="ID", help="only what was done to it", show_default=False)
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="only these: set, pause, replay_dead, …", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(help="only what was done with it, by its name", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=500, help="at most so many", show_default="50")] = None,
    cursor: Annotated[str | None, typer.Option(help="go on where the last page ended", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show what operators changed, newest first."""
    given = {
        "client_id": client,
        "action": action,
        "key_name": key,
        "limit": None if limit is None else str(limit),
        "cursor": cursor,
    }
    with AdminApi() as api:
        answer = api.call(
            "GET", "/admin/audit", query={name: value for name, value in given.items() if value is not None}
        )
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for entry in answer.data["entries"]:
        who = (entry["client_id"] or "", entry["address"], entry["key"] or "none")
        rows.append((entry["at"], entry["action"], *who, _what(entry)))
    table(_COLUMNS, rows)
    if answer.data["next_cursor"]:
        typer.echo(f"more: --cursor {answer.data['next_cursor']}", err=True)


def _what(entry: dict[str, Any]) -> str:
    """What it was done to where that is no client, the settings that differ, the queue, how many tasks."""
    before, after = entry["before"] or {}, entry["after"] or {}
    left_out = ("client_id", "updated_at", *_NAMES)
    changed = [name for name in after if after[name] != before.get(name) and name not in left_out]
    shown = after or before
    parts = [f"{name} {shown[name]}" for name in _NAMES if name in shown]
    parts += [f"{name}: {json.dumps(before.get(name))} -> {json.dumps(after[name])}" for name in changed]
    if entry["queue"]:
        parts.append(f"queue {entry['queue']}")
    if entry["tasks"] is not None:
        parts.append(f"{entry['tasks']} tasks")
    return ", ".join(parts)
