"""One claimed task's way through: call, outcome, finish. Which task runs and when is `dispatcher`'s business.

Each step begins when the one before it tells of its end. A task of the loop for each call would cost more than the
call's own request and answer do.
"""

import asyncio
import random
import time
from functools import partial
from typing import Protocol

import structlog

from gateway import metrics
from gateway.dispatch.claims import Claims, Finished
from gateway.dispatch.lanes import Lane, Run
from gateway.dispatch.leases import Leases
from gateway.dispatch.retry import retry_delay
from gateway.dispatch.sender import Sender
from gateway.errors import StoreUnavailable
from gateway.futures import begun
from gateway.log import tells_debug
from gateway.models import Attempt, ClaimedTask, Outcome, Verdict
from gateway.tracing.context import trace_id

log = structlog.get_logger()

# Between tries to store an outcome while Redis is away.
FINISH_AGAIN_SECONDS = 0.1
FINISH_AGAIN_CAP_SECONDS = 2.0


class Told(Protocol):
    """Who is told of the ends of attempts."""

    def want(self, run: Run) -> int:
        """How many tasks the finish that is about to be sent may bring: one, counted as the lane's request, or none."""

    def doubt(self, lane: Lane) -> None:
        """A reply that may have brought tasks was lost."""

    def broken_off(self, run: Run) -> None:
        """The call was, and neither because its claim was lost nor with an outcome."""

    def finished(self, run: Run, finished: Finished | None) -> None:
        """The outcome is stored, or (None) it won't be."""


class Attempts:
    """Makes attempts and stores their outcomes."""

    def __init__(self, claims: Claims, sender: Sender, leases: Leases, told: Told) -> None:
        self._loop = asyncio.get_running_loop()
        self._claims = claims
        self._sender = sender
        self._leases = leases
        self._told = told
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._closed = False

    def close(self) -> None:
        """Try no more to store what could not be stored yet."""
        self._closed = True

    # --- calling ----------------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Make the call: at once where the lane's semaphore has a place."""
        run.placed = run.lane.gate.take()
        call = run.call = self._call(run) if run.placed else self._loop.create_task(self._in_turn(run))
        call.add_done_callback(partial(self._called, run))

    async def _in_turn(self, run: Run) -> Outcome | None:
        run.placed = await run.lane.gate.acquire()
        return await self._call(run)

    def _call(self, run: Run) -> asyncio.Future[Outcome | None]:
        """The outcome to come; None: the claim was lost meanwhile, and the task with it."""
        task = run.task
        if not self._leases.watch(run):
            return self._known(None)
        late = task.claimed_at - task.due_at
        metrics.started_after(late / 1000 if late > 0 else 0.0)
        if task.unreadable is not None:
            return self._known(_unreadable(task))
        return begun(self._sender.send, task, task.timeout)

    def _known(self, outcome: Outcome | None) -> asyncio.Future[Outcome | None]:
        known: asyncio.Future[Outcome | None] = self._loop.create_future()
        known.set_result(outcome)
        return known

    def _called(self, run: Run, call: asyncio.Future[Outcome | None]) -> None:
        self._leases.unwatch(run)
        if run.placed:
            run.lane.gate.release()
        try:
            if not call.cancelled():
                outcome = self._outcome(run.task, call)
            elif run.lost:
                outcome = None  # the cancellation was ours, and has done its work
            else:
                self._told.broken_off(run)
                return
            if outcome is None:
                self._told.finished(run, None)
            else:
                self._store(run, outcome, self._retry_in(run.task, outcome))
        except Exception as error:
            self._failed(run, error)

    @staticmethod
    def _outcome(task: ClaimedTask, call: asyncio.Future[Outcome | None]) -> Outcome | None:
        if (error := call.exception()) is not None:
            log.error("sender_failed", client=task.client_id, task=task.task_id, exc_info=error)
        outcome = call.result() if error is None else _internal_error()
        if outcome is not None:
            metrics.attempt(task.client_id, task.url, outcome)
        return outcome

    # --- storing ----------------------------------------------------------------------------------

    def _store(
        self, run: Run, outcome: Outcome, retry_in: float | None, again_in: float = FINISH_AGAIN_SECONDS
    ) -> None:
        """Store the outcome, again and again until Redis answers: an outcome is never dropped for an outage.

        Safe to repeat, since finish is fenced: one that went through while its reply got lost answers that
        the task isn't owned.
        """
        if self._closed:
            self._told.finished(run, None)
            return
        run.wanted = self._told.want(run)
        stored = begun(self._claims.finish, run.task, outcome, retry_in=retry_in, want=run.wanted)
        stored.add_done_callback(partial(self._stored, run, outcome, retry_in, again_in))

    def _stored(
        self, run: Run, outcome: Outcome, retry_in: float | None, again_in: float, stored: asyncio.Future[Finished]
    ) -> None:
        run.lane.asking -= run.wanted
        try:
            error = asyncio.CancelledError() if stored.cancelled() else stored.exception()
            if error is None:
                finished = stored.result()
                _log_finished(run.task, outcome, retry_in, finished.owned)
                self._told.finished(run, finished)
            elif isinstance(error, StoreUnavailable):
                if run.wanted and error.unknown:
                    self._told.doubt(run.lane)
                wait = again_in * self._random.uniform(0.5, 1)
                again_in = min(again_in * 2, FINISH_AGAIN_CAP_SECONDS)
                self._loop.call_later(wait, self._store, run, outcome, retry_in, again_in)
            else:
                self._failed(run, error)
        except Exception as error:
            self._failed(run, error)

    def _failed(self, run: Run, error: BaseException) -> None:
        """A defect. The task is left to its lease."""
        log.error("run_failed", client=run.task.client_id, task=run.task.task_id, exc_info=error)
        self._told.finished(run, None)

    def _retry_in(self, task: ClaimedTask, outcome: Outcome) -> float | None:
        if outcome.verdict is not Verdict.RETRY or task.failures >= task.max_retry:
            return None
        return retry_delay(task.failures + 1, outcome.retry_after, self._random)


def _unreadable(task: ClaimedTask) -> Outcome:
    """No call is made, and no other try would be: a dead letter, which can be replayed once its key is there again."""
    reason = task.unreadable or ""
    attempt = Attempt(status=None, error=reason, started_at=int(time.time() * 1000), duration_ms=0, body=None)
    return Outcome(verdict=Verdict.REFUSED, attempt=attempt, reason=reason)


def _internal_error() -> Outcome:
    attempt = Attempt(status=None, error="internal error", started_at=int(time.time() * 1000), duration_ms=0, body=None)
    return Outcome(verdict=Verdict.RETRY, attempt=attempt, reason="internal error")


def _log_finished(task: ClaimedTask, outcome: Outcome, retry_in: float | None, owned: bool) -> None:
    quiet = owned and (outcome.verdict is Verdict.DELIVERED or retry_in is not None)
    if quiet and not tells_debug():
        return
    told = {"client": task.client_id, "task": task.task_id, "attempt": task.attempt, "reason": outcome.reason}
    if task.trace:
        told["trace_id"] = trace_id(task.trace)
    if not owned:
        log.info("task_not_owned", **told)
    elif quiet:
        log.debug("task_finished", verdict=outcome.verdict.value, retry_in=retry_in, **told)
    else:
        log.warning("task_dead", **told)
