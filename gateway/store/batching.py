"""One multiplexed connection: the commands of one event-loop turn leave in one write, replies are handed out in order.

redis-py sets the connection up (address, TLS, authentication, database); from there the bytes are ours, because a pool
that lends a connection to one command at a time was measured to cost four times the client CPU. A command is sent once:
where the connection drops after that, its caller learns that nobody knows whether it ran.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, cast

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store.link import Confirmation, Dial, address_of, describe
from gateway.store.replies import answered, hand_over, result_of

log = structlog.get_logger()

_RETRY_CONNECT_AFTER: Final = 0.2
_COMPLAIN_AGAIN_AFTER: Final = 10.0
_MAX_UNANSWERED: Final = 20_000
# What is as much is worth a write of its own: Redis works on it while the rest of the loop's turn goes on. Where it has
# to be confirmed the rest would wait for that first.
_FULL_BYTES: Final = 4096
_MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024
_READ_SIZE: Final = 256 * 1024
_SCAN_STEP: Final = 1000
_OUT_OF_REACH: Final = "Redis is out of reach; nothing was stored. Try again shortly."
_CROWDED: Final = "Too many requests wait for Redis; nothing was stored. Try again shortly."
_STOPPING: Final = "The gateway is stopping."
_UNKNOWN: Final = "Redis did not answer; it is not known whether the request was carried out."


class _Wire:
    """One connection: what was sent over it and has no reply yet. A new connection starts with a new one, so that bytes
    of an old connection can never answer a command of the next."""

    def __init__(self, connection: AbstractConnection) -> None:
        # redis-py keeps these two private; there is no public way to take a set-up connection over.
        self.reader = cast("asyncio.StreamReader", connection._reader)  # noqa: SLF001
        self.writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        connection._reader = connection._writer = None  # noqa: SLF001 - else it warns that nobody closed it
        self.unanswered: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self.retired = ""  # why nothing more is sent over it
        self.confirming = False


class MultiplexedLink:
    """A `Link` over one connection, shared by all callers, reconnecting when it is used again.

    ``name`` tells it from the process's other links in the log, one of which may be back while another is not.
    ``dial`` gives a connection that is set up, or fails in bounded time; no caller waits longer than ``timeout``, be it
    for the connection or for the reply. A server that turns out to be a replica (READONLY) is dialled anew. With a
    ``confirmation`` each flush ends with it, the next one waits for it, and replies are handed out once it was met.
    """

    def __init__(self, name: str, dial: Dial, timeout: float, confirmation: Confirmation | None = None) -> None:
        self._name = name
        self._dial = dial
        self._timeout = timeout if confirmation is None else timeout + confirmation.seconds
        self._confirmation = confirmation
        self._loop = asyncio.get_running_loop()
        self._wire: _Wire | None = None
        self._outgoing: list[tuple[float, bytes, asyncio.Future[Any]]] = []
        self._outgoing_bytes = 0
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling = False
        self._dial_again_at = 0.0
        self._failure = _OUT_OF_REACH
        self._complaint = "", 0.0
        self._closed = False

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Send the command with all others of this loop turn and return its reply."""
        return await result_of(self.send(*command))

    def begin(self, *command: str | bytes | int | float) -> Awaitable[Any]:
        """As the `Link` has it; what keeps it from being sent is raised when it is awaited."""
        try:
            return result_of(self.send(*command))
        except StoreUnavailable as error:
            failed = self._loop.create_future()
            failed.set_exception(error)
            return failed

    def send(self, *command: str | bytes | int | float) -> asyncio.Future[Any]:
        """The reply to come, an error of Redis as a value; commands leave in the order of these calls."""
        if self._closed:
            raise StoreUnavailable(_STOPPING)
        now = self._loop.time()
        if self._wire is None and now < self._dial_again_at:
            raise StoreUnavailable(self._failure)
        # hiredis takes any of these; its stub names a narrower tuple.
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]
        if self._crowded(len(packed)):
            raise StoreUnavailable(_CROWDED)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._outgoing.append((now, packed, future))
        self._outgoing_bytes += len(packed)
        if self._wire is None:
            self._connect_soon()
        elif self._outgoing_bytes >= _FULL_BYTES and self._confirmation is None:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        return future

    @property
    def connected(self) -> bool:
        """Whether a connection is set up right now."""
        return self._wire is not None

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys that match, in steps that don't hold Redis up."""
        cursor = b"0"
        while True:
            cursor, keys = await self.execute("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_STEP)
            for key in keys:
                yield key
            if cursor == b"0":
                return

    def retire(self, reason: str) -> None:
        """Send nothing more over this connection, and leave it once what was sent is answered."""
        wire = self._wire
        if wire is None:
            return
        wire.retired = reason
        if not wire.unanswered:
            self._lose(wire, reason)

    async def close(self) -> None:
        """Drop the connection; unanswered commands fail as unknown."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._drop(_STOPPING)
        self._fail_unsent(len(self._outgoing), _STOPPING)
        if self._timer is not None:
            self._timer.cancel()

    def _crowded(self, size: int) -> bool:
        """Whether one more command would let what waits grow without bound, in number or in bytes."""
        wire = self._wire
        waiting = len(self._outgoing) + (0 if wire is None else len(wire.unanswered))
        unsent = self._outgoing_bytes + (0 if wire is None else wire.writer.transport.get_write_buffer_size())
        return waiting >= _MAX_UNANSWERED or (unsent > 0 and unsent + size > _MAX_UNSENT_BYTES)

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _connect_soon(self) -> None:
        self._arm()
        if not self._dialling:
            self._dialling = True
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        try:
            connection = await self._dial()
            server, wire = address_of(connection), _Wire(connection)
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._dialling = False
            self._dial_again_at = self._loop.time() + _RETRY_CONNECT_AFTER
            self._failure = error.message if isinstance(error, StoreUnavailable) else _OUT_OF_REACH
            metrics.redis_error("connect")
            self._complain(describe(error))
            self._fail_unsent(len(self._outgoing), self._failure)
            return
        self._dialling = False
        self._complaint = "", 0.0
        self._wire = wire
        task = self._loop.create_task(self._read(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("redis_connected", link=self._name, server=server)
        self._flush()

    def _complain(self, text: str) -> None:
        """Log why there is no connection: at once where it is news, else now and then."""
        now = self._loop.time()
        if text != self._complaint[0] or now - self._complaint[1] >= _COMPLAIN_AGAIN_AFTER:
            self._complaint = text, now
            log.error("redis_error", redis_operation="connect", link=self._name, error=text)

    # --- sending and reading ------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_scheduled = False
        wire = self._wire
        if wire is None or wire.retired or wire.confirming or not self._outgoing:
            return
        chunks, futures = [], []
        for _, packed, future in self._outgoing:
            if not future.cancelled():  # else its caller left before anything was sent
                chunks.append(packed)
                futures.append(future)
        self._outgoing.clear()
        self._outgoing_bytes = 0
        if not chunks:
            return
        if self._confirmation is not None:
            futures = self._confirmed(wire, self._confirmation, chunks, futures)
        now = self._loop.time()
        wire.unanswered.extend([(now, future) for future in futures])
        wire.writer.write(b"".join(chunks))
        self._arm()

    def _confirmed(
        self, wire: _Wire, confirmation: Confirmation, chunks: list[bytes], futures: list[asyncio.Future[Any]]
    ) -> list[asyncio.Future[Any]]:
        """End the flush with what confirms it; the futures that the replies go to meanwhile."""
        held = [self._loop.create_future() for _ in futures]
        wait = self._loop.create_future()
        chunks.append(hiredis.pack_command(confirmation.wait))  # type: ignore[arg-type]
        wire.confirming = True

        def settle(_: asyncio.Future[Any]) -> None:
            wire.confirming = False
            met = answered(wait) and confirmation.met(wait.result())
            if not met:
                metrics.redis_error("durability")
                got = wait.exception() or wait.result()
                log.error("redis_error", redis_operation="durability", error=f"{confirmation.wait}: {got}")
            for early, future in zip(held, futures, strict=True):
                hand_over(early, future, met=met)
            self._flush()

        wait.add_done_callback(settle)
        return [*held, wait]

    async def _read(self, wire: _Wire) -> None:
        parser = hiredis.Reader()
        try:
            while data := await wire.reader.read(_READ_SIZE):
                parser.feed(data)
                while (reply := parser.gets()) is not False:
                    _, future = wire.unanswered.popleft()
                    if not future.done():
                        future.set_result(reply)
                    if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY"):
                        wire.retired = "this Redis is a replica now (READONLY)"
                if wire.retired and not wire.unanswered:
                    break
            reason = wire.retired or "Redis closed the connection"
        except IndexError:
            reason = "Redis sent a reply that nobody asked for"
        except (OSError, hiredis.ProtocolError) as error:
            reason = describe(error)
        self._lose(wire, reason)

    # --- losing -------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout / 10, self._tick)

    def _tick(self) -> None:
        """One timer for all commands, and none while nothing waits: the oldest one tells whether something is wrong."""
        self._timer = None
        late = self._loop.time() - self._timeout
        wire = self._wire
        if wire is None:
            overdue = sum(since < late for since, _, _ in self._outgoing)
            self._fail_unsent(overdue, _OUT_OF_REACH)
        elif wire.unanswered and wire.unanswered[0][0] < late:
            self._lose(wire, f"no reply within {self._timeout:g} s (REDIS_TIMEOUT)")
        if self._outgoing or (self._wire is not None and self._wire.unanswered):
            self._arm()

    def _lose(self, wire: _Wire, reason: str) -> None:
        if wire is not self._wire:
            return
        metrics.redis_error("connection")
        log.error("redis_error", redis_operation="connection", error=reason)
        self._drop(_UNKNOWN)
        if self._outgoing:
            self._connect_soon()

    def _drop(self, message: str) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        wire.writer.transport.abort()
        for _, future in wire.unanswered:
            if not future.done():
                future.set_exception(StoreUnavailable(message, unknown=True))
        wire.unanswered.clear()

    def _fail_unsent(self, count: int, message: str) -> None:
        """Tell the first ``count`` of what was not sent yet: it certainly did not run."""
        for _, packed, future in self._outgoing[:count]:
            self._outgoing_bytes -= len(packed)
            if not future.done():
                future.set_exception(StoreUnavailable(message))
        del self._outgoing[:count]
