"""What a process does every few seconds for monitoring, whatever comes in: the CPU of it and of Valkey."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from bench.valkey import Valkey, client_id, valkey
from gateway import metrics
from gateway.models import Attempt, Outcome, Task, TaskSpec, Verdict
from gateway.settings import Settings
from gateway.store import open_store
from gateway.store.counting import SECONDS, Booking
from gateway.store.gauges import show

CLIENTS: Final = (100, 1000)
_CALLED: Final = Outcome(
    verdict=Verdict.DELIVERED,
    attempt=Attempt(status=204, error=None, started_at=0, duration_ms=12.5, body=None),
    reason="http 204",
)
_TASK: Final = Task(queue="default", method="POST", url="http://127.0.0.1:9000/", headers={}, body=None)
_SPEC: Final = TaskSpec(_TASK, requests_per_min=1_000_000)
_HEAD: Final = f"""\
Milliseconds of CPU a round, of which there is one in {SECONDS:g} s, with so many clients at work.

| clients |  | gateway ms | of a core | Valkey ms | of a core |
| --- | --- | --- | --- | --- | --- |"""


def table(turns: int) -> str:
    """The table, as Markdown; each row is the mean of so many rounds."""
    lines = [_HEAD]
    for clients in CLIENTS:
        with valkey(clients) as redis:
            lines += uvloop.run(_rows(redis, clients, turns))
    return "\n".join(lines)


async def _rows(redis: Valkey, clients: int, turns: int) -> list[str]:
    metrics.configure(clients, None)
    settings = Settings.load({"REDIS_URL": redis.url})
    names = [client_id(number) for number in range(clients)]
    async with open_store(settings, redis.url) as store:
        await asyncio.gather(*(store.tasks.admit(name, _SPEC, create=False) for name in names))
        booking = Booking(store.usages)

        async def usage() -> None:
            await booking.flush()

        async def gauges() -> None:
            show(await store.figured.look(), store.tiers.prices)

        def work() -> None:
            for name in names:
                metrics.enqueued(name, "default")
                metrics.attempt(name, _TASK.url, _CALLED)

        return [
            f"| {clients:,} | {what} | {await _measured(redis, turns, each, work)} |"
            for what, each in (("usage and sums handed on", usage), ("gauges of all clients, in one process", gauges))
        ]


async def _measured(redis: Valkey, turns: int, each: Callable[[], Awaitable[None]], work: Callable[[], None]) -> str:
    own = 0.0
    before = redis.process.cpu()
    for number in range(turns + 1):
        work()
        began = time.process_time()
        await each()
        if number:  # the first one looks everything up
            own += time.process_time() - began
        else:
            before = redis.process.cpu()
    spent = (own / turns, (redis.process.cpu() - before) / turns)
    return " | ".join(f"{seconds * 1000:.1f} | {seconds / SECONDS:.2%}" for seconds in spent)
