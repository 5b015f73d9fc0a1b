"""What keeps the store moving without any one task's doing: due tasks to their streams, lapsed claims back,
and the audit of what the store says of each client. It starts nothing itself: only a claim does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

from gateway import metrics
from gateway.dispatch.claims import Audit, UpkeepClaims
from gateway.errors import StoreUnavailable

log = structlog.get_logger()

BATCH = 100
PROMOTE_SECONDS = 1.0
RECLAIM_SECONDS = 1.0
AUDIT_SECONDS = 30.0  # between rounds
AUDIT_STEP_SECONDS = 1.0  # within one
# After a full batch there is more to do: go on, after others had their turn on the event loop and in Redis.
BUSY_SECONDS = 0.001


class Upkeep:
    """Runs the three ticks until its context is left. ``due()`` hurries the promotion (the due doorbell)."""

    def __init__(self, claims: UpkeepClaims, audit: Audit, lease_seconds: float) -> None:
        self._claims = claims
        self._audit = audit
        # A client's tasks that a killed process held come back within a lease and two of these.
        self._reclaim_seconds = min(RECLAIM_SECONDS, lease_seconds / 6)
        self._due = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    def due(self) -> None:
        """Something may be due before the promotion would look by itself."""
        self._due.set()

    async def promote_once(self) -> float:
        """Move due tasks to their streams; returns the seconds until the next look."""
        next_due = await self._claims.promote_due(BATCH)
        if next_due is None:
            return PROMOTE_SECONDS
        return min(max(next_due, BUSY_SECONDS), PROMOTE_SECONDS)

    async def reclaim_once(self) -> float:
        """Take lapsed claims back; returns the seconds until the next look."""
        taken = await self._claims.reclaim_lapsed(BATCH)
        if taken:
            log.warning("claims_reclaimed", count=taken)
        return BUSY_SECONDS if taken >= BATCH else self._reclaim_seconds

    async def audit_once(self) -> float:
        """Hold what the store says of some clients against each other; returns the seconds until the next look."""
        audited = await self._audit.stretch(BATCH)
        for found in audited.violations:
            # Never expected: what must agree is changed in one script.
            metrics.invariant_violated(found.kind)
            log.error("invariant_violated", kind=found.kind, client=found.client_id, detail=found.detail)
        return AUDIT_STEP_SECONDS if audited.more else AUDIT_SECONDS

    async def __aenter__(self) -> Self:
        self._loops = [
            asyncio.create_task(self._repeat("promote", self.promote_once, self._due)),
            asyncio.create_task(self._repeat("reclaim", self.reclaim_once, None)),
            asyncio.create_task(self._repeat("audit", self.audit_once, None)),
        ]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _repeat(self, name: str, tick: Callable[[], Awaitable[float]], hurry: asyncio.Event | None) -> None:
        """Call the tick for ever. An outage is logged once, when it begins."""
        paused = False
        while True:
            if hurry is not None:
                hurry.clear()
            try:
                wait = await tick()
                paused = False
            except StoreUnavailable as exc:
                if not paused:
                    log.warning("upkeep_paused", tick=name, error=exc.message)
                paused, wait = True, PROMOTE_SECONDS
            except Exception:
                # A tick that fails on one odd record must not end the upkeep of all others.
                log.exception("upkeep_failed", tick=name)
                wait = PROMOTE_SECONDS
            await _sleep(wait, None if paused else hurry)


async def _sleep(seconds: float, hurry: asyncio.Event | None) -> None:
    if hurry is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await hurry.wait()
    except TimeoutError:
        return
