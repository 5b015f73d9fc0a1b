"""The shape of what is answered, for the OpenAPI document: the handlers build plain dictionaries, and the tests hold
every answer against these."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.models import State

Count = Annotated[int, Meta(ge=0)]
TaskId = Annotated[str, Meta(examples=["01a20d7308f71018f81f2a000000"])]
ClientId = Annotated[str, Meta(examples=["my-service-123"])]
Queue = Annotated[str, Meta(examples=["default"])]


class Error(Struct):
    """Every error; some have further members."""

    error: Annotated[str, Meta(description="short and stable, for scripts", examples=["Invalid body"])]
    message: Annotated[
        str, Meta(description="what is wrong and what would be right", examples=["$.task.url: is missing"])
    ]


class Limit(Struct):
    """A policy's two numbers."""

    max_concurrent: Annotated[int, Meta(ge=1, examples=[3])]
    requests_per_min: Annotated[int, Meta(ge=1, examples=[50])]


class Enqueued(Struct):
    """The task that Redis has now, or had already under this idempotency key."""

    status: Literal["enqueued", "duplicate"]
    task_id: TaskId
    queue: Queue
    client_id: ClientId
    rate_limit: Annotated[Limit, Meta(description="the policy that was applied")]


class BatchItem(Struct):
    """What became of one task of a batch: a task id, or an error."""

    status: Annotated[int, Meta(examples=[201])]
    task_id: TaskId | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    retry_after: Annotated[int, Meta(ge=1, description="seconds")] | UnsetType = UNSET


class BatchResult(Struct):
    """What became of each task, in order."""

    results: list[BatchItem]
    accepted: Count
    rejected: Count


class TaskAttempt(Struct):
    """The last call of a task: an HTTP status, or the error that kept it from one."""

    status: int | None
    error: str | None
    started_at: datetime | None
    duration_ms: float
    body: Annotated[str | None, Meta(description="the first 4 KiB, as text")]


class Task(Struct):
    """A task, and how it stands."""

    task_id: TaskId
    client_id: ClientId
    queue: Queue
    state: State
    attempts: Count
    max_retry: Count
    created_at: datetime
    run_at: datetime | None
    next_attempt_at: datetime | None
    finished_at: datetime | None
    last_attempt: TaskAttempt | None
    reason: Annotated[str | None, Meta(description="why a task is dead")]
    labels: Annotated[list[str], Meta(description="where it has some", examples=[["order-4711"]])] | UnsetType = UNSET


class Explanation(Struct):
    """What holds a task now."""

    task_id: TaskId
    client_id: ClientId
    queue: Queue
    state: State
    constraint: Literal[
        "not_due",
        "waiting_to_retry",
        "retry_after",
        "paused",
        "no_dispatcher",
        "concurrency",
        "behind",
        "starting",
        "running",
        "ended",
    ]
    message: Annotated[str, Meta(description="the same in words")]
    since: Annotated[datetime | None, Meta(description="as far as it is known")]
    until: Annotated[datetime | None, Meta(description="where it is certain")]
    in_flight: Annotated[Count, Meta(description="the client's calls, over all replicas")]
    max_concurrent: Annotated[int, Meta(description="its bound on them, or the task's own")]
    blocking: Annotated[list[str], Meta(description="with `concurrency`, the first tasks in flight")]


class Replica(Struct):
    """A process of the gateway, as it last told."""

    name: str
    version: str
    role: Literal["all", "api", "dispatcher", "admin"]
    started_at: datetime
    seen_at: datetime
    uptime: Annotated[Count, Meta(description="seconds")]
    in_flight: Count
    max_in_flight: Count
    lanes: Annotated[Count, Meta(description="clients with work in this process")]


class Replicas(Struct):
    """The processes that were seen lately."""

    replicas: list[Replica]


class Usage(Struct):
    """A client's policy and what it has used of it."""

    client_id: ClientId
    tier: str
    rate_limit: Limit
    source: Literal["client", "tier", "default"]
    current_usage: Count
    remaining: Count
    reset: Annotated[int, Meta(ge=0, description="seconds until something of the window frees")]
    in_flight: Count
    queued: Count


class Health(Struct):
    """Redis answers, and so does this process."""

    status: Literal["ok"]
    redis: str
    version: str
    in_flight: Count


class Alive(Struct):
    """The process serves."""

    status: Literal["ok"]


class Client(Struct):
    """A client's settings."""

    client_id: ClientId
    tier: Annotated[str, Meta(examples=["premium"])]
    rate_limit: Limit
    allowed_queues: Annotated[list[str] | None, Meta(description="null: all")]
    enabled: bool
    created_at: datetime
    updated_at: datetime
    source: Annotated[Literal["client", "tier"], Meta(description="whose numbers `rate_limit` shows")]
    allowed_hosts: (
        Annotated[list[str], Meta(description="all that its tasks may call; absent: no such list")] | UnsetType
    ) = UNSET


