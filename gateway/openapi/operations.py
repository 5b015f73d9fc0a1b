"""Every call of the API: where it is, what it takes, what it answers. Bodies are the types that the handlers decode."""

from typing import Final

from gateway.api.bodies import BatchBody, EnqueueBody
from gateway.openapi import answers
from gateway.openapi.figures import FIGURES
from gateway.openapi.operation import BODY, CLIENT, OPTIONAL, TEXT, Answer, Operation, Parameter, of_one_task
from gateway.openapi.operators import ADMINISTRATION
from gateway.openapi.steering import STEERING

_IN_HEADER: Final = Parameter("X-Client-ID", OPTIONAL, "instead of `client_id` in the body", "header")
_KEY: Final = Parameter(
    "Idempotency-Key", {"type": "string", "pattern": "^[!-~]{0,255}$"}, "instead of `idempotency_key`", "header"
)

_TRACE: Final = tuple(
    Parameter(
        name, {"type": "string", "examples": [example]}, "W3C Trace Context; each attempt carries it on", "header"
    )
    for name, example in (
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=value"),
    )
)

OPERATIONS: Final = (
    Operation(
        "post",
        "/v1/enqueue",
        "Have an HTTP call made for a client, now or later",
        {
            201: Answer("Redis has the task", answers.Enqueued),
            200: Answer("Redis had it already under this idempotency key", answers.Enqueued),
        },
        (*BODY, 401, 403, 409, 429, 503),
        (_IN_HEADER, _KEY, *_TRACE),
        EnqueueBody,
        limited=True,
    ),
    Operation(
        "post",
        "/v1/enqueue/batch",
        "The same for up to 1,000 tasks, each judged by itself",
        {
            201: Answer("All were accepted", answers.BatchResult),
            207: Answer("Some were not; each has a status", answers.BatchResult),
        },
        (*BODY, 401, 503),
        (_IN_HEADER, *_TRACE),
        BatchBody,
        limited=True,
    ),
    *of_one_task("/v1", answers.Task, answers.Task, 401),
    Operation(
        "get",
        "/v1/rate-limit",
        "A client's policy and what it has used of it; consumes nothing",
        {200: Answer("Policy and use", answers.Usage)},
        (400, 401, 404, 503),
        (CLIENT,),
        limited=True,
    ),
    Operation("get", "/health", "Whether Redis answers", {200: Answer("It does", answers.Health)}, (503,)),
    Operation("get", "/readyz", "Whether to send requests here", {200: Answer("It is ready", answers.Health)}, (503,)),
    Operation("get", "/livez", "Whether the process serves", {200: Answer("It does", answers.Alive)}),
    Operation("get", "/metrics", "Prometheus's text format", {200: Answer("All metrics", TEXT)}),
    *ADMINISTRATION,
    *STEERING,
    *FIGURES,
)
