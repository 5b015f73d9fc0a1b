"""`gateway replicas`: the processes there are."""

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, reported, table


@reported
def replicas(as_json: Json = False) -> None:
    """List the processes that are alive on this Redis."""
    with AdminApi() as api:
        answer = api.call("GET", "/admin/replicas")
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for each in answer.data["replicas"]:
        running = f"{each['in_flight']} of {each['max_in_flight']}"
        rows.append((each["name"], each["version"], each["role"], each["started_at"], running))
    table(("name", "version", "role", "started", "in_flight"), rows)
