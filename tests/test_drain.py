"""A process that leaves takes nothing along that it could give back."""

import asyncio
from collections.abc import Sequence
from typing import Any

from conftest import until
from in_memory import Calls, Finished, Memory, dispatcher

from gateway.dispatch.dispatcher import Dispatcher
from gateway.models import ClaimedTask


async def once_it_leaves(running: Dispatcher, go: asyncio.Event) -> None:
    """Set ``go`` well into its drain."""
    await until(lambda: running.leaving)
    asyncio.get_running_loop().call_later(0.1, go.set)


async def test_what_a_finish_brings_on_the_way_out_is_handed_back_before_the_end() -> None:
    """Its request was sent before the process was told to leave, and nothing else was under way."""
    sent, go = asyncio.Event(), asyncio.Event()

    class Slow(Memory):
        async def finish(self, *args: Any, **kwargs: Any) -> Finished:
            sent.set()
            await go.wait()
            return await super().finish(*args, **kwargs)

        async def hand_back(self, tasks: Sequence[ClaimedTask]) -> None:
            await asyncio.sleep(0.05)  # a round trip that takes as long
            await super().hand_back(tasks)

    claims, calls = Slow({"one": 2}, limit=1), Calls()
    calls.go.set()
    async with dispatcher(claims, calls) as running:
        await sent.wait()
        leaves = asyncio.create_task(once_it_leaves(running, go))
    await leaves
    assert [task.task_id for task in claims.returned] == ["one-1"]


async def test_a_drain_ends_with_its_last_call() -> None:
    """And not when its time is up."""
    claims, calls = Memory({"one": 3}), Calls()
    loop = asyncio.get_running_loop()
    async with dispatcher(claims, calls, drain=30) as running:
        await until(lambda: len(calls.open) == 3)
        leaves = asyncio.create_task(once_it_leaves(running, calls.go))
        before = loop.time()
    await leaves
    assert loop.time() - before < 20
    assert len(claims.ended) == 3


async def test_outcomes_that_can_not_be_stored_are_left_to_their_leases_at_the_end() -> None:
    """They are neither handed back, which would repeat the call, nor tried for ever."""
    claims, calls = Memory({"one": 3}), Calls()
    claims.finish_failures = 10_000
    calls.go.set()
    async with dispatcher(claims, calls, drain=0.2) as running:
        await until(lambda: claims.finish_failures < 10_000)
    assert claims.returned == []
    await until(lambda: running.in_flight == 0)  # given up: no other try is on its way
