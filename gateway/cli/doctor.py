"""`gateway doctor`: the audit that the service runs in the background, once, over every client, with explanations.
It reads Redis by itself, so that it also works while no gateway runs."""

import asyncio
import json
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
import typer

from gateway import log
from gateway.cli.output import FAILED, Json, Unreachable, reported, table
from gateway.cli.serve import load, with_settings_flags
from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store import open_store
from gateway.store.audit import Violation
from gateway.store.data_folder import socket_path

EXPLAINED: Final = {
    "active": "gauges and audit would overlook the client",
    "depth": "MAX_QUEUED_PER_CLIENT is judged by a wrong count",
    "due": "delayed tasks and retries would start late, or never",
    "ghost": "the client has one call at once less than its limit",
    "lease": "calls of a killed process would never be taken back",
    "returned": "harmless; something wrote to this key by hand",
    "scheduled": "harmless; something wrote to this key by hand",
    "stranded": "its tasks would wait until another one is enqueued",
    "window": "requests are refused or admitted by a wrong count, for a minute at most",
}

Repair = Annotated[bool, typer.Option("--repair", help="mend what differs")]


@with_settings_flags
@reported
def doctor(flags: dict[str, str], repair: Repair = False, as_json: Json = False) -> None:
    """Look for contradictions in what Redis keeps, and explain them."""
    settings = load(flags)
    log.configure("critical", "console")
    try:
        clients, found = asyncio.run(_examine(settings, repair=repair))
    except StoreUnavailable as problem:
        if settings.redis_shown is None:
            msg = (
                f"no embedded Valkey answers in {settings.gateway_data_dir}; it runs while the gateway does: set "
                "GATEWAY_DATA_DIR or REDIS_URL as it has them"
            )
        else:
            msg = f"{settings.redis_shown}: {problem.message} Is it running, and is REDIS_URL or REDIS_ADDR right?"
        raise Unreachable(msg) from None
    if as_json:
        rows = [msgspec.structs.asdict(violation) for violation in found]
        typer.echo(json.dumps({"clients": clients, "violations": rows, "repaired": repair and bool(rows)}))
    elif found:
        table(
            ("client", "kind", "what", "so"),
            [(each.client_id, each.kind, each.detail, EXPLAINED[each.kind]) for each in found],
        )
        mended = "mended" if repair else "mend with: gateway doctor --repair (a running gateway does it by itself)"
        typer.echo(f"{len(found)} things differ in {clients} clients; {mended}")
    else:
        typer.echo(f"{clients} client{'' if clients == 1 else 's'}, everything agrees")
    if found and not repair:
        raise typer.Exit(FAILED)


async def _examine(settings: Settings, *, repair: bool) -> tuple[int, list[Violation]]:
    url = settings.redis_url or f"unix://{quote(str(socket_path(settings.gateway_data_dir)))}"
    clients = 0
    found: list[Violation] = []
    async with open_store(settings, url) as store:
        await store.ping()
        async for _, violations in store.audit.everything(mend=repair):
            clients += 1
            found += violations
    return clients, found
