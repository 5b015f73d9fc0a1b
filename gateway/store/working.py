"""Works on jobs, one at a time in each process: a page of tasks, what is to be done to them, a note of how far that has
come. Nothing is held between the steps, so that a process may go at any moment."""

import asyncio
from typing import Final

import structlog

from gateway.errors import StoreUnavailable
from gateway.store.jobs import OPEN, Job, Jobs
from gateway.store.journal import Change, Journal
from gateway.store.listing import Listing, parse_cursor
from gateway.store.steering import CHUNK, Steering, narrowed

log = structlog.get_logger()

LOOK_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 1.0
_STEP_SECONDS: Final = 0.005  # others have their turn in Redis


class JobWorker:
    """Takes what jobs there are. ``hurry()``: there is a new one."""

    def __init__(self, jobs: Jobs, listing: Listing, steering: Steering, journal: Journal, name: str) -> None:
        self._jobs = jobs
        self._listing = listing
        self._steering = steering
        self._journal = journal
        self._name = name
        self._new = asyncio.Event()

    def hurry(self) -> None:
        """Look at once."""
        self._new.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._new.clear()
            try:
                job = await self._jobs.take(self._name)
                while job is not None:
                    job = await self._step_safely(job)
                    await asyncio.sleep(_STEP_SECONDS)
            except StoreUnavailable as error:
                log.debug("jobs_not_read", error=error.message)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._new.wait()
            except TimeoutError:
                continue

    async def _step_safely(self, job: Job) -> Job | None:
        """A step again where Redis was away in its midst: what was done is passed over."""
        try:
            return await self.step(job)
        except StoreUnavailable:
            await asyncio.sleep(_AGAIN_SECONDS)
            now = await self._jobs.get(job.job_id)
            return now if now is not None and now.worker == self._name and now.state in OPEN else None
        except Exception:
            log.exception("job_failed", job=job.job_id)
            await self._jobs.update(job, state="failed", message="an internal error; see the log")
            return None

    async def step(self, job: Job) -> Job | None:
        """One page of the job; returns it as it is then, None where it is this process's no more, or needs nothing."""
        wanted = narrowed(job.action, job.filter, job.began + 1)
        place = None if job.cursor is None else parse_cursor(job.cursor)
        page = await self._listing.page(wanted, cursor=place, limit=CHUNK, newest=False)
        looked, found = job.looked_at + page.looked_at, len(page.tasks)
        if job.state == "counting":
            told = {"matched": job.matched + found, "looked_at": looked, "cursor": page.next_cursor}
            if page.next_cursor is not None:
                return await self._jobs.update(job, **told)
            if job.dry_run:
                await self._jobs.update(job, **told, state="counted", worker=None)
                return None
            return await self.begin(job, **told)
        done = await self._steering.apply(job.action, page.tasks)
        told = {
            "looked_at": looked,
            "changed": job.changed + done,
            "skipped": job.skipped + found - done,
            "cursor": page.next_cursor,
        }
        if page.next_cursor is not None:
            after = await self._jobs.update(job, **told)
            if after is None and done:
                await self._aborted(job, done)
            return after
        ended = await self._jobs.update(job, **told, state="done", worker=None)
        if ended is not None:
            await self._note(ended)
        return None

    async def _aborted(self, job: Job, done: int) -> None:
        """What was done to the last page is counted, too."""
        now = await self._jobs.get(job.job_id)
        if now is not None and now.state == "aborted":
            await self._jobs.update(now, changed=now.changed + done)

    async def begin(self, job: Job, **told: object) -> Job | None:
        """From counting to doing."""
        return await self._jobs.update(job, **told, state="running", started_at=await self._jobs.now())

    async def _note(self, job: Job) -> None:
        log.info("job_done", job=job.job_id, action=job.action, tasks=job.changed)
        await self._journal.note(
            Change(
                action=f"{job.action}_job",
                address=job.address,
                request_id=job.request_id,
                key=job.key,
                client_id=job.filter.client_id,
                queue=job.filter.queue,
                after={"job_id": job.job_id, "filter": job.asked},
                tasks=job.changed,
            )
        )
