"""One multiplexed connection: the commands of one event-loop turn leave in one write, replies are handed out in order.

redis-py sets the connection up (address, TLS, authentication, database); from there the bytes are ours, because a pool
that lends a connection to one command at a time was measured to cost four times the client CPU. A command is sent once:
where the connection drops after that, its caller learns that nobody knows whether it ran.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, cast

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway import metrics
from gateway.errors import StoreUnavailable

log = structlog.get_logger()

_RETRY_CONNECT_AFTER = 0.2
_MAX_UNANSWERED = 20_000
_READ_SIZE = 256 * 1024
_SCAN_STEP = 1000


class CommandError(Exception):
    """Redis answered with an error; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Link(Protocol):
    """A way to Redis: one command, one reply. Raises CommandError or StoreUnavailable."""

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Send the command and return its reply; strings are bytes."""

    def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys that match, some perhaps twice."""

    async def close(self) -> None:
        """Drop the connection; unanswered commands fail."""


class MultiplexedLink:
    """A `Link` over one connection, shared by all callers, reconnecting when it is used again."""

    def __init__(
        self,
        make: Callable[[], AbstractConnection],
        timeout: float,
        greet: Callable[["MultiplexedLink"], Awaitable[None]] | None = None,
    ) -> None:
        self._make = make
        self._timeout = timeout
        self._greet = greet
        self._loop = asyncio.get_running_loop()
        self._connection: AbstractConnection | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._outgoing: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._unanswered: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._flush_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting = False
        self._failed_at = -1.0
        self._failure = ""
        self._closed = False

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Send the command with all others of this loop turn and return its reply."""
        if self._closed:
            raise StoreUnavailable("The gateway is stopping.")
        if self._writer is None and self._loop.time() - self._failed_at < _RETRY_CONNECT_AFTER:
            raise StoreUnavailable(self._failure)
        if len(self._unanswered) + len(self._outgoing) >= _MAX_UNANSWERED:
            raise StoreUnavailable("Too many requests wait for Redis; try again shortly.")
        future: asyncio.Future[Any] = self._loop.create_future()
        # hiredis takes any of these; its stub names a narrower tuple.
        self._outgoing.append((hiredis.pack_command(command), future))  # type: ignore[arg-type]
        if self._writer is None:
            if not self._connecting:
                self._connecting = True
                self._spawn(self._connect())
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        reply = await future
        if isinstance(reply, hiredis.ReplyError):
            raise CommandError(str(reply))
        return reply

    @property
    def connected(self) -> bool:
        """Whether a connection is set up right now."""
        return self._writer is not None

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys that match, in steps that don't hold Redis up."""
        cursor = b"0"
        while True:
            cursor, keys = await self.execute("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_STEP)
            for key in keys:
                yield key
            if cursor == b"0":
                return

    async def close(self) -> None:
        """Drop the connection; unanswered commands fail as unknown."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._drop("The gateway is stopping.")

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        connection = self._make()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            self._failed_at = self._loop.time()
            self._failure = "Redis is out of reach; nothing was stored. Try again shortly."
            self._connecting = False
            metrics.redis_error("connect")
            log.error("redis_error", redis_operation="connect", error=describe(error))
            for _, future in self._outgoing:
                if not future.done():
                    future.set_exception(StoreUnavailable(self._failure))
            self._outgoing.clear()
            return
        # redis-py keeps these two private; there is no public way to take a set-up connection over.
        reader = cast("asyncio.StreamReader", connection._reader)  # noqa: SLF001
        self._writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        connection._reader = connection._writer = None  # noqa: SLF001 - else it warns that nobody closed it
        self._connection = connection
        self._connecting = False
        self._spawn(self._read(reader, connection))
        self._spawn(self._watch(connection))
        log.info("redis_connected")
        if self._greet is not None:
            self._spawn(self._greet(self))
        self._flush()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._writer is None or not self._outgoing:
            return
        now = self._loop.time()
        chunks = []
        for packed, future in self._outgoing:
            if future.cancelled():  # its caller left before anything was sent
                continue
            chunks.append(packed)
            self._unanswered.append((now, future))
        self._outgoing.clear()
        if chunks:
            self._writer.write(b"".join(chunks))

    async def _read(self, reader: asyncio.StreamReader, connection: AbstractConnection) -> None:
        parser = hiredis.Reader()
        waiting = self._unanswered
        try:
            while data := await reader.read(_READ_SIZE):
                parser.feed(data)
                while (reply := parser.gets()) is not False:
                    _, future = waiting.popleft()
                    if not future.done():
                        future.set_result(reply)
            reason = "Redis closed the connection."
        except (OSError, hiredis.ProtocolError, IndexError) as error:
            reason = describe(error)
        if connection is self._connection:
            self._lose(reason)

    async def _watch(self, connection: AbstractConnection) -> None:
        """One timer for all commands: the oldest unanswered one tells whether the connection still works."""
        while connection is self._connection:
            await asyncio.sleep(self._timeout / 10)
            if self._unanswered and self._loop.time() - self._unanswered[0][0] > self._timeout:
                if connection is self._connection:
                    self._lose(f"no reply within {self._timeout} s (REDIS_TIMEOUT)")
                return

    def _lose(self, reason: str) -> None:
        metrics.redis_error("connection")
        log.error("redis_error", redis_operation="connection", error=reason)
        self._drop("Redis did not answer; it is not known whether the request was carried out.")

    def _drop(self, message: str) -> None:
        writer, self._writer, self._connection = self._writer, None, None
        if writer is not None:
            writer.transport.abort()
        lost = [future for _, future in self._unanswered]
        self._unanswered.clear()
        for future in lost:
            if not future.done():
                future.set_exception(StoreUnavailable(message, unknown=True))
        unsent = self._outgoing
        if self._closed:
            self._outgoing = []
            for _, future in unsent:
                if not future.done():
                    future.set_exception(StoreUnavailable("The gateway is stopping."))
        elif unsent and not self._connecting:
            self._connecting = True
            self._spawn(self._connect())


def describe(error: BaseException) -> str:
    """An error's kind and text for the log; redis-py's texts name host and port, never the password."""
    return f"{type(error).__name__}: {error}"
