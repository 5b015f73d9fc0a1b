"""Hears what other processes publish: a client became ready, something is due earlier, a client's settings changed.

Losing a message costs time, not work: dispatchers look by themselves every second, cached settings live 60 s.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Final

import structlog
from redis.exceptions import RedisError

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store.connection import hang_up
from gateway.store.link import Dial, describe

log = structlog.get_logger()

_AGAIN_SECONDS: Final = 0.5
_QUIET_SECONDS: Final = 2.0  # then the server is asked whether it is still there: a cut line says nothing

_FAILURES: Final = (RedisError, StoreUnavailable, OSError, TimeoutError)

Homes = Callable[[Sequence[str]], Awaitable[list[tuple[Dial, list[str]]]]]


class Doorbell:
    """One subscription for the process, on a connection to each server that has some of the channels.

    ``homes`` tells which those are. On a Cluster the channels are sharded: a ring stays with the nodes of its slot,
    and a slot that moves ends its subscription.
    """

    def __init__(
        self, homes: Homes, channels: Sequence[str], *, sharded: bool, on_change: Callable[[str | None], None]
    ) -> None:
        self._homes = homes
        self._channels = channels
        self._subscribe = "SSUBSCRIBE" if sharded else "SUBSCRIBE"
        self._on_change = on_change
        self._on_ready: Callable[[str], None] | None = None
        self._on_due: Callable[[], None] | None = None
        self._missing: set[str] = set(channels)
        self._complaint = ""
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Subscribe and hand messages out until cancelled; what is lost is subscribed again while the rest is heard."""
        ears: dict[asyncio.Task[None], list[str]] = {}
        try:
            while True:
                heard = set(chain.from_iterable(ears.values()))
                if deaf := [channel for channel in self._channels if channel not in heard]:
                    deaf = await self._listen_for(deaf, ears)
                if ears:
                    # Neither a TaskGroup nor gather: cancelled just when a task fails, they raise the failure alone.
                    done, _ = await asyncio.wait(ears, timeout=0 if deaf else None, return_when=asyncio.FIRST_COMPLETED)
                    for ear in done:
                        del ears[ear]
                        self._complain(ear.exception())
                await asyncio.sleep(_AGAIN_SECONDS)
        finally:
            for ear in ears:
                ear.cancel()
            await asyncio.gather(*ears, return_exceptions=True)

    async def _listen_for(self, deaf: list[str], ears: dict[asyncio.Task[None], list[str]]) -> list[str]:
        """Subscribe to these, an ear for each server; returns those that nobody is known to have."""
        self._missing.update(deaf)
        self.subscribed.clear()
        try:
            homes = await self._homes(deaf)
        except _FAILURES as error:
            self._complain(error)
            return deaf
        ears |= {asyncio.create_task(self._hear(dial, channels)): channels for dial, channels in homes}
        return []

    def _complain(self, error: BaseException | None) -> None:
        """Log what ended a subscription, where that is news; raise it where it is a defect."""
        assert error is not None  # hearing never ends by itself
        if not isinstance(error, _FAILURES):
            raise error
        if describe(error) != self._complaint:
            self._complaint = describe(error)
            metrics.redis_error("subscribe")
            log.error("redis_error", redis_operation="subscribe", error=self._complaint)

    async def _hear(self, dial: Dial, channels: list[str]) -> None:
        connection = await dial()
        try:
            # On a Cluster each is in a slot of its own, and one command may not name several.
            commands = [[channel] for channel in channels] if self._subscribe == "SSUBSCRIBE" else [channels]
            await connection.send_packed_command(
                [part for names in commands for part in connection.pack_command(self._subscribe, *names)]
            )
            asked = False
            while True:
                message = await connection.read_response(timeout=_QUIET_SECONDS)
                if message is not None:
                    asked = False
                    self._hand_out(message)
                elif asked:
                    raise TimeoutError("the subscription does not answer")
                else:
                    asked = True
                    await connection.send_command("PING")
        finally:
            await hang_up(connection)

    def _hand_out(self, message: list[bytes]) -> None:
        kind = message[0]
        if kind in (b"subscribe", b"ssubscribe"):
            self._missing.discard(message[1].decode())
            if not self._missing:
                self._complaint = ""
                self._on_change(None)  # what was announced meanwhile went unheard
                self.subscribed.set()
        elif kind in (b"sunsubscribe", b"unsubscribe"):
            raise TimeoutError("a channel has moved to another node")
        elif kind in (b"message", b"smessage"):
            self._ring(message[2].decode())

    def _ring(self, data: str) -> None:
        what, client_id = data[:1], data[1:]
        if what == "c":
            self._on_change(client_id or None)
        elif what == "d":
            if self._on_due is not None:
                self._on_due()
        elif self._on_ready is not None:
            self._on_ready(client_id)

    async def listen_dispatch(self, on_ready: Callable[[str], None], on_due: Callable[[], None]) -> None:
        """Call back for ready clients and earlier due times, until cancelled."""
        self._on_ready, self._on_due = on_ready, on_due
        try:
            await asyncio.Event().wait()
        finally:
            self._on_ready = self._on_due = None
