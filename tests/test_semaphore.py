"""The semaphore of a lane, whose size changes while it is held."""

import asyncio

from gateway.dispatch.lanes import LaneSemaphore


async def test_a_semaphore_that_shrinks_waits_for_its_holders() -> None:
    """Places taken away go as they are released; nobody is interrupted, and growing again pays the debt first."""
    gate = LaneSemaphore(3)
    for _ in range(3):
        await gate.acquire()
    gate.resize(1)
    gate.release()
    gate.release()
    assert gate.locked()
    gate.release()
    assert not gate.locked()
    await gate.acquire()
    assert gate.locked()
    gate.resize(2)
    assert not gate.locked()
    gate.resize(1)
    assert gate.locked()


async def test_a_semaphore_takes_any_size_at_once_and_lets_waiters_in() -> None:
    """The largest limit there is does not hold up the loop; those who wait get their places, the rest is free."""
    gate = LaneSemaphore(1)
    await gate.acquire()
    waiting = [asyncio.create_task(gate.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    gate.resize(2)
    await asyncio.sleep(0)
    assert [one.done() for one in waiting] == [True, False, False]
    gate.resize(2**31 - 1)
    await asyncio.gather(*waiting)
    gate.resize(4)
    assert gate.locked()
    gate.release()
    assert not gate.locked()


async def test_no_more_places_are_taken_at_once_than_there_are() -> None:
    """Nor one that goes to somebody who waits."""
    gate = LaneSemaphore(1)
    assert gate.take()
    assert not gate.take()
    waiting = asyncio.create_task(gate.acquire())
    await asyncio.sleep(0)
    gate.release()
    assert not gate.take()
    await waiting
    gate.release()
    assert gate.take()
    assert gate.locked()
