"""Keeping claims alive while their calls run, and ending a call whose claim can't be kept.
Taking lapsed claims of others back is `upkeep`'s work.
"""

import asyncio
from collections import defaultdict

import structlog

from gateway.dispatch.claims import Claims
from gateway.dispatch.lanes import Lanes, Run, claim_key
from gateway.errors import StoreUnavailable

log = structlog.get_logger()

TRIES = 4  # of a renewal, in a round of them, where that it failed is known as soon as this:
QUICK_SECONDS = 0.25


class Leases:
    """Renews every open claim each third of ``lease_seconds``.

    A call is aborted a margin (a tenth of the lease, at most 2 s) before its lease may end: the next owner
    must never run a task while this one still does. That rests on a timer of its own, not on the renewal,
    which may itself hang.
    """

    def __init__(self, claims: Claims, lanes: Lanes, lease_seconds: float) -> None:
        self._claims = claims
        self._lanes = lanes
        self._interval = lease_seconds / 3
        self._safe_seconds = lease_seconds - min(2.0, lease_seconds / 10)
        self._look_seconds = lease_seconds / 50
        self._look: asyncio.TimerHandle | None = None
        self._watched: set[Run] = set()
        self._loop = asyncio.get_running_loop()
        self._outage = False

    def watch(self, run: Run) -> bool:
        """Abort the run once its lease nears its end; False where it is that late already, or lost before its call."""
        if run.lost:
            return False
        if self._loop.time() >= run.proof + self._safe_seconds:
            run.abort()
            return False
        self._watched.add(run)
        if self._look is None:
            self._look = self._loop.call_later(self._look_seconds, self._look_over)
        return True

    def unwatch(self, run: Run) -> None:
        """The call is over."""
        self._watched.discard(run)

    def _look_over(self) -> None:
        # One timer for all calls, nearly all of which end long before: what would be late by the next look ends now.
        next_look = self._loop.time() + self._look_seconds
        late = [run for run in self._watched if run.proof + self._safe_seconds < next_look]
        for run in late:
            self._watched.discard(run)
            if not run.lost:
                run.abort()
                _log_lost(run, "not renewed")
        self._look = self._loop.call_later(self._look_seconds, self._look_over) if self._watched else None

    async def renew_once(self) -> None:
        """Renew all; those that are no longer ours are aborted. Raises StoreUnavailable where some could not be asked
        for; what was answered holds all the same."""
        by_client: dict[str, list[Run]] = defaultdict(list)
        for run in self._lanes.runs():
            if not run.lost:
                by_client[run.lane.client_id].append(run)
        # Those that waited longest first: over a line that breaks each time, none is left out for ever.
        oldest_first = sorted(by_client.values(), key=lambda runs: min(run.proof for run in runs))
        answers = await asyncio.gather(*map(self._renew, oldest_first), return_exceptions=True)
        for problem in answers:
            if problem is not None:
                raise problem

    async def _renew(self, runs: list[Run]) -> None:
        for tries_left in range(TRIES - 1, -1, -1):
            sent = self._loop.time()
            try:
                lost = await self._claims.renew([run.task for run in runs])
                break
            except StoreUnavailable:
                # Safe to repeat. A line that broke under another reply is there again at once, and may break anew.
                if not tries_left or self._loop.time() - sent > QUICK_SECONDS:
                    raise
        gone = {claim_key(task) for task in lost}
        for run in runs:
            if run.key not in gone:
                run.proof = sent
            elif run.key in run.lane.runs:
                # Still open here, so it wasn't simply finished while the renewal travelled.
                _log_lost(run, "taken over")
                run.abort()

    async def keep(self) -> None:
        """Renew for ever, sooner while Redis is away."""
        while True:
            await asyncio.sleep(self._interval / 4 if self._outage else self._interval)
            try:
                await self.renew_once()
            except StoreUnavailable as exc:
                if not self._outage:
                    log.warning("renewal_paused", error=exc.message)
                self._outage = True
            except Exception:
                log.exception("renewal_failed")
            else:
                self._outage = False


def _log_lost(run: Run, cause: str) -> None:
    log.warning("lease_lost", client=run.task.client_id, task=run.task.task_id, cause=cause)
