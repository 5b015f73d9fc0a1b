"""What goes back to Redis unstarted: what a lost reply brought, and what is left when the process leaves."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from gateway.dispatch.claims import Claims
from gateway.dispatch.lanes import Lane
from gateway.dispatch.waking import AGAIN_SECONDS, Waking
from gateway.errors import StoreUnavailable
from gateway.models import ClaimedTask

log = structlog.get_logger()

HAND_BACK_SECONDS = 2.0
HAND_BACK_AT_ONCE = 200


class Returns:
    """Hands claims back."""

    def __init__(self, claims: Claims, waking: Waking) -> None:
        self._claims = claims
        self._waking = waking

    async def recover(self, lane: Lane, leaving: Callable[[], bool]) -> None:
        """Hand back what Redis has as ours of this client and we don't know of, as soon as Redis answers.

        Nothing that may claim for the client is in flight meanwhile: its tasks would be taken for unknown ones.
        """
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            if lane.asking:
                continue
            try:
                known = [run.task for run in lane.runs.values()]
                count = await self._claims.hand_back_unknown(lane.client_id, known)
            except StoreUnavailable as exc:
                self._waking.note_outage(exc)
                if leaving():
                    return  # their leases end by themselves
                continue
            if count:
                log.info("lost_claims_returned", client=lane.client_id, count=count)
            return

    async def give_back(self, tasks: Sequence[ClaimedTask]) -> None:
        """Hand these back; not lost where that fails: their leases end, and another dispatcher takes them."""
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                for start in range(0, len(tasks), HAND_BACK_AT_ONCE):
                    await self._claims.hand_back(tasks[start : start + HAND_BACK_AT_ONCE])
        except (StoreUnavailable, TimeoutError):
            log.warning("hand_back_failed", count=len(tasks))
