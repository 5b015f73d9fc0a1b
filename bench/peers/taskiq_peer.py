"""taskiq with taskiq-redis's stream broker, the one of its brokers that acknowledges."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import common
from taskiq import AsyncBroker
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker


def broker(url: str) -> RedisStreamBroker:
    """The broker, reading from the beginning so that what was queued before the worker is run."""
    return RedisStreamBroker(url, consumer_id="0")


@asynccontextmanager
async def queue(url: str) -> AsyncIterator[common.Put]:
    """Enqueues messages."""
    jobs = broker(url)
    fire = jobs.register_task(_nothing, "fire")
    await jobs.startup()

    async def put(task: dict[str, Any]) -> str:
        sent = await fire.kiq(task)
        return sent.task_id

    yield put
    await jobs.shutdown()


async def _nothing(task: dict[str, Any]) -> None:
    """The sending side knows the task's name only."""


async def work(url: str) -> None:
    """Runs messages."""
    async with common.calls() as call:

        async def fire(task: dict[str, Any]) -> None:
            await call(task)

        jobs: AsyncBroker = broker(url)
        jobs.is_worker_process = True
        jobs.register_task(fire, "fire")
        await run_receiver_task(jobs, max_async_tasks=common.OPEN, run_startup=True)


common.main(queue, work)
