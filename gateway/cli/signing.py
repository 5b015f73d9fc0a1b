"""`gateway signing …`: the secrets that sign a client's deliveries."""

import json
from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, done, reported, show_once, table

app = typer.Typer(
    help="Show, make and remove what signs a client's deliveries.", no_args_is_help=True, rich_markup_mode=None
)

ClientId = Annotated[str, typer.Argument(metavar="ID", help="whose", show_default=False)]
SecretId = Annotated[str, typer.Argument(metavar="SECRET_ID", help="which, as `list` shows it", show_default=False)]

_PATH = "/admin/clients/signing"


@app.command("list")
@reported
def list_secrets(client_id: ClientId, as_json: Json = False) -> None:
    """List a client's signing secrets, oldest first, by their ids."""
    with AdminApi() as api:
        answer = api.call("GET", _PATH, query={"client_id": client_id})
    if as_json:
        typer.echo(answer.text)
        return
    rows = [
        (each["secret_id"], each["created_at"], each["sealed_with"] or "-", each["unreadable"] or "")
        for each in answer.data["secrets"]
    ]
    table(("secret", "created", "sealed with", "can't be opened"), rows)


@app.command("create")
@reported
def create_secret(client_id: ClientId, as_json: Json = False) -> None:
    """Make another one; it is shown here and never again. Deliveries carry a signature by each."""
    with AdminApi() as api:
        answer = api.call("POST", _PATH, query={"client_id": client_id})
    show_once(answer.text, answer.data, "secret", as_json=as_json)


@app.command("remove")
@reported
def remove_secret(client_id: ClientId, secret_id: SecretId, as_json: Json = False) -> None:
    """Remove one; nothing is signed with it from now on."""
    with AdminApi() as api:
        api.call("DELETE", _PATH, query={"client_id": client_id, "secret_id": secret_id})
    done(f"removed {secret_id}", as_json=as_json)


@app.command("reseal")
@reported
def reseal_secrets(as_json: Json = False) -> None:
    """Seal the secrets of all clients with the first of TASK_ENCRYPTION_KEYS; 1 where one can't be opened."""
    total: dict[str, Any] = {"clients": 0, "resealed": 0, "unreadable": []}
    query: dict[str, str] = {}
    with AdminApi() as api:
        while True:
            page = api.call("POST", f"{_PATH}/reseal", query=query).data
            for name in total:
                total[name] += page[name]
            if page["next_cursor"] is None:
                break
            query = {"cursor": page["next_cursor"]}
    if as_json:
        typer.echo(json.dumps(total))
    else:
        typer.echo(f"stored {total['resealed']} anew, of {total['clients']} clients")
        for each in total["unreadable"]:
            typer.echo(f"{each['client_id']} {each['secret_id']}: {each['reason']}", err=True)
    if total["unreadable"]:
        raise typer.Exit(1)
