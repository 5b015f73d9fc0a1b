"""The shape of the enqueue bodies, as msgspec decodes it and the OpenAPI document shows it. What is absent or null is
not written when a body is encoded again (see `gateway.api.decoding`)."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.task_rules import HEADER_NAME, KEY, METHODS, TimingFields, Written
from gateway.models import (
    CLIENT_ID_PATTERN,
    DEFAULT_MAX_RETRY,
    DEFAULT_TIMEOUT,
    LABEL_PATTERN,
    MOST_LABELS,
    QUEUE_PATTERN,
)

BATCH_MAX = 1000

Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]


Label = Annotated[str, Meta(extra_json_schema={"pattern": LABEL_PATTERN})]


class OverrideBody(msgspec.Struct, forbid_unknown_fields=True):
    """`rate_limit`: both numbers, or none."""

    max_concurrent: Annotated[Number, Meta(description="calls in flight at once", examples=[10])]
    requests_per_min: Annotated[Number, Meta(description="requests admitted in any 60 seconds", examples=[200])]


class TaskBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`task`. ``body`` stays as it was written: an object is passed on byte for byte."""

    url: Annotated[
        str,
        Meta(
            description="absolute http(s) URL; with UPSTREAM_URL also a path, joined to its origin",
            examples=["https://api.example.com/webhook"],
        ),
    ]
    method: Annotated[
        str | None, Meta(description="default POST", examples=["POST"], extra_json_schema={"enum": [*METHODS, None]})
    ] = None
    headers: Annotated[
        dict[str, str] | None,
        Meta(
            description="what describes the connection (Host, Content-Length, hop-by-hop) is refused",
            examples=[{"Authorization": "Bearer token123"}],
            extra_json_schema={"propertyNames": {"pattern": f"^{HEADER_NAME}$"}},
        ),
    ] = None
    body: Annotated[
        Written,
        Meta(
            description="a string is sent as it is; an object or array is sent as JSON with its content type",
            examples=['{"event": "user.created"}'],
            extra_json_schema={"type": ["string", "object", "array", "null"]},
        ),
    ] = msgspec.UNSET
    cost: Annotated[Number | None, Meta(description="the same as the task's cost beside it")] = None


class ItemBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An enqueue body without its client, which is what a batch holds."""

    task: TaskBody
    queue: Annotated[
        str | None,
        Meta(
            description="a lane of the client's own; default `default`",
            examples=["default"],
            extra_json_schema={"pattern": QUEUE_PATTERN},
        ),
    ] = None
    delay: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="seconds until it may start", examples=[0])
    ] = None
    run_at: Annotated[
        TimingFields | None,
        Meta(description="an absolute start instead of `delay`; in the past: now", examples=["2030-01-15T10:30:00Z"]),
    ] = None
    expires_at: Annotated[
        TimingFields | None,
        Meta(description="not started by then: dead, reason `expired`", examples=["2030-01-15T11:30:00Z"]),
    ] = None
    rate_limit: Annotated[
        OverrideBody | None, Meta(description="override for this request, up to the operator's ceiling")
    ] = None
    cost: Annotated[
        Number | None, Meta(description="how many requests of the window it counts for; default 1", examples=[1])
    ] = None
    max_retry: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(description=f"retries after the first attempt; default {DEFAULT_MAX_RETRY}", examples=[5]),
    ] = None
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=86400)] | None,
        Meta(description=f"seconds for one attempt, the whole call; default {DEFAULT_TIMEOUT}", examples=[30]),
    ] = None
    idempotency_key: Annotated[
        str | None,
        Meta(
            description="the same key within 24 h answers the first task again",
            examples=["order-4711"],
            extra_json_schema={"pattern": f"^{KEY}$"},
        ),
    ] = None
    labels: Annotated[
        Annotated[list[Label], Meta(max_length=MOST_LABELS)] | None,
        Meta(description="what operators find the task by", examples=[["order-4711", "eu"]]),
    ] = None


ClientIdField = Annotated[
    Written,
    Meta(
        description="may be given as the header X-Client-ID instead",
        examples=["my-service-123"],
        extra_json_schema={"type": ["string", "null"], "pattern": f"^$|{CLIENT_ID_PATTERN}"},  # "": it is missing
    ),
]


class EnqueueBody(ItemBody, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/enqueue`. ``client_id`` is judged by the client middleware, whatever its type."""

    client_id: ClientIdField = msgspec.UNSET


class BatchBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The body of `POST /v1/enqueue/batch`."""

    tasks: Annotated[list[ItemBody], Meta(min_length=1, max_length=BATCH_MAX)]
    client_id: ClientIdField = msgspec.UNSET
