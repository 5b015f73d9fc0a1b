"""The calls that tell how everything stands and what happened, and the shapes of their answers."""

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from gateway.admin.usage import MINUTES_MAX, PAGE_MAX
from gateway.models import CLIENT_ID_PATTERN
from gateway.openapi.answers import ClientId, Count, Limit, Queue, Replica, TaskId
from gateway.openapi.operation import Answer, Operation, Parameter, Schema

Seconds = Annotated[float, Meta(ge=0)]
# In a query an empty text is none.
_MOMENT: Final[Schema] = {"anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}]}
Tier = Annotated[str | None, Meta(description="null: the client has no settings any more")]


class UsageSum(Struct):
    """What happened in a stretch of time."""

    admitted: Annotated[Count, Meta(description="tasks accepted")]
    refused: Annotated[Count, Meta(description="requests refused by the window")]
    delivered: Annotated[Count, Meta(description="calls answered with 2xx")]
    failed: Annotated[Count, Meta(description="calls that ended otherwise; each try counts")]
    duration_p50: Annotated[Seconds | None, Meta(description="seconds, of all calls; null: there were none")]
    duration_p95: Seconds | None


class UsagePoint(UsageSum):
    """What happened in the minute or hour that began then."""

    at: datetime


class UsageSteps(Struct, rename={"from_": "from"}):
    """Every minute or hour of the stretch."""

    client_id: Annotated[str | None, Meta(description="null: all clients in sum")]
    step: Literal["minute", "hour"]
    from_: Annotated[datetime, Meta(description="included")]
    to: Annotated[datetime, Meta(description="not included")]
    points: list[UsagePoint]
    total: UsageSum


class Candidate(Struct):
    """A client that its tier is too small for."""

    client_id: ClientId
    tier: Tier
    rate_limit: Limit | None
    refused_minutes: Annotated[int, Meta(ge=1, le=MINUTES_MAX, description="of the last day")]
    refused: Count
    admitted: Count
    next_tier: Annotated[str | None, Meta(description="the smallest that has room for more; null: there is none")]


class Candidates(Struct):
    """Those that were refused in more than `minutes` minutes, most first."""

    minutes: Count
    since: datetime
    candidates: list[Candidate]
    count: Annotated[Count, Meta(description="all of them, not only those listed")]


class Totals(Struct):
    """Tasks by state."""

    queued: Count
    scheduled: Count
    in_flight: Count
    dead: Count


class ClientCounts(Struct):
    """Clients by state."""

    known: Count
    enabled: Count
    disabled: Count
    active: Annotated[Count, Meta(description="those whose tasks wait or run")]


class TierCounts(Struct):
    """The clients of one tier."""

    tier: str
    clients: Count
    enabled: Count
    price: Annotated[float | None, Meta(description="as TIERS_FILE has it; null: it has none")]
    revenue: Annotated[float | None, Meta(description="the price times the enabled clients")]


class RefusedClient(Struct):
    """One of those that were refused most in the last hour."""

    client_id: ClientId
    tier: Tier
    refused: Count
    admitted: Count


class FailedClient(Struct):
    """One of those whose calls failed most in the last hour."""

    client_id: ClientId
    tier: Tier
    failed: Count
    delivered: Count


class FailedStatus(Struct):
    """Failed calls by their status."""

    status: Annotated[str, Meta(description="or the kind of error, where there was no answer", examples=["503"])]
    count: Count


class FailedHost(Struct):
    """Failed calls by their target."""

    host: Annotated[str, Meta(examples=["api.example.com"])]
    count: Count


class FailureCounts(Struct):
    """What failed in the last hour, most first, at most ten of each."""

    by_status: list[FailedStatus]
    by_host: list[FailedHost]


class WaitingClient(Totals):
    """One of those whose tasks wait longest."""

    client_id: ClientId
    seconds: Annotated[Seconds, Meta(description="for which its oldest task has been due")]


class OldestTask(Struct):
    """The task that waits longest, and why."""

    client_id: ClientId
    task_id: TaskId
    queue: Queue
    constraint: str
    message: str
    since: datetime | None
    seconds: Seconds


class LimitUse(Struct):
    """How far clients use one of their limits."""

    limit: Literal["concurrency", "window", "depth"]
    highest: Annotated[float, Meta(ge=0, description="the largest share that any client has used; 1 is all")]
    at_limit: Annotated[Count, Meta(description="clients that have used it up")]


class Saturation(Struct):
    """How far limits are used."""

    in_flight: Count
    max_in_flight: Annotated[Count, Meta(description="of all processes that make calls")]
    waiting: Annotated[Count, Meta(description="queued, scheduled and in flight: what MAX_QUEUED bounds")]
    max_queued: Count
    clients: list[LimitUse]


class RedisHealth(Struct):
    """What Redis says of itself; on a Cluster, one node."""

    ok: bool
    server: Literal["redis", "valkey"]
    version: str
    latency_ms: Seconds
    memory_used_bytes: Count
    memory_max_bytes: Annotated[Count, Meta(description="0: no bound")]
    persistence: Literal["aof", "rdb", "none"]
    persistence_ok: Annotated[bool, Meta(description="whether the last write to disk worked")]
    role: str
    connected_replicas: Count


class RedisReplica(Struct):
    """A replica, as its primary sees it."""

    address: str
    state: str
    lag: Annotated[int, Meta(description="seconds")]


class RedisNode(RedisHealth):
    """A server that has the data, or a part of it."""

    address: str
    uptime: Annotated[Count, Meta(description="seconds")]
    connections: Count
    commands_per_second: Count
    keys: Annotated[Count, Meta(description="of all its databases")]
    memory_peak_bytes: Count
    memory_policy: Annotated[str, Meta(examples=["noeviction"])]
    fragmentation: float
    last_save: Annotated[datetime | None, Meta(description="of a snapshot")]
    loading: bool
    replicas: list[RedisReplica]


class RedisNodes(Struct):
    """The servers that have the data."""

    topology: Literal["embedded", "single", "sentinel", "cluster"]
    nodes: list[RedisNode]
    unreachable: Annotated[list[str], Meta(description="those that did not answer")]


class Overview(Struct):
    """How everything stands."""

    at: Annotated[datetime, Meta(description="when the figures of all clients were read, some seconds ago")]
    sampled: Annotated[bool, Meta(description="whether there are too many clients to read all of them at once")]
    totals: Totals
    clients: ClientCounts
    tiers: list[TierCounts]
    upgrade_candidates: Count
    minutes: Annotated[list[UsagePoint], Meta(min_length=60, max_length=60)]
    last_hour: UsageSum
    refused_most: list[RefusedClient]
    failed_most: list[FailedClient]
    failures: FailureCounts
    waiting_longest: list[WaitingClient]
    oldest_waiting: OldestTask | None
    saturation: Saturation
    replicas: list[Replica]
    redis: RedisHealth


FIGURES: Final = (
    Operation(
        "get",
        "/admin/redis",
        "The Redis servers, each as it says itself",
        {200: Answer("Those that answer", RedisNodes)},
        (400, 401, 403, 503),
    ),
    Operation(
        "get",
        "/admin/overview",
        "How everything stands, for the first page of a dashboard",
        {200: Answer("All of it", Overview)},
        (401, 403, 503),
    ),
    Operation(
        "get",
        "/admin/usage",
        "What a client did, or all of them in sum, by minute for a day and by hour for 90 days",
        {200: Answer("Every step of the stretch", UsageSteps)},
        (400, 401, 403, 503),
        (
            Parameter("client_id", {"type": "string", "pattern": f"^$|{CLIENT_ID_PATTERN}"}, "whose; none: all in sum"),
            Parameter("from", _MOMENT, "default: an hour, or with hours a day, ago"),
            Parameter("to", _MOMENT, "default: now"),
            Parameter("step", {"enum": ["minute", "hour"]}, "default: minute"),
        ),
    ),
    Operation(
        "get",
        "/admin/upgrade-candidates",
        "Clients that were refused again and again in the last day",
        {200: Answer("The first of them", Candidates)},
        (400, 401, 403, 503),
        (
            Parameter(
                "minutes",
                {"type": "integer", "minimum": 0, "maximum": MINUTES_MAX},
                "refused in more minutes than this; default 10",
            ),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}, "clients; default 50"),
        ),
    ),
)
