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


class Session(Struct):
    """Who asks."""

    key: Annotated[str | None, Meta(description="the name of the key; null: the gateway has none")]
    role: Literal["read", "operate", "admin"]
    expires_at: Annotated[datetime | None, Meta(description="of a browser's session; it is renewed while it is used")]


Source = Annotated[
    Literal["stored", "file", "shipped"], Meta(description="by an operator, from TIERS_FILE, or as shipped")
]


class ListedTier(Limit):
    """A tier, without its name."""

    price: Annotated[float, Meta(ge=0, description="where it has one")] | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    clients: Annotated[int, Meta(ge=0, description="with figures=true, as in the overview")] | UnsetType = UNSET
    enabled: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    revenue: Annotated[float, Meta(ge=0, description="price times enabled clients")] | UnsetType = UNSET


class Tiers(Struct):
    """Every tier by name."""

    tiers: dict[str, ListedTier]


class Tier(Limit):
    """A tier."""

    name: Annotated[str, Meta(examples=["gold"])]
    source: Source
    price: Annotated[float, Meta(ge=0, description="where it has one")] | UnsetType = UNSET
