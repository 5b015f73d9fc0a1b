"""What operators set and look at: clients, tiers, signing secrets, the processes there are, the audit log."""

from typing import Final

from gateway.admin.clients import PAGE_MAX, SetBody
from gateway.admin.flow import ACTIVE_MAX
from gateway.admin.session import LoginBody
from gateway.admin.tiers import TierBody
from gateway.models import QUEUE_PATTERN
from gateway.openapi import answers, task_answers
from gateway.openapi.client_secrets import CLIENT_SECRETS
from gateway.openapi.operation import BODY, CLIENT, OPTIONAL, QUEUE, TRUTH, Answer, Operation, Parameter

_TIER: Final = Parameter(
    "name", {"type": "string", "pattern": QUEUE_PATTERN, "examples": ["gold"]}, "which", "path", True
)

ADMINISTRATION: Final = (
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
            Parameter("cursor", OPTIONAL, "the `next_cursor` of the page before"),
            Parameter("tier", {"type": "string"}, "only those of this tier"),
            Parameter("enabled", TRUTH, "only those that are, or are not"),
            Parameter("search", {"type": "string"}, "only those whose id has this in it, in any case of letters"),
        ),
    ),
    Operation(
        "delete",
        "/admin/clients/delete",
        "Remove a client's settings, whether there are any or not",
        {204: Answer("There are none now")},
        (400, 401, 403, 503),
        (CLIENT, Parameter("cancel_tasks", TRUTH, "cancel what waits, too; default false")),
    ),
    *(
        Operation(
            "post",
            f"/admin/clients/{action}",
            summary,
            {200: Answer("How the client stands now", answers.Figures)},
            (400, 401, 403, 404, 503),
            (CLIENT, Parameter("queue", QUEUE, "only this queue; none: all of them")),
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
    Operation(
        "get",
        "/admin/clients/active",
        "How those clients stand that have tasks, or had some lately",
        {200: Answer("A page of them", answers.ActiveClients)},
        (400, 401, 403, 503),
        (
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": ACTIVE_MAX}, "clients a page; default 50"),
            Parameter("cursor", {"type": "string"}, "the `next_cursor` of the page before"),
        ),
    ),
    Operation(
        "post",
        "/admin/queues/purge",
        "Cancel what waits in a queue, delayed and retrying tasks included",
        {200: Answer("How many", task_answers.PurgedQueue)},
        (400, 401, 403, 503),
        (
            CLIENT,
            Parameter(
                "queue", {"type": "string", "pattern": QUEUE_PATTERN, "examples": ["default"]}, "which", "query", True
            ),
        ),
    ),
    *CLIENT_SECRETS,
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
            Parameter("cursor", {"type": "string", "pattern": r"^$|^\d{1,19}-\d{1,19}$"}, "the `next_cursor` before"),
            Parameter("client_id", {"type": "string"}, "only what was done to it"),
            Parameter("action", {"type": "string"}, "only this, as `set` or `pause`"),
            Parameter("key_name", {"type": "string"}, "only what was done with the key of this name"),
        ),
    ),
    Operation("get", "/admin/session", "Who asks", {200: Answer("Key and role", answers.Session)}, (401, 403, 503)),
    Operation(
        "post",
        "/admin/session",
        "Log a browser in; scripts send X-Admin-Key instead",
        {200: Answer("A cookie stands for the key from now on", answers.Session)},
        (*BODY, 401, 403, 409, 503),
        (Parameter("X-Requested-With", {"type": "string"}, "anything; shows that no other page sends it", "header"),),
        LoginBody,
    ),
    Operation("delete", "/admin/session", "Log it out", {204: Answer("It is no more")}, (401, 403, 503)),
    Operation(
        "get",
        "/admin/tiers",
        "The tiers",
        {200: Answer("Every tier by name", answers.Tiers)},
        (400, 401, 403, 503),
        (Parameter("figures", {"type": "boolean", "default": False}, "also where each is from, and its clients"),),
    ),
    Operation(
        "put",
        "/admin/tiers/{name}",
        "Store a tier, which goes before one of TIERS_FILE or a shipped one of that name",
        {200: Answer("It holds for each of its clients, on every replica", answers.Tier)},
        (*BODY, 401, 403, 503),
        (_TIER,),
        TierBody,
    ),
    Operation(
        "delete",
        "/admin/tiers/{name}",
        "Remove a stored tier that no client is of",
        {
            200: Answer("What holds in its place, from TIERS_FILE or as shipped", answers.Tier),
            204: Answer("There is none of this name any more"),
        },
        (400, 401, 403, 404, 409, 503),
        (_TIER,),
    ),
)
