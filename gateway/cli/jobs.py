"""`gateway jobs …`: something done to many tasks at once, counted first, followed, aborted."""

import sys
import time
from typing import Annotated, Any

import typer

from gateway.cli.admin_api import AdminApi, Answer
from gateway.cli.choosing import filtered
from gateway.cli.output import FAILED, Json, Misused, complain, reported, table

app = typer.Typer(help="Cancel, run, replay or purge many tasks at once.", no_args_is_help=True, rich_markup_mode=None)

JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="which", show_default=False)]
Action = Annotated[str, typer.Argument(metavar="ACTION", help="cancel, run, replay or purge", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="do it without asking")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="count, and no more")]

_COLUMNS = ("job", "action", "state", "matched", "changed", "skipped", "created", "by")
_LOOK_SECONDS = 0.25
_OPEN = {"counting", "running"}


@app.command("create")
@reported
@filtered(without={"task_id"})
def create_job(
    wanted: dict[str, Any],
    action: Action,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Count the tasks that the filters choose, ask, and do it.

    Shows the job at its end; its progress goes to standard error."""
    if not (dry_run or yes or sys.stdin.isatty()):
        raise Misused("nobody can be asked here: --yes does it, --dry-run counts")
    with AdminApi() as api:
        made = api.call("POST", "/admin/jobs", body={"action": action, "filter": wanted, "dry_run": not yes})
        answer = follow(api, made)
        if not (dry_run or yes):
            typer.echo(f"{answer.data['matched']} tasks", err=True)
            if not answer.data["matched"] or not typer.confirm(f"{action} them?", err=True):
                answer = api.call("DELETE", f"/admin/jobs/{answer.data['job_id']}")
            else:
                answer = follow(api, api.call("POST", f"/admin/jobs/{answer.data['job_id']}/start"))
    finish(answer, as_json=as_json)


@app.command("list")
@reported
def list_jobs(as_json: Json = False) -> None:
    """List the last jobs, newest first."""
    with AdminApi() as api:
        answer = api.call("GET", "/admin/jobs")
    if as_json:
        typer.echo(answer.text)
    else:
        table(_COLUMNS, [_row(job) for job in answer.data["jobs"]])


@app.command("get")
@reported
def get_job(job_id: JobId, as_json: Json = False) -> None:
    """Show how far a job has come."""
    _one("GET", job_id, as_json=as_json)


@app.command("start")
@reported
def start_job(job_id: JobId, as_json: Json = False) -> None:
    """Start a job that has counted, and follow it to its end."""
    with AdminApi() as api:
        answer = follow(api, api.call("POST", f"/admin/jobs/{job_id}/start"))
    finish(answer, as_json=as_json)


@app.command("abort")
@reported
def abort_job(job_id: JobId, as_json: Json = False) -> None:
    """Abort a job; what it has done stays done."""
    _one("DELETE", job_id, as_json=as_json)


def follow(api: AdminApi, made: Answer) -> Answer:
    """The job once nothing is worked on any more; its progress goes to standard error where that is a terminal."""
    answer, shown = made, ""
    while answer.data["state"] in _OPEN:
        told = f"{answer.data['state']}: {answer.data['changed']} of {answer.data['matched']}"
        if told != shown and sys.stderr.isatty():
            typer.echo(told, err=True)
            shown = told
        time.sleep(_LOOK_SECONDS)
        answer = api.call("GET", f"/admin/jobs/{answer.data['job_id']}")
    return answer


def finish(answer: Answer, *, as_json: bool) -> None:
    """Show a job that is at its end; exits with 1 where it failed."""
    _show(answer, as_json=as_json)
    if answer.data["state"] == "failed":
        complain(f"the job failed: {answer.data['message']}")
        raise typer.Exit(FAILED)


def _one(method: str, job_id: str, *, as_json: bool) -> None:
    with AdminApi() as api:
        _show(api.call(method, f"/admin/jobs/{job_id}"), as_json=as_json)


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
    else:
        table(_COLUMNS, [_row(answer.data)])


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    counts = tuple(str(job[name]) for name in ("matched", "changed", "skipped"))
    return (job["job_id"], job["action"], job["state"], *counts, job["created_at"], job["key"] or job["address"])
