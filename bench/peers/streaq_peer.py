"""streaq: streams, with a record a task, on coredis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import common
from streaq import Worker


@asynccontextmanager
async def queue(url: str) -> AsyncIterator[common.Put]:
    """Enqueues tasks."""
    worker = Worker(redis_url=url)

    @worker.task(name="fire")
    async def fire(task: dict[str, Any]) -> None:
        """The sending side knows the task's name only."""

    async def put(task: dict[str, Any]) -> str:
        sent = await fire.enqueue(task)
        return str(sent.id)

    async with worker:
        yield put


async def work(url: str) -> None:
    """Runs tasks."""
    async with common.calls() as call:
        worker = Worker(redis_url=url, concurrency=common.OPEN, handle_signals=False)

        @worker.task(name="fire")
        async def fire(task: dict[str, Any]) -> None:
            await call(task)

        await worker.run_async()


common.main(queue, work)
