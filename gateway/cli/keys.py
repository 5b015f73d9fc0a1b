"""`gateway keys …`: the keys by which clients show who they are."""

from typing import Annotated

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, done, reported, show_once, table

app = typer.Typer(
    help="Show, make, rotate and revoke the keys of clients.", no_args_is_help=True, rich_markup_mode=None
)

ClientId = Annotated[str, typer.Argument(metavar="ID", help="whose", show_default=False)]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="which, as `list` shows it", show_default=False)]

_PATH = "/admin/clients/keys"


@app.command("list")
@reported
def list_keys(client_id: ClientId, as_json: Json = False) -> None:
    """List a client's keys, oldest first, by their ids."""
    with AdminApi() as api:
        answer = api.call("GET", _PATH, query={"client_id": client_id})
    if as_json:
        typer.echo(answer.text)
        return
    table(("key", "created"), [(each["key_id"], each["created_at"]) for each in answer.data["keys"]])
    if answer.data["required"] and not answer.data["keys"]:
        typer.echo(f"{client_id} needs a key and has none: it is closed until it gets one, or is released", err=True)


@app.command("create")
@reported
def create_key(
    client_id: ClientId,
    offer: Annotated[bool, typer.Option("--offer", help="the client may show it, but need not yet")] = False,
    as_json: Json = False,
) -> None:
    """Make one; it is shown here and never again. The client needs a key from now on, unless it is only offered."""
    _make(_PATH, client_id, {"required": "false"} if offer else {}, as_json=as_json)


@app.command("require")
@reported
def require_key(client_id: ClientId, as_json: Json = False) -> None:
    """Have a client that was offered a key need one from now on."""
    _tell("require", client_id, "needs a key", as_json=as_json)


@app.command("rotate")
@reported
def rotate_key(client_id: ClientId, as_json: Json = False) -> None:
    """Make the next one. The newest before it stays valid until it is revoked, an older one does not."""
    _make(f"{_PATH}/rotate", client_id, {}, as_json=as_json)


@app.command("revoke")
@reported
def revoke_key(client_id: ClientId, key_id: KeyId, as_json: Json = False) -> None:
    """Revoke one. A client that needs a key and has none is closed until it gets another."""
    with AdminApi() as api:
        api.call("DELETE", _PATH, query={"client_id": client_id, "key_id": key_id})
    done(f"revoked {key_id}", as_json=as_json)


@app.command("release")
@reported
def release_client(client_id: ClientId, as_json: Json = False) -> None:
    """Ask a client for no key any more. All of its keys are revoked, and whoever names it is believed."""
    _tell("release", client_id, "needs no key", as_json=as_json)


def _tell(action: str, client_id: str, outcome: str, *, as_json: bool) -> None:
    with AdminApi() as api:
        api.call("POST", f"{_PATH}/{action}", query={"client_id": client_id})
    done(f"{client_id} {outcome}", as_json=as_json)


def _make(path: str, client_id: str, how: dict[str, str], *, as_json: bool) -> None:
    with AdminApi() as api:
        answer = api.call("POST", path, query={"client_id": client_id, **how})
    show_once(answer.text, answer.data, "key", as_json=as_json)
