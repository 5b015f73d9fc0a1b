"""Starts what may start: claims for lanes in turn, runs what was claimed, drains when told to leave. What wakes lanes
is in `waking`, an attempt in `attempts`, leases in `leases`, what goes back unstarted in `returns`; limits and pauses
are checked by the claim, in Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

from gateway import metrics
from gateway.dispatch.asked import Asked, AskedWithAdmission, ask_with_admission
from gateway.dispatch.attempts import Attempts
from gateway.dispatch.claims import Claimed, Claims
from gateway.dispatch.lanes import STUCK_SECONDS, Lane, Lanes, Run
from gateway.dispatch.leases import Leases
from gateway.dispatch.returns import Returns
from gateway.dispatch.running import CLOSE_SECONDS, Running, stop
from gateway.dispatch.sender import Sender
from gateway.dispatch.waking import Waking
from gateway.errors import StoreUnavailable
from gateway.models import ClaimedTask, Outcome

log = structlog.get_logger()

CLAIMS_AT_ONCE = 32
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
        self._claims = claims
        self._drain_seconds = drain_seconds
        self._waking = Waking(claims, wake=self._wake, on_due=on_due, polled=self._look_over)
        self._returns = Returns(claims, self._waking)
        self._lanes = Lanes(max_in_flight)
        metrics.set_max_in_flight(max_in_flight)
        metrics.show_in_flight(lambda: self._lanes.open)
        self._leases = Leases(claims, self._lanes, lease_seconds)
        self._attempts = Attempts(claims, sender, self._leases)
        self._running: Running | None = None
        self._kick = asyncio.Event()
        self._later = False  # will give turns again in a moment, whatever happens until then
        self._leaving = False
        self._service: list[asyncio.Task[None]] = []
        self._renewal: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()  # claims and recoveries in flight
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
        return not self._leaving and not self._waking.outage and self._running is not None and self._lanes.has_room

    def places(self, client_id: str) -> AskedWithAdmission | None:
        """Those for what an admission of the client, which is sent now, may start; None where it is claimed later."""
        places = ask_with_admission(self._lanes, client_id, self._loop) if self.has_room() else None
        if places is not None:
            self._ask(self._claim(places.asked, places.claimed()))
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
        self._running = Running(self._run, self._not_begun, self._drain_seconds)
        self._service = [
            asyncio.create_task(self._feed()),
            asyncio.create_task(self._waking.poll()),
            asyncio.create_task(self._waking.listen()),
        ]
        self._renewal = asyncio.create_task(self._leases.keep())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Drain: claim no more, let what runs finish within ``drain_seconds``, hand back the rest at once."""
        self._leaving = True
        await stop(self._service)
        if self._running is not None:
            # Claims in flight are waited for, not cancelled: a cancelled one may have taken tasks all the
            # same.
            await asyncio.gather(self._running.drain(), self._settle())
        if self._unfinished:
            await self._returns.give_back(self._unfinished)
        # Only now: calls that drain need their leases.
        await stop([self._renewal] if self._renewal is not None else [])

    async def _settle(self) -> None:
        end = self._loop.time() + self._drain_seconds + CLOSE_SECONDS
        while self._asking:  # a claim whose reply is lost is followed by a look for what it took
            _, late = await asyncio.wait(self._asking, timeout=max(0.0, end - self._loop.time()))
            await stop(late)

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
                self._ask(self._claim(asked, self._claims.claim(lane.client_id, want, asked.chances)))
            if self._lanes.waits_for_kept and not self._later:
                self._later = True
                self._loop.call_later(STUCK_SECONDS, self._look_later)

    def _look_later(self) -> None:
        self._later = False
        self._kick.set()

    def _ask(self, coro: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coro)
        self._asking.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._kick.set()
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("claim_failed", error=repr(exc), exc_info=exc)

    async def _claim(self, asked: Asked, answer: Awaitable[Claimed | None]) -> None:
        lane = asked.lane
        claimed: Claimed | None = None
        try:
            claimed = await answer
        except StoreUnavailable as exc:
            self._waking.note_outage(exc)
            if exc.unknown:
                self._doubt(lane)
            lane.again = True
        finally:
            asked.settled()
        if claimed is not None:
            lane.full = len(claimed.tasks) < asked.want and claimed.in_flight >= claimed.limit
            await self._take(lane, claimed, asked.sent)
            if claimed.tasks and claimed.more:
                lane.again = True
        self._settled(lane)

    async def _take(self, lane: Lane, claimed: Claimed, proof: float) -> None:
        """Start what was claimed; or, on the way out, hand it back unstarted."""
        if self._leaving or self._running is None:
            await self._returns.give_back(claimed.tasks)
            return
        runs = [self._lanes.add(lane, task, proof) for task in claimed.tasks]
        lane.fit(claimed.limit)
        if runs:
            await self._running.start(runs)

    def _settled(self, lane: Lane) -> None:
        """A request for the lane is answered: queue it again if it was woken meanwhile, drop it if it's
        idle."""
        if lane.again and not lane.asking and not lane.doubtful:
            lane.again = False
            self._wake(lane.client_id)
        self._lanes.drop_idle(lane)

    # --- running ----------------------------------------------------------------------------------

    def _not_begun(self, run: Run) -> None:
        self._unfinished.append(run.task)
        self._close(run)

    async def _run(self, run: Run) -> None:
        outcome: Outcome | None = None
        try:
            async with run.lane.gate:
                outcome = await self._attempts.call(run)
            if outcome is not None:
                await self._finish(run, outcome)
        except asyncio.CancelledError:
            # With an outcome its finish may be on its way, and a hand-back could only repeat the call.
            if outcome is None and not run.lost:
                self._unfinished.append(run.task)
            raise
        finally:
            self._close(run)
            self._settled(run.lane)

    async def _finish(self, run: Run, outcome: Outcome) -> None:
        lane = run.lane
        sent = 0.0

        def want() -> int:
            nonlocal sent
            sent = self._loop.time()
            # No second request that may claim while one is in doubt: see _recover.
            if self._leaving or lane.doubtful or not self._lanes.may_keep:
                return 0
            lane.asking += 1
            return 1

        finished = await self._attempts.finish(run, outcome, want, lambda: self._doubt(lane))
        self._close(run)
        claimed = finished.claimed
        if claimed is not None:
            await self._take(lane, claimed, sent)
        if claimed is None or (claimed.tasks and claimed.more and claimed.in_flight < claimed.limit):
            lane.again = True

    def _close(self, run: Run) -> None:
        self._lanes.remove(run, self._loop.time())
        if self._lanes.waiting:
            self._kick.set()

    # --- lost replies and leaving -----------------------------------------------------------------

    def _doubt(self, lane: Lane) -> None:
        """A reply that may have brought tasks was lost: find out before the client is claimed for again."""
        if not lane.doubtful:
            lane.doubtful = True
            self._ask(self._recover(lane))

    async def _recover(self, lane: Lane) -> None:
        try:
            await self._returns.recover(lane, lambda: self._leaving)
        finally:
            lane.doubtful = False
            lane.again = True
            self._settled(lane)
