"""Every call of the API: where it is, what it takes, what it answers. Bodies are the types that the handlers decode."""

from typing import Final

from gateway.admin.clients import PAGE_MAX, SetBody
from gateway.admin.dead import PAGE_MAX as DEAD_MAX
from gateway.admin.session import LoginBody
from gateway.api.bodies import BatchBody, EnqueueBody
from gateway.models import CLIENT_ID_PATTERN, QUEUE_PATTERN
from gateway.openapi import answers
from gateway.openapi.client_secrets import CLIENT_SECRETS
from gateway.openapi.operation import BODY, CLIENT, CLIENT_ID, TEXT, Answer, Operation, Parameter, Schema

# In a header or a cursor an empty text is none.
_OPTIONAL: Final[Schema] = {**CLIENT_ID, "pattern": f"^$|{CLIENT_ID_PATTERN}"}
_TASK_ID: Final = Parameter(
    "task_id", {"type": "string", "examples": ["01a20d7308f71018f81f2a000000"]}, "as enqueue answered it", "path", True
)
_IN_HEADER: Final = Parameter("X-Client-ID", _OPTIONAL, "instead of `client_id` in the body", "header")
_KEY: Final = Parameter(
    "Idempotency-Key", {"type": "string", "pattern": "^[!-~]{0,255}$"}, "instead of `idempotency_key`", "header"
)
_QUEUE: Final[Schema] = {"type": "string", "pattern": f"^$|{QUEUE_PATTERN}"}
_TRUTH: Final[Schema] = {"enum": ["true", "false"]}
_MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
_DEAD: Final = (
    CLIENT,
    Parameter("task_id", {"type": "string"}, "only this one"),
    Parameter("error", {"type": "string"}, "only those whose reason or error has this in it, or whose status it is"),
    Parameter("after", _MOMENT, "only those that died then or later"),
    Parameter("before", _MOMENT, "only those that died earlier"),
)


def _of_one_task(root: str, *refusals: int) -> tuple[Operation, ...]:
    """The same for clients and for operators."""
    path = f"{root}/tasks/{{task_id}}"
    named = (_TASK_ID, CLIENT)
    return (
        Operation(
            "get",
            path,
            "How a task stands",
            {200: Answer("The task", answers.Task)},
            (400, 404, 503, *refusals),
            named,
        ),
        Operation(
            "delete",
            path,
            "Cancel a task that has not started",
            {200: Answer("The task, cancelled", answers.Task)},
            (400, 404, 409, 503, *refusals),
            named,
        ),
        Operation(
            "get",
            f"{path}/explain",
            "Why a task is where it is",
            {200: Answer("What holds it now", answers.Explanation)},
            (400, 404, 503, *refusals),
            named,
        ),
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
        (_IN_HEADER, _KEY),
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
        (_IN_HEADER,),
        BatchBody,
        limited=True,
    ),
    *_of_one_task("/v1", 401),
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
    *(
        Operation(
            method,
            "/admin/clients/set",
            "Create or change a client; what is left out keeps its value",
            {200: Answer("The whole client", answers.Client)},
            (*BODY, 401, 403, 503),
            (),
            SetBody,
        )
        for method in ("post", "put")
    ),
    Operation(
        "get",
        "/admin/clients/get",
        "One client",
        {200: Answer("The client", answers.Client)},
        (400, 401, 403, 404, 503),
        (CLIENT,),
    ),
    Operation(
        "get",
        "/admin/clients",
        "All clients, by id",
        {200: Answer("All, or a page", answers.Clients)},
        (400, 401, 403, 503),
        (
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}, "clients a page; none: all"),
            Parameter("cursor", _OPTIONAL, "the `next_cursor` of the page before"),
            Parameter("tier", {"type": "string"}, "only those of this tier"),
            Parameter("enabled", _TRUTH, "only those that are, or are not"),
        ),
    ),
    Operation(
        "delete",
        "/admin/clients/delete",
        "Remove a client's settings, whether there are any or not",
        {204: Answer("There are none now")},
        (400, 401, 403, 503),
        (CLIENT, Parameter("cancel_tasks", _TRUTH, "cancel what waits, too; default false")),
    ),
    *(
        Operation(
            "post",
            f"/admin/clients/{action}",
            summary,
            {200: Answer("How the client stands now", answers.Figures)},
            (400, 401, 403, 404, 503),
            (CLIENT, Parameter("queue", _QUEUE, "only this queue; none: all of them")),
        )
        for action, summary in (
            ("pause", "Start none of a client's waiting tasks; what runs goes on, what is enqueued is accepted"),
            ("resume", "Start them again"),
        )
    ),
    Operation(
        "get",
        "/admin/clients/usage",
        "How a client stands at this moment",
        {200: Answer("Its figures", answers.Figures)},
        (400, 401, 403, 404, 503),
        (CLIENT,),
    ),
    *CLIENT_SECRETS,
    Operation(
        "get",
        "/admin/dead",
        "A client's dead letters, newest first",
        {200: Answer("A page of them", answers.DeadTasks)},
        (400, 401, 403, 503),
        (
            *_DEAD,
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": DEAD_MAX}, "tasks a page; default 50"),
            Parameter("cursor", {"type": "string"}, "the `next_cursor` of the page before"),
        ),
    ),
    Operation(
        "post",
        "/admin/dead/replay",
        "Queue dead letters again, oldest first, as if they had just been enqueued",
        {200: Answer("How many", answers.Done)},
        (400, 401, 403, 503),
        _DEAD,
    ),
    Operation(
        "delete",
        "/admin/dead",
        "Remove dead letters for good",
        {200: Answer("How many", answers.Done)},
        (400, 401, 403, 503),
        _DEAD,
    ),
    *_of_one_task("/admin", 401, 403),
    Operation(
        "get",
        "/admin/replicas",
        "The processes on this Redis",
        {200: Answer("Those that were seen lately", answers.Replicas)},
        (401, 403, 503),
    ),
    Operation(
        "get",
        "/admin/audit",
        "What operators changed, newest first",
        {200: Answer("A page of the audit log", answers.Changes)},
        (400, 401, 403, 503),
        (
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 500}, "entries a page; default 50"),
            Parameter("cursor", {"type": "string", "pattern": r"^$|^\d{1,20}-\d{1,20}$"}, "the `next_cursor` before"),
        ),
    ),
    Operation("get", "/admin/session", "Who asks", {200: Answer("Key and role", answers.Session)}, (401, 403, 503)),
    Operation(
        "post",
        "/admin/session",
        "Log a browser in; scripts send X-Admin-Key instead",
        {200: Answer("A cookie stands for the key from now on", answers.Session)},
        (*BODY, 401, 403, 409),
        (Parameter("X-Requested-With", {"type": "string"}, "anything; shows that no other page sends it", "header"),),
        LoginBody,
    ),
    Operation("delete", "/admin/session", "Log it out", {204: Answer("It is no more")}, (401, 403, 503)),
    Operation("get", "/admin/tiers", "The tiers", {200: Answer("Every tier by name", answers.Tiers)}, (401, 403)),
)
