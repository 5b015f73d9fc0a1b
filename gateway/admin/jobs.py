"""`/admin/jobs`: what is done to many tasks at once, chosen by filter: counted first, then done step by step, aborted
between two of them."""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.admin.choosing import FILTERS, FilterBody, chosen
from gateway.admin.journal import note
from gateway.errors import Conflict, InvalidBody, NotFound
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.answers import json_answer, rfc3339
from gateway.middleware.reading import query, read_body
from gateway.middleware.strict_json import decode_strictly
from gateway.store.jobs import Job
from gateway.store.steering import STATES, Action, narrowed

_JOB_ID: Final = re.compile(r"job_[0-9a-f]{16}", re.ASCII)


class JobBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `POST /admin/jobs` takes."""

    action: Annotated[Literal["cancel", "run", "replay", "purge"], Meta(examples=["cancel"])]
    filter: Annotated[FilterBody | None, Meta(description="none: all that the action is for")] = None
    dry_run: Annotated[
        bool | None, Meta(description="default true: it counts, and waits to be started", examples=[True])
    ] = None


_DECODER = msgspec.json.Decoder(JobBody)
_FIELDS = {"$": JobBody.__struct_fields__, "$.filter": FILTERS}


async def create_job(request: web.Request) -> web.StreamResponse:
    """202 with the job, which counts."""
    query(request, "", ())
    raw = await read_body(request, request.app[AppKeys.SETTINGS].max_body_bytes)
    body = decode_strictly(raw, _DECODER, _FIELDS)
    given = body.filter or FilterBody()
    return await create(request, body.action, given, dry_run=body.dry_run is not False, place="$.filter")


async def create(
    request: web.Request, action: Action, given: FilterBody, *, dry_run: bool, place: str = ""
) -> web.StreamResponse:
    """202 with a new job; the audit log has it."""
    wanted = chosen(given, place)
    try:
        narrowed(action, wanted, 0)
    except ValueError:
        allowed = ", ".join(sorted(state.value for state in STATES[action]))
        msg = f"{place}.state: {action} is for {allowed} ones"
        raise InvalidBody(msg) from None
    store = request.app[AppKeys.STORE]
    asked = msgspec.to_builtins(given)
    job = await store.jobs.create(
        action,
        wanted,
        dry_run=dry_run,
        asked=asked,
        address=request[RequestKeys.ADDRESS],
        key=request[RequestKeys.ADMIN_KEY].name,
        request_id=request[RequestKeys.REQUEST_ID],
    )
    store.job_worker.hurry()
    after = {"job_id": job.job_id, "action": action, "filter": asked, "dry_run": dry_run}
    await note(request, "create_job", wanted.client_id, queue=wanted.queue, after=after)
    return json_answer(_body(job), 202)


async def list_jobs(request: web.Request) -> web.StreamResponse:
    """200 with the last jobs, newest first."""
    query(request, "", ())
    return json_answer({"jobs": [_body(job) for job in await request.app[AppKeys.STORE].jobs.all()]})


async def show_job(request: web.Request) -> web.StreamResponse:
    """200 with how far it has come, 404."""
    query(request, "", ())
    return json_answer(_body(await _find(request)))


async def start_job(request: web.Request) -> web.StreamResponse:
    """202: one that has counted does it now; 409 in any other state."""
    query(request, "", ())
    job = await _find(request)
    store = request.app[AppKeys.STORE]
    started = None
    if job.state == "counted":
        started = await store.jobs.update(job, state="running", cursor=None, started_at=await store.jobs.now())
    if started is None:
        raise _wrong_state(await _find(request), "only a counted one can be started")
    store.job_worker.hurry()
    await note(request, "start_job", job.filter.client_id, queue=job.filter.queue, after={"job_id": job.job_id})
    return json_answer(_body(started), 202)


async def abort_job(request: web.Request) -> web.StreamResponse:
    """200: it does no more than the step it is in; 409 where it has ended."""
    query(request, "", ())
    store = request.app[AppKeys.STORE]
    while True:
        job = await _find(request)
        if job.finished_at:
            raise _wrong_state(job, "it can't be aborted any more")
        aborted = await store.jobs.update(job, state="aborted", worker=None)
        if aborted is not None:
            break
    await note(request, "abort_job", job.filter.client_id, queue=job.filter.queue, before={"job_id": job.job_id})
    return json_answer(_body(aborted))


async def _find(request: web.Request) -> Job:
    job_id = request.match_info["job_id"]
    job = await request.app[AppKeys.STORE].jobs.get(job_id) if _JOB_ID.fullmatch(job_id) else None
    if job is None:
        msg = f"there is no job {job_id[:64]}, or no longer"
        raise NotFound(msg, error="Job not found")
    return job


def _wrong_state(job: Job, why: str) -> Conflict:
    return Conflict(f"the job is {job.state}; {why}", extra={"job_id": job.job_id, "state": job.state})


def _body(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "action": job.action,
        "filter": job.asked,
        "dry_run": job.dry_run,
        "state": job.state,
        "matched": job.matched,
        "changed": job.changed,
        "skipped": job.skipped,
        "looked_at": job.looked_at,
        "created_at": rfc3339(job.began),
        "started_at": rfc3339(job.started_at or None),
        "finished_at": rfc3339(job.finished_at or None),
        "worker": job.worker,
        "taken_over": job.taken_over,
        "address": job.address,
        "key": job.key,
        "message": job.message,
    }


ROUTES = (
    web.post("/jobs", create_job),
    web.get("/jobs", list_jobs),
    web.get("/jobs/{job_id}", show_job),
    web.post("/jobs/{job_id}/start", start_job),
    web.delete("/jobs/{job_id}", abort_job),
)
