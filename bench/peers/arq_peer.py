"""arq: a sorted set that is polled twice a second, as shipped; a job's data and result are keys of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import common
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker


@asynccontextmanager
async def queue(url: str) -> AsyncIterator[common.Put]:
    """Enqueues jobs."""
    pool = await create_pool(RedisSettings.from_dsn(url))

    async def put(task: dict[str, Any]) -> str:
        job = await pool.enqueue_job("fire", task)
        return str(job.job_id)

    yield put
    await pool.aclose()


async def work(url: str) -> None:
    """Runs jobs."""
    async with common.calls() as call:

        async def fire(_: dict[str, Any], task: dict[str, Any]) -> None:
            await call(task)

        fire.__qualname__ = "fire"
        worker = Worker([fire], redis_settings=RedisSettings.from_dsn(url), max_jobs=common.OPEN, handle_signals=False)
        await worker.async_run()


common.main(queue, work)
