"""`gateway queues …`: the queues of a client."""

from typing import Annotated

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, Misused, reported, table

app = typer.Typer(help="List and purge a client's queues.", no_args_is_help=True, rich_markup_mode=None)

Client = Annotated[str, typer.Option("--client", metavar="ID", help="whose", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="do it: what waits in the queue is cancelled")]

_COLUMNS = ("queue", "paused", "queued", "in_flight", "oldest")


@app.command("list")
@reported
def list_queues(client: Client, as_json: Json = False) -> None:
    """Show how each queue of a client stands."""
    with AdminApi() as api:
        answer = api.call("GET", "/admin/clients/usage", query={"client_id": client})
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for queue in answer.data["queues"]:
        oldest = "-" if queue["oldest_waiting"] is None else f"{queue['oldest_waiting']:g} s"
        paused = "yes" if queue["paused"] else "no"
        rows.append((queue["queue"], paused, str(queue["queued"]), str(queue["in_flight"]), oldest))
    table(_COLUMNS, rows)


@app.command("purge")
@reported
def purge_queue(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="which", show_default=False)],
    client: Client,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel what waits in a queue, delayed and retrying tasks included; what runs goes on."""
    if not yes:
        raise Misused("this cancels tasks for good; --yes does it")
    with AdminApi() as api:
        answer = api.call("POST", "/admin/queues/purge", query={"client_id": client, "queue": queue})
    typer.echo(answer.text if as_json else f"{answer.data['tasks']} cancelled")
