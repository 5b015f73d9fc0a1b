"""`gateway tiers …`: the tiers of a running gateway."""

from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi, Answer
from gateway.cli.output import Json, reported, table

app = typer.Typer(help="List, store and delete tiers.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="which", show_default=False)]

_COLUMNS = ("tier", "max_concurrent", "requests_per_min", "price")


@app.callback(invoke_without_command=True)
@reported
def list_tiers(context: typer.Context, as_json: Json = False) -> None:
    """List the tiers and their limits."""
    if context.invoked_subcommand is not None:
        return
    with AdminApi() as api:
        answer = api.call("GET", "/admin/tiers")
    if as_json:
        typer.echo(answer.text)
        return
    table(_COLUMNS, [_row(name, limit) for name, limit in answer.data["tiers"].items()])


@app.command("set")
@reported
def set_tier(
    name: Name,
    *,
    max_concurrent: Annotated[int, typer.Option(min=1, help="calls in flight", show_default=False)],
    requests_per_min: Annotated[int, typer.Option(min=1, help="requests a minute", show_default=False)],
    price: Annotated[
        float | None, typer.Option(min=0, help="in any unit, for the revenue; the one it has", show_default=False)
    ] = None,
    no_price: Annotated[bool, typer.Option("--no-price", help="it has no price")] = False,
    as_json: Json = False,
) -> None:
    """Store a tier: its limits hold for each of its clients, on every replica."""
    body: dict[str, float | None] = {"max_concurrent": max_concurrent, "requests_per_min": requests_per_min}
    if price is not None or no_price:
        body["price"] = None if no_price else price
    with AdminApi() as api:
        _show(api.call("PUT", f"/admin/tiers/{name}", body=body), as_json=as_json)


@app.command("delete")
@reported
def delete_tier(name: Name, as_json: Json = False) -> None:
    """Remove a stored tier that no client is of."""
    with AdminApi() as api:
        answer = api.call("DELETE", f"/admin/tiers/{name}")
    if answer.data is not None:
        _show(answer, as_json=as_json)
    elif not as_json:
        typer.echo(f"deleted {name}")


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
    else:
        table((*_COLUMNS, "source"), [(*_row(answer.data["name"], answer.data), answer.data["source"])])


def _row(name: str, limit: dict[str, Any]) -> tuple[str, ...]:
    return (name, str(limit["max_concurrent"]), str(limit["requests_per_min"]), f"{limit.get('price', '-')}")
