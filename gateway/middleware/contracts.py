"""What the chain hands on about one enqueue, and the two small interfaces it needs of the dispatch side. Values
and protocols only: decoding is in `gateway.api.decoding`, deciding in the middlewares."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.dispatch.egress import Refusal
from gateway.errors import GatewayError, InvalidBody
from gateway.middleware.heads import Head
from gateway.middleware.limits import Limits
from gateway.models import RateLimit, Task, TaskSpec, Unshown
from gateway.store.admission import Places


class Dispatching(Protocol):
    """The dispatcher of this process, as far as the HTTP side needs it."""

    @property
    def in_flight(self) -> int:
        """Open calls of this process."""

    @property
    def lanes(self) -> int:
        """Clients with work in this process."""

    @property
    def leaving(self) -> bool:
        """It drains: the process is about to end."""

    def places(self, client_id: str) -> Places | None:
        """As the store's `Claimer` has it."""

    def admitted(self, client_id: str) -> None:
        """This client has a new task to claim."""

    def has_room(self) -> bool:
        """Another call could start here now."""


class TargetCheck(Protocol):
    """Judges a target by the text of its URL; what a name resolves to is judged at the dial."""

    def check_literal(self, url: str) -> Refusal | None:
        """Why the target is refused, naming the setting that would allow it. None: it is fine."""

    def check_allowed(self, url: str, allowed: tuple[str, ...]) -> Refusal | None:
        """Why the ``allowed_hosts`` of a client refuse it. None: they do not, or the dial decides."""


class Whole(msgspec.Struct, frozen=True):
    """A request of which the whole head has come: what that says, where its body begins, where that ends."""

    head: Head
    begin: int
    end: int


class Express(Protocol):
    """Answers some requests by itself."""

    def read(self, data: bytes) -> Whole | None:
        """The request that ``data`` begins with, None where that is none of these."""

    def take(self, request: Whole, data: bytes, answer: Callable[[bytes], None]) -> bool:
        """Whether it is taken: ``answer`` is called once, later, with the whole answer. ``data`` ends with its body."""


class Ask(Unshown, frozen=True, gc=False):
    """One task asked for; no policy has been applied yet.

    ``index`` is where it stood in a batch, None where it was the whole body; ``override`` its own rate limit if it
    asked for one; ``cost_field`` where its cost stood.
    """

    task: Task
    index: int | None
    override: RateLimit | None
    cost_field: str

    @property
    def path(self) -> str:
        """Where it stood in the body."""
        return path_of(self.index)


def path_of(index: int | None) -> str:
    """The JSON path of the task with that index in a batch, or of the one that is the whole body.

    >>> path_of(3), path_of(None)
    ('$.tasks[3]', '$')
    """
    return "$" if index is None else f"$.tasks[{index}]"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded body. ``client_id`` is what stood there, of whatever type (None: absent or not an object).

    ``problem`` is what is wrong with the rest of it: held back, since who asks is judged before what is asked.
    """

    client_id: object
    asks: list[Ask]
    problem: InvalidBody | None = None


class Planned(msgspec.Struct, frozen=True, gc=False):
    """One ask under its client's policy: ``limit`` is the one that was applied."""

    spec: TaskSpec
    limit: RateLimit


Plan = Planned | GatewayError


class Given(msgspec.Struct, frozen=True):
    """What a decoder may read besides the body: the `Idempotency-Key` header, and Unix seconds of now."""

    idempotency_key: str | None
    now: float


Decode = Callable[[bytes, Given], Asked]
MakeExpress = Callable[[Limits], Express]
