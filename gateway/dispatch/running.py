"""What was claimed runs as jobs of a scheduler, one for what came together: a drain waits for them all, then ends what
is left. What a run does is `dispatcher`'s business."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog
from aiojobs import Scheduler

from gateway.dispatch.lanes import Run

log = structlog.get_logger()

CLOSE_SECONDS = 1.0


class Running:
    """``run`` makes one call; ``not_begun`` is told of those that the end of the drain comes before."""

    def __init__(
        self, run: Callable[[Run], Coroutine[Any, Any, None]], not_begun: Callable[[Run], None], drain_seconds: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._run = run
        self._not_begun = not_begun
        self._drain_seconds = drain_seconds
        self._scheduler = Scheduler(
            limit=None,
            close_timeout=CLOSE_SECONDS,
            wait_timeout=drain_seconds,
            exception_handler=_report,
        )

    async def start(self, runs: list[Run]) -> None:
        """Run what was claimed together."""
        await self._scheduler.spawn(self._all(runs) if len(runs) > 1 else self._alone(runs[0]))

    async def drain(self) -> None:
        """Let what runs end by itself for as long as it may, then cancel it."""
        await self._scheduler.wait_and_close(self._drain_seconds)

    async def _alone(self, run: Run) -> None:
        # The job's own task will do, and the call leaves a turn of the loop sooner.
        run.worker = asyncio.current_task()
        try:
            await self._run(run)
        except Exception as error:
            log.exception("job_failed", error=repr(error))

    async def _all(self, runs: list[Run]) -> None:
        """Cancelled only by the drain."""
        workers = [self._loop.create_task(self._run(run)) for run in runs]
        for run, worker in zip(runs, workers, strict=True):
            run.worker = worker
        try:
            await asyncio.wait(workers)
        except asyncio.CancelledError:
            await stop(workers)
            for run in runs:
                if run.key in run.lane.runs and not run.lost:
                    self._not_begun(run)
            raise
        for worker in workers:
            if not worker.cancelled() and (error := worker.exception()) is not None:
                log.error("job_failed", error=repr(error), exc_info=error)


def _report(scheduler: Scheduler, context: dict[str, Any]) -> None:
    exc = context.get("exception")
    log.error("run_failed", error=repr(exc), exc_info=exc)


async def stop(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them and wait for their end."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
