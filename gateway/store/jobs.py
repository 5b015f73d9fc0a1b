"""Jobs: what operators have done to many tasks at once, as Redis keeps it. One process at a time works on a job and has
it for some seconds from each step on. A job whose process is gone is taken over where it stood."""

from secrets import token_hex
from typing import Final, Literal

import msgspec
import structlog

from gateway.store.scripts import Runner
from gateway.store.steering import Action
from gateway.task_filter import TaskFilter

log = structlog.get_logger()

KEPT: Final = 100
KEPT_SECONDS: Final = 7 * 86_400
LEASE_MS: Final = 15_000
_READS: Final = 3

State = Literal["counting", "counted", "running", "done", "aborted", "failed"]
OPEN: Final = frozenset({"counting", "running"})  # what somebody has to work on


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job; times are Unix ms by Redis's clock, 0 for none.

    ``filter`` says which tasks, ``asked`` the same in the operator's words. ``matched`` were counted, ``looked_at`` is
    what that and the work took so far, ``changed`` had it done to them, ``skipped`` were in another state by then.
    ``cursor``: how far the present walk has come. ``began``: only what was as it is by then is touched.
    """

    job_id: str
    action: Action
    filter: TaskFilter
    asked: dict[str, str | int | float]
    dry_run: bool
    state: State
    began: int
    address: str
    key: str | None
    request_id: str
    matched: int = 0
    looked_at: int = 0
    changed: int = 0
    skipped: int = 0
    cursor: str | None = None
    started_at: int = 0
    finished_at: int = 0
    worker: str | None = None
    taken_over: int = 0
    message: str | None = None


_decode = msgspec.json.Decoder(Job).decode
_encode = msgspec.json.Encoder(order="deterministic").encode  # sets, too: what it was is compared as text


def _readable(job_id: str, text: bytes) -> Job | None:
    """One that a newer version wrote may be none for this one, which leaves it alone."""
    try:
        return _decode(text)
    except msgspec.DecodeError as error:
        log.warning("job_unreadable", job=job_id, error=str(error))
        return None


class Jobs:
    """The jobs there are. Each change gives the job as it then is, or None where another process was faster."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace

    async def create(self, action: Action, wanted: TaskFilter, *, dry_run: bool, **told: object) -> Job:
        """A new one, for whichever process looks first."""
        job = Job(
            job_id=f"job_{token_hex(8)}",
            action=action,
            filter=wanted,
            dry_run=dry_run,
            state="counting",
            began=await self._runner.now(),
            **told,  # type: ignore[arg-type]
        )
        await self._store(None, job, 0)
        return job

    async def get(self, job_id: str) -> Job | None:
        """The job, None where there is none, or no longer."""
        text = await self._runner.command("GET", self._keyspace.job(job_id), tries=_READS)
        return None if text is None else _readable(job_id, text)

    async def all(self) -> list[Job]:
        """The last ones, newest first."""
        ids = await self._runner.command("ZRANGE", self._keyspace.jobs, 0, -1, "REV", tries=_READS)
        if not ids:
            return []
        texts = await self._runner.command("MGET", *(self._keyspace.job(name.decode()) for name in ids), tries=_READS)
        jobs = [_readable(name.decode(), text) for name, text in zip(ids, texts, strict=True) if text is not None]
        return [job for job in jobs if job is not None]

    async def take(self, worker: str) -> Job | None:
        """One that nobody works on, for ``worker``."""
        now = await self._runner.now()
        key = self._keyspace.open_jobs
        for name in await self._runner.command("ZRANGE", key, "-inf", now, "BYSCORE", "LIMIT", 0, 10, tries=_READS):
            job = await self.get(name.decode())
            if job is None:
                if not await self._runner.command("EXISTS", self._keyspace.job(name.decode()), tries=_READS):
                    await self._runner.command("ZREM", key, name)
                continue
            again = int(job.worker is not None)
            taken = await self.update(job, worker=worker, taken_over=job.taken_over + again)
            if taken is not None:
                return taken
        return None

    async def update(self, job: Job, **changes: object) -> Job | None:
        """The job with these changes, if it is still what it was."""
        now = await self._runner.now()
        after = msgspec.structs.replace(job, **changes)
        ended = after.state not in OPEN and after.state != "counted"
        if ended and not after.finished_at:
            after = msgspec.structs.replace(after, finished_at=now)
        until = now + LEASE_MS if after.worker is not None else 0
        return after if await self._store(job, after, until if after.state in OPEN else None) else None

    async def now(self) -> int:
        """Redis's clock, in Unix ms."""
        return await self._runner.now()

    async def _store(self, before: Job | None, after: Job, until: int | None) -> bool:
        keys = (self._keyspace.job(after.job_id), self._keyspace.jobs, self._keyspace.open_jobs)
        was = b"" if before is None else _encode(before)
        stored = await self._runner.run_alone(
            "job",
            keys,
            was,
            _encode(after),
            after.job_id,
            after.began,
            "" if until is None else until,
            KEPT_SECONDS,
            KEPT,
        )
        return bool(stored)
