"""What operators do with tasks: those that wait, those that were given up."""

from typing import Final

from gateway.admin.dead import PAGE_MAX as DEAD_MAX
from gateway.openapi import answers
from gateway.openapi.operation import CLIENT, MOMENT, Answer, Operation, Parameter, of_one_task

_DEAD: Final = (
    CLIENT,
    Parameter("task_id", {"type": "string"}, "only this one"),
    Parameter("error", {"type": "string"}, "only those whose reason or error has this in it, or whose status it is"),
    Parameter("after", MOMENT, "only those that died then or later"),
    Parameter("before", MOMENT, "only those that died earlier"),
)

STEERING: Final = (
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
    *of_one_task("/admin", 401, 403),
)
