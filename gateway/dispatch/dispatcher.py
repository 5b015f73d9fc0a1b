"""Starts what may start: claims for lanes in turn, runs what was claimed, drains when told to leave. What wakes lanes
is in `waking`, an attempt in `attempts`, leases in `leases`, what goes back unstarted in `returns`; limits and pauses
are checked by the claim, in Redis."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import structlog
from aiojobs import Scheduler

from gateway import metrics
from gateway.dispatch.asked import Asked, AskedWithAdmission, ask_with_admission
from gateway.dispatch.attempts import Attempts
from gateway.dispatch.claims import Claimed, Claims, Finished
from gateway.dispatch.lanes import STUCK_SECONDS, Lane, Lanes, Run
from gateway.dispatch.leases import Leases
from gateway.dispatch.returns import Returns
from gateway.dispatch.sender import Sender
from gateway.dispatch.waking import Waking
from gateway.errors import StoreUnavailable
from gateway.futures import begun
from gateway.models import ClaimedTask

log = structlog.get_logger()

CLAIMS_AT_ONCE = 32
CLOSE_SECONDS = 1.0
NAP_SECONDS = 0.02


class Dispatcher:
    """Runs claimed tasks, at most ``max_in_flight`` at once; an async context whose end drains.

    ``lease_seconds`` is how long a claim holds without renewal, ``drain_seconds`` how long running calls may
    go on once the context is left; what is left then is cancelled and handed back at once. ``on_due`` is
    told when the doorbell says that something became due.
    """

    def __init__(
        self,
        claims: Claims,
        sender: Sender,
        *,
        max_in_flight: int,
        lease_seconds: float,
        drain_seconds: float,
        on_due: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()  # what a request's admission starts must not inherit its log fields
        self._claims = claims
        self._drain_seconds = drain_seconds
        self._waking = Waking(claims, wake=self._wake, on_due=on_due, polled=self._look_over)
        self._returns = Returns(claims, self._waking)
        self._lanes = Lanes(max_in_flight)
        metrics.set_max_in_flight(max_in_flight)
        metrics.show_in_flight(lambda: self._lanes.open)
        self._leases = Leases(claims, self._lanes, lease_seconds)
        self._attempts = Attempts(claims, sender, self._leases, self)
        self._kick = asyncio.Event()
        self._later = False  # will give turns again in a moment, whatever happens until then
        self._leaving = False
        self._services = Scheduler(limit=None, close_timeout=CLOSE_SECONDS, exception_handler=_report)
        self._renewal = Scheduler(limit=None, close_timeout=CLOSE_SECONDS, exception_handler=_report)
        self._open = False
        self._emptied = asyncio.Event()
        self._asking: set[asyncio.Future[Any]] = set()  # claims, recoveries and hand-backs in flight
        self._unfinished: list[ClaimedTask] = []  # cancelled by the drain, to be handed back

    @property
    def in_flight(self) -> int:
        """Tasks this process has claimed and not finished."""
        return self._lanes.open

    @property
    def lanes(self) -> int:
        """Clients with work in this process."""
        return len(self._lanes)

    @property
    def leaving(self) -> bool:
        """Whether it drains: it starts nothing any more."""
        return self._leaving

    def has_room(self) -> bool:
        """Whether a task admitted now would be claimed here at once, as far as the process is concerned."""
        return self._open and not self._waking.outage and self._lanes.has_room

    def places(self, client_id: str) -> AskedWithAdmission | None:
        """Those for what an admission of the client, which is sent now, may start; None where it is claimed later."""
        places = ask_with_admission(self._lanes, client_id, self._loop) if self.has_room() else None
        if places is not None:
            self._claim(places.asked, places.claimed())
        return places

    def admitted(self, client_id: str) -> None:
        """The client may have something to claim. Cheap: many thousand times a second is fine."""
        lane = self._lanes.find(client_id)
        if lane is None or not lane.full:
            self._wake(client_id)
        elif not lane.napping:
            # At its limit: a finish asks again anyway. Only an override could start sooner, so a burst of
            # requests costs one claim in a while instead of one each.
            lane.napping = True
            self._loop.call_later(NAP_SECONDS, self._nap_over, lane)

    def _nap_over(self, lane: Lane) -> None:
        lane.napping = False
        self._wake(lane.client_id)

    def _wake(self, client_id: str) -> None:
        if not self._leaving and self._lanes.wake(client_id):
            self._kick.set()

    async def __aenter__(self) -> Self:
        for service in (self._feed(), self._waking.poll(), self._waking.listen()):
            await self._services.spawn(service)
        await self._renewal.spawn(self._leases.keep())
        self._open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Drain: claim no more, let what runs finish within ``drain_seconds``, hand back the rest at once."""
        self._leaving, self._open = True, False
        await self._services.close()
        # Claims in flight are waited for, not cancelled: a cancelled one may have taken tasks all the same. After the
        # calls, since what ends one may bring tasks too, which then are on their way back.
        end = self._loop.time() + self._drain_seconds + CLOSE_SECONDS
        await self._drain()
        await self._settle(end)
        self._attempts.close()
        if self._unfinished:
            await self._returns.give_back(self._unfinished)
        # Only now: calls that drain need their leases.
        await self._renewal.close()

    async def _drain(self) -> None:
        """Let what runs end by itself for as long as it may, then break it off."""
        if not self._lanes.open:
            return
        try:
            async with asyncio.timeout(self._drain_seconds):
                await self._emptied.wait()
        except TimeoutError:
            calls = [run.call for run in self._lanes.runs() if run.call is not None and not run.call.done()]
            for call in calls:
                call.cancel()
            if calls:
                await asyncio.wait(calls, timeout=CLOSE_SECONDS)

    async def _settle(self, end: float) -> None:
        while self._asking:  # a claim whose reply is lost is followed by a look for what it took
            _, late = await asyncio.wait(self._asking, timeout=max(0.0, end - self._loop.time()))
            for asking in late:
                asking.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _look_over(self) -> None:
        """After each poll: lanes that waited out an outage go on, and the books are held against the lanes."""
        self._kick.set()
        if (differs := self._lanes.recount()) is not None:
            metrics.invariant_violated("lanes")
            log.error("invariant_violated", kind="lanes", detail="{} calls noted as open, {} are".format(*differs))

    # --- claiming ---------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Give turns while there is room, then sleep until something changes."""
        while True:
            await self._kick.wait()
            self._kick.clear()
            while not self._waking.outage and len(self._asking) < CLAIMS_AT_ONCE:
                turn = self._lanes.next_turn(self._loop.time())
                if turn is None:
                    break
                lane, want = turn
                asked = Asked(self._lanes, lane, want, self._loop.time())
                self._claim(asked, begun(self._claims.claim, lane.client_id, want, asked.chances))
            if self._lanes.waits_for_kept and not self._later:
                self._later = True
                self._loop.call_later(STUCK_SECONDS, self._look_later)

    def _look_later(self) -> None:
        self._later = False
        self._kick.set()

    def _ask(self, request: Awaitable[Any], answered: Callable[[asyncio.Future[Any]], object]) -> None:
        asking = asyncio.ensure_future(request)
        self._asking.add(asking)
        asking.add_done_callback(answered, context=self._context)

    def _answered(self, asking: asyncio.Future[Any]) -> bool:
        """Whether there is an answer; what went wrong is told."""
        self._asking.discard(asking)
        self._kick.set()
        error = None if asking.cancelled() else asking.exception()
        if isinstance(error, StoreUnavailable):
            self._waking.note_outage(error)
        elif error is not None:
            log.error("claim_failed", error=repr(error), exc_info=error)
        return error is None and not asking.cancelled()

    def _claim(self, asked: Asked, answer: Awaitable[Claimed | None]) -> None:
        self._ask(answer, partial(self._claimed, asked))

    def _claimed(self, asked: Asked, claiming: asyncio.Future[Claimed | None]) -> None:
        lane = asked.lane
        asked.settled()
        if self._answered(claiming):
            if (claimed := claiming.result()) is not None:
                lane.full = len(claimed.tasks) < asked.want and claimed.in_flight >= claimed.limit
                self._take(lane, claimed, asked.sent)
                lane.again = lane.again or (bool(claimed.tasks) and claimed.more)
        elif not claiming.cancelled() and isinstance(error := claiming.exception(), StoreUnavailable):
            if error.unknown:
                self.doubt(lane)
            lane.again = True
        self._settled(lane)

    def _take(self, lane: Lane, claimed: Claimed, proof: float) -> None:
        """Start what was claimed; or, on the way out, hand it back unstarted."""
        if self._leaving:
            self._ask(self._returns.give_back(claimed.tasks), self._answered)
            return
        runs = [self._lanes.add(lane, task, proof) for task in claimed.tasks]
        lane.fit(claimed.limit)
        for run in runs:
            self._attempts.begin(run)

    def _settled(self, lane: Lane) -> None:
        """A request for the lane is answered: queue it again if it was woken meanwhile, drop it if it's
        idle."""
        if lane.again and not lane.asking and not lane.doubtful:
            lane.again = False
            self._wake(lane.client_id)
        self._lanes.drop_idle(lane)

    # --- what attempts tell -----------------------------------------------------------------------

    def want(self, run: Run) -> int:
        """The next task of the client in this one's place, while its place may go on to it."""
        lane = run.lane
        run.asked_at = self._loop.time()
        # No second request that may claim while one is in doubt: see _recover.
        if self._leaving or lane.doubtful or not self._lanes.may_keep:
            return 0
        lane.asking += 1
        return 1

    def finished(self, run: Run, finished: Finished | None) -> None:
        """Its end is stored, or won't be. What came along takes its place."""
        lane = run.lane
        self._close(run)
        if finished is not None:
            claimed = finished.claimed
            if claimed is not None:
                self._take(lane, claimed, run.asked_at)
            if claimed is None or (claimed.tasks and claimed.more and claimed.in_flight < claimed.limit):
                lane.again = True
        self._settled(lane)

    def broken_off(self, run: Run) -> None:
        """By the drain: to be handed back."""
        self._unfinished.append(run.task)
        self.finished(run, None)

    def _close(self, run: Run) -> None:
        self._lanes.remove(run, self._loop.time())
        if self._lanes.waiting:
            self._kick.set()
        if self._leaving and not self._lanes.open:
            self._emptied.set()

    # --- lost replies and leaving -----------------------------------------------------------------

    def doubt(self, lane: Lane) -> None:
        """A reply that may have brought tasks was lost: find out before the client is claimed for again."""
        if not lane.doubtful:
            lane.doubtful = True
            self._ask(self._recover(lane), self._answered)

    async def _recover(self, lane: Lane) -> None:
        try:
            await self._returns.recover(lane, lambda: self._leaving)
        finally:
            lane.doubtful = False
            lane.again = True
            self._settled(lane)


def _report(scheduler: Scheduler, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("service_failed", error=repr(error), exc_info=error)
