"""What the layers hand each other: values without I/O. Wire bodies are decoded in `gateway.api`, stored forms are
laid out in `gateway.store`; both use these."""

import enum
from datetime import datetime
from typing import Literal

import msgspec

CLIENT_ID_PATTERN = r"^[A-Za-z0-9_-]{3,64}$"
QUEUE_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
LABEL_PATTERN = r"^[A-Za-z0-9_.:/@=+-]{1,64}$"
MOST_LABELS = 8
DEFAULT_TIER = "default"
DEFAULT_QUEUE = "default"
DEFAULT_MAX_RETRY = 5
DEFAULT_TIMEOUT = 1800  # seconds

Source = Literal["client", "tier", "default"]


class RateLimit(msgspec.Struct, frozen=True, gc=False):
    """A policy's two numbers: calls in flight at once, admitted requests in any 60 s."""

    max_concurrent: int
    requests_per_min: int


class Client(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's settings, as `client_config:{id}` keeps them and the operators' API shows them.

    ``rate_limit`` is filled in; ``source`` says whether it is the client's own ("client") or its tier's ("tier"), in
    which case `gateway.store.clients` replaces it with the tier's present one on every read. ``allowed_queues`` of
    None means all. ``allowed_hosts``, entries of `gateway.dispatch.allowed`, is there only where it is set.
    """

    client_id: str
    tier: str
    rate_limit: RateLimit
    allowed_queues: tuple[str, ...] | None
    enabled: bool
    created_at: datetime
    updated_at: datetime
    source: Literal["client", "tier"]
    allowed_hosts: tuple[str, ...] | None = None


class Unshown(msgspec.Struct, frozen=True):
    """What carries a task's headers and body: shown by the name of its kind, wherever a log or a traceback shows it."""

    def __repr__(self) -> str:
        """Without any of its values."""
        return f"<{type(self).__name__}>"


class Task(Unshown, frozen=True, gc=False):
    """One task as it is asked for, valid by itself.

    ``delay`` and ``run_at`` exclude each other; ``run_at`` and ``expires_at`` are Unix ms, 0: none; ``delay`` and
    ``timeout`` are seconds. ``headers`` are what the caller gave; what the gateway adds is added by the sender.
    ``labels`` are what operators find the task by.
    """

    queue: str
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    delay: float = 0
    run_at: int = 0
    expires_at: int = 0
    cost: int = 1
    max_retry: int = DEFAULT_MAX_RETRY
    timeout: float = DEFAULT_TIMEOUT
    idempotency_key: str | None = None
    labels: tuple[str, ...] = ()


class TaskSpec(Unshown, frozen=True, gc=False):
    """One accepted-to-be task: what `store.tasks.admit` stores.

    ``bound`` is the override's ``max_concurrent``, 0 where the client's limit holds. ``fingerprint`` identifies queue,
    url, method, headers and body for the idempotency check. ``trace`` is its trace context, as
    `gateway.tracing.context` joins it.
    """

    task: Task
    requests_per_min: int
    bound: int = 0
    fingerprint: bytes = b""
    trace: str = ""


class Window(msgspec.Struct, frozen=True, gc=False):
    """A client's window as a script saw it: ``used`` of it, ``reset`` seconds until something of it frees (0: unused).
    ``now`` is Redis's clock in Unix seconds."""

    used: int
    reset: int
    now: float


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """Stored. ``created``: this request also created its client. ``scheduled``: it waits for its time. ``claimed``:
    what the client may start was claimed in the same step."""

    task_id: str
    window: Window
    created: bool = False
    scheduled: bool = False
    claimed: bool = False


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """The idempotency key was used within its time for the same task."""

    task_id: str
    window: Window


class KeyConflict(msgspec.Struct, frozen=True, gc=False):
    """The idempotency key was used within its time for a different task."""

    task_id: str
    window: Window


class RateLimited(msgspec.Struct, frozen=True, gc=False):
    """The window has no room. ``retry_after``: whole seconds until this request's cost fits, if nobody else comes."""

    window: Window
    retry_after: int


class QueueFull(msgspec.Struct, frozen=True):
    """The client has too many tasks waiting (``what`` "tasks") or too many bytes of them ("bytes")."""

    window: Window
    what: Literal["tasks", "bytes"]


class GatewayFull(msgspec.Struct, frozen=True):
    """All clients together have too many tasks waiting (``what`` "tasks") or too many bytes of them ("bytes")."""

    window: Window
    what: Literal["tasks", "bytes"]


class TooManyQueues(msgspec.Struct, frozen=True):
    """The client already uses as many queues as it may."""

    window: Window


class TooManyClients(msgspec.Struct, frozen=True):
    """The client is unknown and the gateway knows as many as it may."""

    window: Window


Admission = Admitted | Duplicate | KeyConflict | RateLimited | QueueFull | GatewayFull | TooManyQueues | TooManyClients


class State(enum.StrEnum):
    """A task's state, as the API words it."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt went: ``status`` of the answer, or ``error`` where there was none; ``body`` is its first 4 KiB.
    ``started_at`` is Unix milliseconds. ``retry_after``: the seconds the target asked for, where the task waits them
    out."""

    status: int | None
    error: str | None
    started_at: int
    duration_ms: float
    body: str | None
    retry_after: float | None = None


class Verdict(enum.StrEnum):
    """What an attempt's result means for its task."""

    DELIVERED = "delivered"  # 2xx: succeeded
    RETRY = "retry"  # may work later, if retries are left
    REFUSED = "refused"  # will not work however often it is tried: dead


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender returns for one attempt.

    ``reason`` is a short stable text for a dead letter ("http 404", "connection refused", "timeout", "target not
    allowed: …"); ``retry_after`` the seconds the target asked for, if it did.
    """

    verdict: Verdict
    attempt: Attempt
    reason: str
    retry_after: float | None = None


class ClaimedTask(Unshown, frozen=True, kw_only=True):
    """A task this process has claimed and must finish or hand back.

    ``entry`` and ``fence`` identify the claim (stream entry id, delivery count). ``attempt`` is 1 for the first call
    and counts calls that died with their dispatcher; ``failures`` counts attempts that had an outcome (what
    ``max_retry`` bounds). ``due_at`` is when it became due, Unix ms by Redis's clock, ``claimed_at`` when it was
    claimed. ``stored`` is the store's own. ``unreadable`` is why it can't be called: it is sealed, and its key is gone.
    """

    task_id: str
    client_id: str
    queue: str
    entry: str
    fence: int
    attempt: int
    failures: int
    max_retry: int
    timeout: float
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    due_at: int
    claimed_at: int
    trace: str = ""
    stored: object = None
    unreadable: str | None = None

    @property
    def suspect(self) -> bool:
        """Whether dispatchers died under it more than once: it may be what kills them."""
        return self.attempt - self.failures > 2


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as `GET /v1/tasks/{id}` tells it; times are Unix ms, None where there is none."""

    task_id: str
    client_id: str
    queue: str
    state: State
    attempts: int
    max_retry: int
    created_at: int
    run_at: int | None
    next_attempt_at: int | None
    finished_at: int | None
    last_attempt: Attempt | None
    reason: str | None
    labels: tuple[str, ...] = ()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A task and what stands before it: its client's calls in flight and its bound on them, how many tasks are ahead of
    it in its queue (``more``: at least so many), and (some of) those in flight.

    ``due_at``: since when it may start. ``paused``, ``full``: since when it is paused, and its client at its limit. All
    in Unix ms; None: it is not, 1: since when is not known.
    """

    view: TaskView
    due_at: int | None
    paused: int | None
    full: int | None
    in_flight: int
    bound: int
    ahead: int
    more: bool
    holders: list[str]


class TaskDetail(msgspec.Struct, frozen=True, kw_only=True):
    """All that operators may see of one task. Times are Unix ms.

    ``bound``: its own on its client's calls in flight, None where the client's holds. ``history``: its attempts as far
    as they are kept, oldest first. ``trace``: its trace context, "" where it has none.
    """

    view: TaskView
    method: str
    url: str
    due_at: int | None
    expires_at: int | None
    bound: int | None
    timeout: float
    size: int
    history: list[Attempt]
    trace: str = ""


WAITING = frozenset({State.QUEUED, State.SCHEDULED, State.RETRYING})


class Usage(msgspec.Struct, frozen=True):
    """A client's figures of this moment.

    ``oldest_waiting``: for how many seconds the task has been due that waits longest, None where none waits;
    ``oldest_task`` is its id.
    ``paused``: the queues that start nothing, "" for all of them.
    """

    window: Window
    in_flight: int
    queued: int
    scheduled: int
    dead: int
    oldest_waiting: float | None = None
    oldest_task: str | None = None
    paused: frozenset[str] = frozenset()
