"""What operators do with tasks: those that wait, those that run, those that have ended."""

from typing import Final

from gateway.admin.choosing import PAGE_MAX, STATES_PATTERN, TASK_ID_PATTERN
from gateway.admin.jobs import JobBody
from gateway.middleware.reading import MOMENT_PATTERN
from gateway.openapi import task_answers
from gateway.openapi.operation import BODY, CLIENT, OPTIONAL, QUEUE, TASK_ID, Answer, Operation, Parameter, of_one_task

_MOMENT: Final = {"type": "string", "pattern": f"^$|{MOMENT_PATTERN}"}
_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": 10**10}
_TEXT: Final = {"type": "string", "maxLength": 256}
_ANY_CLIENT: Final = Parameter("client_id", OPTIONAL, "whose; none: all")
_FILTERS: Final = (
    Parameter("queue", QUEUE, "only of this queue"),
    Parameter("task_id", {"type": "string", "pattern": f"^$|{TASK_ID_PATTERN}"}, "only this one"),
    Parameter("host", _TEXT, "only those whose target has this host, with its port or without"),
    Parameter("status", {"type": "integer", "minimum": 100, "maximum": 999}, "of the last attempt"),
    Parameter("label", _TEXT, "only those that have it"),
    Parameter("error", _TEXT, "only those whose reason or error has this in it, or whose status it is"),
    Parameter("min_age", _SECONDS, "seconds since it was enqueued, at least"),
    Parameter("max_age", _SECONDS, "seconds since it was enqueued, at most"),
    Parameter("after", _MOMENT, "only those that ended then or later"),
    Parameter("before", _MOMENT, "only those that ended earlier"),
)
_PAGING: Final = (
    Parameter("order", {"enum": ["newest", "oldest"]}, "within each client and each group of states; default newest"),
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}, "tasks a page; default 50"),
    Parameter("cursor", {"type": "string"}, "the `next_cursor` of the page before"),
)
_STATE: Final = Parameter(
    "state", {"type": "string", "pattern": f"^$|{STATES_PATTERN}"}, "only of these, comma separated; none: all"
)

_JOB_ID: Final = Parameter(
    "job_id",
    {"type": "string", "pattern": "^job_[0-9a-f]{16}$", "examples": ["job_0123456789abcdef"]},
    *("as it was answered", "path", True),
)

STEERING: Final = (
    Operation(
        "get",
        "/admin/tasks",
        "Tasks of all clients, by filter; a page looks at 2,000 of them at most",
        {200: Answer("A page of them", task_answers.TaskPage)},
        (400, 401, 403, 503),
        (_ANY_CLIENT, _STATE, *_FILTERS, *_PAGING),
    ),
    *of_one_task("/admin", task_answers.OperatorsTask, task_answers.DetailedTask, 401, 403),
    *(
        Operation(
            "post",
            f"/admin/tasks/{{task_id}}/{action}",
            summary,
            {200: Answer("The task, queued", task_answers.OperatorsTask)},
            (400, 401, 403, 404, 409, 503),
            (TASK_ID, CLIENT),
        )
        for action, summary in (
            ("run", "Have a scheduled or retrying task start now"),
            ("replay", "Queue a dead task again, as if it had just been enqueued"),
        )
    ),
    Operation(
        "get",
        "/admin/dead",
        "Dead letters",
        {200: Answer("A page of them", task_answers.TaskPage)},
        (400, 401, 403, 503),
        (_ANY_CLIENT, *_FILTERS, *_PAGING),
    ),
    *(
        Operation(
            method,
            path,
            summary,
            {
                200: Answer("Of one client: how many", task_answers.Done),
                202: Answer("Of all: the job", task_answers.Job),
            },
            (400, 401, 403, 503),
            (_ANY_CLIENT, *_FILTERS),
        )
        for method, path, summary in (
            ("post", "/admin/dead/replay", "Queue dead letters again, oldest first, as if they had just been enqueued"),
            ("delete", "/admin/dead", "Remove dead letters for good"),
        )
    ),
    Operation(
        "post",
        "/admin/jobs",
        "Do something to many tasks, chosen by filter; counted first",
        {202: Answer("The job, which counts", task_answers.Job)},
        (*BODY, 401, 403, 503),
        (),
        JobBody,
    ),
    Operation("get", "/admin/jobs", "The last jobs", {200: Answer("They", task_answers.JobList)}, (400, 401, 403, 503)),
    *(
        Operation(method, f"/admin/jobs/{{job_id}}{rest}", summary, answered, refusals, (_JOB_ID,))
        for method, rest, summary, answered, refusals in (
            (
                "get",
                "",
                "How far a job has come",
                {200: Answer("The job", task_answers.Job)},
                (400, 401, 403, 404, 503),
            ),
            (
                *("delete", "", "Abort a job; what it has done stays done"),
                {200: Answer("The job, aborted", task_answers.Job)},
                (400, 401, 403, 404, 409, 503),
            ),
            (
                *("post", "/start", "Start a job that has counted"),
                {202: Answer("The job, which runs", task_answers.Job)},
                (400, 401, 403, 404, 409, 503),
            ),
        )
    ),
)
