"""`gateway usage` and `gateway candidates`: what clients did, and who outgrows its tier."""

from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, reported, table
from gateway.cli.picture import lasting

_WHEN = "RFC 3339, such as 2024-01-15T10:30:00Z"
_COUNTS = ("admitted", "refused", "delivered", "failed")


@reported
def usage(
    client: Annotated[
        str | None, typer.Option(help="whose; all of them in sum unless given", show_default=False)
    ] = None,
    *,
    step: Annotated[str, typer.Option(metavar="minute|hour", help="by minute for a day, by hour for 90")] = "minute",
    since: Annotated[str | None, typer.Option("--from", help=_WHEN, show_default="an hour ago, or a day")] = None,
    until: Annotated[str | None, typer.Option("--to", help=_WHEN, show_default="now")] = None,
    as_json: Json = False,
) -> None:
    """Show what was admitted, refused, delivered and failed. Steps in which nothing happened are left out."""
    given = {"client_id": client, "step": step, "from": since, "to": until}
    with AdminApi() as api:
        answer = api.call(
            "GET", "/admin/usage", query={name: value for name, value in given.items() if value is not None}
        )
    if as_json:
        typer.echo(answer.text)
        return
    busy = [point for point in answer.data["points"] if any(point[name] for name in _COUNTS)]
    rows = [(point["at"], *_figures(point)) for point in busy]
    table(("at", *_COUNTS, "p50", "p95"), [*rows, ("total", *_figures(answer.data["total"]))])


def _figures(point: dict[str, Any]) -> tuple[str, ...]:
    took = (lasting(point[name]) for name in ("duration_p50", "duration_p95"))
    return (*(str(point[name]) for name in _COUNTS), *took)


@reported
def candidates(
    minutes: Annotated[int, typer.Option(min=0, max=1440, help="refused in more minutes than this")] = 10,
    limit: Annotated[int, typer.Option(min=1, max=500, help="at most so many")] = 50,
    as_json: Json = False,
) -> None:
    """List clients whose tier is too small. They were refused again and again in the last day."""
    with AdminApi() as api:
        answer = api.call("GET", "/admin/upgrade-candidates", query={"minutes": str(minutes), "limit": str(limit)})
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for each in answer.data["candidates"]:
        limit_now = "-" if each["rate_limit"] is None else str(each["rate_limit"]["requests_per_min"])
        counts = (str(each[name]) for name in ("refused_minutes", "refused", "admitted"))
        rows.append((each["client_id"], each["tier"] or "-", limit_now, *counts, each["next_tier"] or "-"))
    table(("client", "tier", "requests_per_min", "minutes", "refused", "admitted", "next_tier"), rows)
    if answer.data["count"] > len(rows):
        typer.echo(f"{len(rows)} of {answer.data['count']}: --limit shows more", err=True)
