"""What the document says of one call, the words that all calls share, and the parameters that several have."""

from dataclasses import dataclass
from typing import Any, Final

from gateway.admin_keys import Role
from gateway.middleware.roles import needed_role
from gateway.models import CLIENT_ID_PATTERN, QUEUE_PATTERN
from gateway.openapi import answers

Schema = dict[str, Any]
TEXT: Final = "text/plain"


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, the path or the headers."""

    name: str
    schema: Schema
    description: str
    place: str = "query"
    required: bool = False


@dataclass(frozen=True)
class Answer:
    """What a status means; ``shape`` is a Struct, None where there is no body, or a media type."""

    meaning: str
    shape: Any = None


@dataclass(frozen=True)
class Operation:
    """One method on one path. ``refusals`` are the statuses that answer with an `Error`."""

    method: str
    path: str
    summary: str
    answers: dict[int, Answer]
    refusals: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    limited: bool = False

    @property
    def admin(self) -> bool:
        """Whether it is an operator's."""
        return self.path.startswith("/admin")

    @property
    def role(self) -> Role:
        """What an operator's key must have."""
        return needed_role(self.method.upper(), self.path)

    @property
    def every_refusal(self) -> set[int]:
        """``refusals``, and where a key is shown: too many wrong ones."""
        return {*self.refusals, 429} if self.admin or 401 in self.refusals else set(self.refusals)

    @property
    def group(self) -> str:
        """The heading it stands under."""
        if self.admin:
            return "Operators"
        return "Clients" if self.path.startswith("/v1") else "Health and metrics"


REFUSALS: Final = {
    400: "Malformed; the message names the field by its JSON path, or the parameter",
    401: "Who asks is not known here, or has no valid key",
    403: "Not from this address, not with this key's role, or not this queue or host",
    404: "There is none",
    408: "The body did not arrive in time",
    409: "It conflicts with what is there",
    413: "Larger than MAX_BODY_BYTES, or MAX_BATCH_BYTES for a batch",
    415: "Declared as something other than JSON",
    429: "Over the rate limit, too much waits already, or too many wrong keys came; not before Retry-After",
    503: "Redis is out of reach, full or refuses; not before Retry-After",
}
BODY: Final = (400, 408, 413, 415)

CLIENT_ID: Final[Schema] = {"type": "string", "pattern": CLIENT_ID_PATTERN, "examples": ["my-service-123"]}
# In a header or a cursor an empty text is none.
OPTIONAL: Final[Schema] = {**CLIENT_ID, "pattern": f"^$|{CLIENT_ID_PATTERN}"}
CLIENT: Final = Parameter("client_id", CLIENT_ID, "whose", required=True)
TASK_ID: Final = Parameter(
    "task_id", {"type": "string", "examples": ["01a20d7308f71018f81f2a000000"]}, "as enqueue answered it", "path", True
)
QUEUE: Final[Schema] = {"type": "string", "pattern": f"^$|{QUEUE_PATTERN}"}
TRUTH: Final[Schema] = {"enum": ["true", "false"]}


def of_one_task(root: str, task: Any, detailed: Any, *refusals: int) -> tuple[Operation, ...]:
    """The same for clients and for operators, who see more of it."""
    path = f"{root}/tasks/{{task_id}}"
    named = (TASK_ID, CLIENT)
    return (
        Operation(
            "get",
            path,
            "How a task stands",
            {200: Answer("The task", detailed)},
            (400, 404, 503, *refusals),
            named,
        ),
        Operation(
            "delete",
            path,
            "Cancel a task that has not started",
            {200: Answer("The task, cancelled", task)},
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
