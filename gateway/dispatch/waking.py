"""Who may have something to claim: the doorbell tells at once, and asking now and then misses nothing. Also whether
Redis is away, which asking finds out."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from gateway.dispatch.claims import Claims
from gateway.errors import StoreUnavailable

log = structlog.get_logger()

READY_AT_ONCE = 256
POLL_SECONDS = 1.0
# While Redis is away: how soon to ask again.
AGAIN_SECONDS = 0.25


class Waking:
    """``wake`` is told of each client, ``on_due`` that something became due, ``polled`` after each asking."""

    def __init__(
        self,
        claims: Claims,
        *,
        wake: Callable[[str], None],
        on_due: Callable[[], None],
        polled: Callable[[], None],
    ) -> None:
        self._claims = claims
        self._wake = wake
        self._on_due = on_due
        self._polled = polled
        self._doubted = asyncio.Event()  # Redis may be away: ask, instead of waiting for the next poll
        self.outage = False  # the last that was heard of Redis is that it is away

    async def poll(self) -> None:
        """Ask for ever: doorbells may get lost with their connection."""
        while True:
            self._doubted.clear()
            try:
                for client_id in await self._claims.ready(READY_AT_ONCE):
                    self._wake(client_id)
                self.note_outage(None)
            except StoreUnavailable as exc:
                self.note_outage(exc)
            except Exception:
                log.exception("poll_failed")
            self._polled()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS if self.outage else POLL_SECONDS):
                    await self._doubted.wait()

    async def listen(self) -> None:
        """Hear the doorbell for ever."""
        while True:
            try:
                await self._claims.listen(self._wake, self._on_due)
            except StoreUnavailable as exc:
                log.debug("doorbell_lost", error=exc.message)
            except Exception:
                log.exception("doorbell_failed")
            await asyncio.sleep(AGAIN_SECONDS)

    def note_outage(self, exc: StoreUnavailable | None) -> None:
        """Redis is away, or (None) there."""
        if exc is not None and not self.outage:
            log.warning("dispatch_paused", error=exc.message)
            self._doubted.set()
        elif exc is None and self.outage:
            log.info("dispatch_resumed")
        self.outage = exc is not None
