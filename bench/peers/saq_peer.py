"""SAQ: a list, and a JSON record a job."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import common
from saq import Queue, Worker


@asynccontextmanager
async def queue(url: str) -> AsyncIterator[common.Put]:
    """Enqueues jobs."""
    jobs = Queue.from_url(url)
    await jobs.connect()

    async def put(task: dict[str, Any]) -> str:
        job = await jobs.enqueue("fire", task=task)
        return str(job.key)

    yield put
    await jobs.disconnect()


async def work(url: str) -> None:
    """Runs jobs."""
    async with common.calls() as call:

        async def fire(_: dict[str, Any], *, task: dict[str, Any]) -> None:
            await call(task)

        jobs = Queue.from_url(url)
        await jobs.connect()
        await Worker(jobs, functions=[("fire", fire)], concurrency=common.OPEN).start()


common.main(queue, work)
