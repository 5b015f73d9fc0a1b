"""The shapes of what is answered about tasks to operators: tasks with what they call, jobs, how many it was done to."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gateway.openapi.answers import ClientId, Count, Queue, Task, TaskAttempt


class OperatorsTask(Task, kw_only=True):
    """A task, and what it is to call."""

    method: str
    url: Annotated[str, Meta(description="without the values of its query")]
    labels: list[str]


class DetailedTask(OperatorsTask, kw_only=True):
    """The same with its attempts and its own bounds."""

    expires_at: datetime | None
    timeout: float
    size: Annotated[Count, Meta(description="bytes it counts for among what waits")]
    max_concurrent: Annotated[int | None, Meta(description="its own bound on its client's calls in flight")]
    trace_id: Annotated[str | None, Meta(description="of the trace that it belongs to")]
    history: Annotated[list[TaskAttempt], Meta(description="oldest first, the last 20; earlier ones with less body")]


class TaskPage(Struct):
    """A page of tasks."""

    tasks: list[OperatorsTask]
    next_cursor: Annotated[str | None, Meta(description="null on the last page; a short page may have one")]


class Job(Struct):
    """What is done to many tasks at once, and how far that has come."""

    job_id: Annotated[str, Meta(pattern="^job_[0-9a-f]{16}$")]
    action: Literal["cancel", "run", "replay", "purge"]
    filter: Annotated[dict[str, Any], Meta(description="as it was given")]
    dry_run: bool
    state: Annotated[
        Literal["counting", "counted", "running", "done", "aborted", "failed"],
        Meta(description="`counted`: a dry run that waits to be started"),
    ]
    matched: Annotated[Count, Meta(description="tasks that were counted")]
    changed: Annotated[Count, Meta(description="to how many it was done so far")]
    skipped: Annotated[Count, Meta(description="that were in another state by then")]
    looked_at: Count
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: Annotated[str | None, Meta(description="the process that works on it")]
    taken_over: Annotated[Count, Meta(description="how often from a process that was gone")]
    address: str
    key: str | None
    message: Annotated[str | None, Meta(description="why it failed")]


class JobList(Struct):
    """The last hundred, newest first."""

    jobs: list[Job]


class Done(Struct):
    """How many tasks it was done to."""

    client_id: ClientId
    tasks: Count


class PurgedQueue(Struct):
    """How many tasks were cancelled."""

    client_id: ClientId
    queue: Queue
    tasks: Count