class Clients(Struct):
    """All clients, or a page of them, by id."""

    clients: list[Client]
    count: Annotated[Count, Meta(description="all that match, not only those of the page")]
    next_cursor: Annotated[str | None, Meta(description="null on the last page")] | UnsetType = UNSET


class Change(Struct):
    """What an operator did."""

    id: str
    at: datetime
    action: Annotated[str, Meta(examples=["set"])]
    client_id: str | None
    queue: str | None
    address: Annotated[str, Meta(description="where it came from")]
    key: Annotated[str | None, Meta(description="which key it showed; null: none is set")]
    request_id: str
    before: Annotated[dict[str, Any] | None, Meta(description="a client's settings, or the id of a signing secret")]
    after: dict[str, Any] | None
    tasks: Annotated[int | None, Meta(description="to how many it was done")]


class Changes(Struct):
    """A page of the audit log, newest first."""

    entries: list[Change]
    next_cursor: Annotated[str | None, Meta(description="null on the last page")]


class QueueFigures(Struct):
    """How a queue stands at this moment."""

    queue: Queue
    paused: bool
    queued: Count
    in_flight: Count
    oldest_waiting: Annotated[float | None, Meta(description="seconds; null: none waits")]


class Recent(Struct):
    """What became of tasks of late."""

    seconds: int
    ended: Count
    dead: Count


class Figures(Struct):
    """How a client stands at this moment."""

    client_id: ClientId
    tier: str
    rate_limit: Limit
    paused: Annotated[bool, Meta(description="whether none of its queues starts anything")]
    paused_queues: Annotated[list[str], Meta(description="those that are paused one by one")]
    current_usage: Annotated[Count, Meta(description="requests admitted in the window")]
    remaining: Annotated[Count, Meta(description="what is left of the window")]
    in_flight: Annotated[Count, Meta(description="calls open, over all replicas")]
    queued: Count
    queued_bytes: Annotated[Count, Meta(description="of all that waits or runs")]
    oldest_waiting: Annotated[
        float | None, Meta(description="seconds for which the task has been due that waits longest")
    ]
    scheduled: Annotated[Count, Meta(description="delayed tasks and retries")]
    dead: Count
    recent: Recent
    error_rate: Annotated[float | None, Meta(description="the share of dead among those of late; null: none ended")]
    queues: list[QueueFigures]


class ActiveClients(Struct):
    """A page of clients that have tasks, or had some lately."""

    clients: list[Figures]
    next_cursor: Annotated[str | None, Meta(description="null on the last page")]


class PurgedQueue(Struct):
    """How many tasks were cancelled."""

    client_id: ClientId
    queue: Queue
    tasks: Count


class SigningSecret(Struct):
    """What signs a client's deliveries, without itself."""

    secret_id: Annotated[str, Meta(pattern="^sec_[0-9a-f]{8}$")]
    created_at: datetime


class SigningSecrets(Struct):
    """A client's, oldest first; none: its deliveries are not signed."""

    client_id: ClientId
    secrets: list[SigningSecret]


class NewSigningSecret(SigningSecret):
    """The one answer that shows the secret."""

    client_id: ClientId
    secret: Annotated[str, Meta(pattern="^whsec_", description="for the receiver, as Standard Webhooks writes it")]


class ClientKey(Struct):
    """A client's key, without itself."""

    key_id: Annotated[str, Meta(pattern="^key_[0-9a-f]{8}$")]
    created_at: datetime


class ClientKeys(Struct):
    """A client's, oldest first."""

    client_id: ClientId
    required: Annotated[bool, Meta(description="whether the client needs one; without any it is closed then")]
    keys: list[ClientKey]


class NewClientKey(ClientKey):
    """The one answer that shows the key."""

    client_id: ClientId
    key: Annotated[str, Meta(pattern="^gwk_", description="for the client, which sends it with each request")]


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


class Session(Struct):
    """Who asks."""

    key: Annotated[str | None, Meta(description="the name of the key; null: the gateway has none")]
    role: Literal["read", "operate", "admin"]
    expires_at: Annotated[datetime | None, Meta(description="of a browser's session; it is renewed while it is used")]


class Tiers(Struct):
    """Every tier by name."""

    tiers: dict[str, Limit]


class Tier(Limit):
    """A tier."""

    name: Annotated[str, Meta(examples=["gold"])]
    source: Annotated[
        Literal["stored", "file", "shipped"], Meta(description="by an operator, from TIERS_FILE, or as shipped")
    ]
