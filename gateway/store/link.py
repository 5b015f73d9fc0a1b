"""What a way to Redis is, whatever carries it: commands and replies, errors, and how those are told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from redis.asyncio.connection import AbstractConnection

from gateway.errors import StoreUnavailable

Command = tuple[str | bytes | int | float, ...]
Dial = Callable[[], Awaitable[AbstractConnection]]


class Confirmation(NamedTuple):
    """What ends each flush of a link whose replies only count once others have what it wrote: the wait for that, what
    tells its reply is enough, and the seconds it may take."""

    wait: Command
    met: Callable[[Any], bool]
    seconds: float


class CommandError(Exception):
    """Redis answered with an error; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Link(Protocol):
    """A way to Redis: one command, one reply. Raises CommandError or StoreUnavailable."""

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Send the command and return its reply; strings are bytes."""

    def begin(self, *command: str | bytes | int | float) -> Awaitable[Any]:
        """As `execute`, and where there is a connection, the command is on its way before this returns."""

    def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys that match, some perhaps twice."""

    async def close(self) -> None:
        """Drop the connection; unanswered commands fail."""


def address_of(connection: AbstractConnection) -> str:
    """The server at its other end, by its socket or its host and port."""
    where = dict(connection.repr_pieces())  # type: ignore[no-untyped-call]
    return str(where.get("path") or f"{where.get('host')}:{where.get('port')}")


def describe(error: BaseException) -> str:
    """An error's kind and text for the log; redis-py's texts name host and port, never the password."""
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    if isinstance(error, StoreUnavailable):
        return f"{error.message}{cause}"
    return f"{type(error).__name__}: {str(error) or 'no answer in time'}{cause}"
