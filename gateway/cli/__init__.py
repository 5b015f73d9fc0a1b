"""The command line: which commands there are. Each is in a module of its own."""

from typing import Annotated

import orjson
import typer

from gateway import __version__
from gateway.cli import (
    audit,
    check,
    clients,
    dead,
    doctor,
    jobs,
    keys,
    overview,
    queues,
    serve,
    signing,
    stats,
    tasks,
    tiers,
    usage,
)

app = typer.Typer(
    name="gateway",
    help="Accept HTTP calls for later and make them within each client's limits.",
    no_args_is_help=True,
    # Rich's tables cut long flags short in a narrow terminal.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(clients.app, name="clients")
app.add_typer(dead.app, name="dead")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(queues.app, name="queues")
app.add_typer(signing.app, name="signing")
app.add_typer(tasks.app, name="tasks")
app.add_typer(tiers.app, name="tiers")
app.command("stats")(stats.stats)
app.command("top")(stats.top)
app.command("usage")(usage.usage)
app.command("candidates")(usage.candidates)
app.command("replicas")(overview.replicas)
app.command("redis")(overview.redis)
app.command("audit")(audit.audit)
app.command("check")(check.check)
app.command("doctor")(doctor.doctor)


@app.command()
def version(as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """Print the version."""
    typer.echo(orjson.dumps({"version": __version__}) if as_json else f"gateway {__version__}")


def main() -> None:
    """What `gateway` and `python -m gateway` run."""
    app(prog_name="gateway")
