"""How tasks wait and end, on a real server: the schedule, expiry, cancellation, what is kept of them."""

import time
from typing import Any

import msgspec
import pytest
from conftest import until
from deployments import Deployment
from stores import Key, Opened, admit, one_claim, outcome, state

from gateway.models import (
    State,
    Verdict,
)


async def test_a_retry_waits_in_the_schedule_and_holds_no_slot(opened: Opened) -> None:
    """A failed attempt moves to the schedule with its attempts kept, and starts again when it is due."""
    store = await opened()
    task = await one_claim(store)
    await store.claims.finish(task, outcome(Verdict.RETRY, 503), retry_in=0.2)
    view = await store.tasks.view("acme", task.task_id)
    assert view is not None
    assert (view.state, view.attempts) == (State.RETRYING, 1)
    assert view.next_attempt_at is not None
    assert view.last_attempt is not None
    assert view.last_attempt.status == 503
    assert (await store.windows.usage("acme")).in_flight == 0

    async def due() -> bool:
        await store.claims.promote_due(10)
        return await state(store, task.task_id) == State.QUEUED

    await until(due)
    again = (await store.claims.claim("acme", 1)).tasks[0]
    assert (again.attempt, again.failures) == (2, 1)


async def test_a_result_is_packed_as_short_as_any_record(opened: Opened, deployment: Deployment, key: Key) -> None:
    """The gateway packs it and not Redis: there are many, so no length takes more bytes than it needs."""
    store = await opened()
    task = await one_claim(store)
    await store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None)
    async with deployment.raw(decode=False) as raw:
        record = await raw.get(key(f"task:{task.task_id}"))
    assert record == msgspec.msgpack.encode(msgspec.msgpack.decode(record))


async def test_an_early_start_is_impossible(opened: Opened) -> None:
    """A delayed task is in no stream before its time, and promotion says how long that is."""
    store = await opened()
    task_id = await admit(store, delay=60)
    wait = await store.claims.promote_due(10)
    assert wait is not None
    assert 50 < wait <= 60
    assert await state(store, task_id) == State.SCHEDULED
    assert (await store.claims.claim("acme", 1)).tasks == []


async def test_a_task_past_its_expiry_is_buried_instead_of_started(opened: Opened) -> None:
    """Not started by `expires_at`: dead, reason expired; the next one starts."""
    store = await opened()
    expired = await admit(store, expires_at=int(time.time() * 1000) - 1)
    fresh = await admit(store)
    claim = await store.claims.claim("acme", 1)
    assert [task.task_id for task in claim.tasks] == [fresh]
    view = await store.tasks.view("acme", expired)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, "expired")


@pytest.mark.parametrize("delay", [0, 60])
async def test_what_waits_can_be_cancelled_once(opened: Opened, delay: float) -> None:
    """Cancelling ends a queued or scheduled task for good; a second time it has ended already."""
    store = await opened()
    task_id = await admit(store, delay=delay)
    cancelled = await store.tasks.cancel("acme", task_id)
    assert cancelled is not None
    assert (cancelled[0].state, cancelled[1]) == (State.CANCELLED, True)
    again = await store.tasks.cancel("acme", task_id)
    assert again is not None
    assert again[1] is False
    assert (await store.claims.claim("acme", 1)).tasks == []
    assert (await store.windows.usage("acme")).queued == 0
    assert await store.tasks.cancel("other", task_id) is None


async def test_a_running_task_is_not_cancelled(opened: Opened) -> None:
    """What runs goes on."""
    store = await opened()
    task = await one_claim(store)
    answer = await store.tasks.cancel("acme", task.task_id)
    assert answer is not None
    assert (answer[0].state, answer[1]) == (State.RUNNING, False)


async def test_results_and_dead_letters_are_bounded(opened: Opened, raw: Any, key: Key) -> None:
    """The oldest results and dead letters go, their records with them."""
    store = await opened(MAX_RESULTS_PER_CLIENT="2", MAX_DEAD_PER_CLIENT="1")
    for verdict in [Verdict.DELIVERED] * 4 + [Verdict.REFUSED] * 3:
        task = await one_claim(store)
        await store.claims.finish(task, outcome(verdict, 404), retry_in=None)
    assert await raw.zcard(key("ended:acme")) == 2
    assert await raw.zcard(key("dead:acme")) == 1
    assert len(await raw.keys("task:*")) == 3
    assert (await store.windows.usage("acme")).dead == 1
    for name in await raw.keys("task:*"):
        assert await raw.ttl(name) > 0
