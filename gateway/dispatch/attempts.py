"""One claimed task's way through: call, outcome, finish. Which task runs and when is `dispatcher`'s
business."""

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from gateway import metrics
from gateway.dispatch.claims import Claims, Finished
from gateway.dispatch.lanes import Run
from gateway.dispatch.leases import Leases
from gateway.dispatch.retry import retry_delay
from gateway.dispatch.sender import Sender
from gateway.errors import StoreUnavailable
from gateway.log import tells_debug
from gateway.models import Attempt, ClaimedTask, Outcome, Verdict
from gateway.tracing.context import trace_id

log = structlog.get_logger()

# Between tries to store an outcome while Redis is away.
FINISH_AGAIN_SECONDS = 0.1
FINISH_AGAIN_CAP_SECONDS = 2.0


class Attempts:
    """Makes attempts and stores their outcomes."""

    def __init__(self, claims: Claims, sender: Sender, leases: Leases) -> None:
        self._claims = claims
        self._sender = sender
        self._leases = leases
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    async def call(self, run: Run) -> Outcome | None:
        """Make the call. None: the claim was lost meanwhile, and the task with it."""
        if not self._leases.watch(run):
            return None
        task = run.task
        late = task.claimed_at - task.due_at
        metrics.started_after(late / 1000 if late > 0 else 0.0)
        run.sending = True
        try:
            outcome = await self._sender.send(task, task.timeout) if task.unreadable is None else _unreadable(task)
        except asyncio.CancelledError:
            if not run.lost or run.worker is None:
                raise
            # The cancellation was ours and has done its work; unless the process is leaving too.
            if run.worker.uncancel() > 0:
                raise
            return None
        except Exception:
            log.exception("sender_failed", client=task.client_id, task=task.task_id)
            outcome = _internal_error()
        finally:
            run.sending = False
            self._leases.unwatch(run)
        metrics.attempt(task.client_id, task.url, outcome)
        return outcome

    async def finish(
        self, run: Run, outcome: Outcome, want: Callable[[], int], lost_reply: Callable[[], None]
    ) -> Finished:
        """Store the outcome, again and again until Redis answers: an outcome is never dropped for an outage.

        Safe to repeat, since finish is fenced: one that went through while its reply got lost answers that
        the task isn't owned. ``want`` is asked before each try; ``lost_reply`` is told where a claim may
        have gone astray.
        """
        retry_in = self._retry_in(run.task, outcome)
        wait = FINISH_AGAIN_SECONDS
        while True:
            places = want()
            try:
                finished = await self._claims.finish(run.task, outcome, retry_in=retry_in, want=places)
            except StoreUnavailable as exc:
                if places and exc.unknown:
                    lost_reply()
            else:
                _log_finished(run.task, outcome, retry_in, finished.owned)
                return finished
            finally:
                if places:
                    run.lane.asking -= 1
            await asyncio.sleep(wait * self._random.uniform(0.5, 1))
            wait = min(wait * 2, FINISH_AGAIN_CAP_SECONDS)

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
