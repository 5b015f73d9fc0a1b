"""What starts and who may end it, on a real server: claims, limits, fences, leases, what is handed back."""

import asyncio
import time
from typing import Any

from conftest import until
from stores import Key, Opened, admit, lapse, limit, one_claim, outcome, state

from gateway.models import (
    State,
    Verdict,
)


async def test_claims_never_exceed_the_limit_over_two_dispatchers(opened: Opened) -> None:
    """Forty concurrent claims through two stores start five calls where five are allowed."""
    first, second = await opened(), await opened()
    await limit(first, "acme", 5)
    for _ in range(40):
        await admit(first)
    claims = await asyncio.gather(*(store.claims.claim("acme", 3) for store in (first, second) * 20))
    assert sum(len(claim.tasks) for claim in claims) == 5
    assert (await first.windows.usage("acme")).in_flight == 5


async def test_a_new_limit_holds_for_the_next_start(opened: Opened, raw: Any, key: Key) -> None:
    """A limit changed behind the gateway's back is what the next claim goes by; a deleted client has default's."""
    store = await opened()
    for _ in range(10):
        await admit(store)
    assert len((await store.claims.claim("acme", 10)).tasks) == 3
    await raw.set(
        key("client_config:acme"),
        '{"client_id":"acme","rate_limit":{"max_concurrent":5,"requests_per_min":9},"tier":""}',
    )
    assert len((await store.claims.claim("acme", 10)).tasks) == 2
    await raw.set(key("client_config:acme"), "not json")
    claim = await store.claims.claim("acme", 10)
    assert (claim.tasks, claim.limit) == ([], 3)


async def test_an_override_starts_while_fewer_than_its_own_bound_are_in_flight(opened: Opened) -> None:
    """A task with a bound of 5 starts beside three others where the limit is 3; a fourth plain one does not."""
    store = await opened()
    for _ in range(3):
        await admit(store)
    assert len((await store.claims.claim("acme", 10)).tasks) == 3
    await admit(store, bound=5, queue="urgent")
    await admit(store)
    claim = await store.claims.claim("acme", 10)
    assert [task.queue for task in claim.tasks] == ["urgent"]


async def test_queues_share_by_weight_and_keep_their_order(opened: Opened) -> None:
    """With weights 6, 3 and 1 twenty starts fall 12, 6 and 2, each queue in the order of its tasks."""
    store = await opened()
    await limit(store, "acme", 100)
    ids: dict[str, list[str]] = {"critical": [], "default": [], "low": []}
    for queue, kept in ids.items():
        for _ in range(30):
            kept.append(await admit(store, queue=queue))
    claim = await store.claims.claim("acme", 20)
    taken = {queue: [task.task_id for task in claim.tasks if task.queue == queue] for queue in ids}
    assert {queue: len(tasks) for queue, tasks in taken.items()} == {"critical": 12, "default": 6, "low": 2}
    for queue, tasks in taken.items():
        assert tasks == ids[queue][: len(tasks)]


async def test_a_finish_is_fenced(opened: Opened) -> None:
    """After the lease lapsed and another took the task, the first owner's finish and renewal change nothing."""
    slow, fast = await opened(LEASE_SECONDS="0.5"), await opened(LEASE_SECONDS="0.5")
    task = await one_claim(slow)

    async def reclaimed() -> bool:
        return await fast.claims.reclaim_lapsed(10) == 1

    await until(reclaimed)
    again = (await fast.claims.claim("acme", 1)).tasks[0]
    assert (again.task_id, again.attempt) == (task.task_id, 2)
    assert (await slow.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None)).owned is False
    assert await slow.claims.renew([task]) == [task]
    assert await state(fast, task.task_id) == State.RUNNING
    assert (await fast.claims.finish(again, outcome(Verdict.DELIVERED), retry_in=None)).owned is True
    assert (await fast.claims.finish(again, outcome(Verdict.DELIVERED), retry_in=None)).owned is False
    assert await state(fast, task.task_id) == State.SUCCEEDED


async def test_a_renewed_lease_does_not_lapse(opened: Opened) -> None:
    """A claim renewed within its lease is not taken back, however long the call takes."""
    store = await opened(LEASE_SECONDS="1")
    task = await one_claim(store)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert await store.claims.renew([task]) == []
        assert await store.claims.reclaim_lapsed(10) == 0
        await asyncio.sleep(0.1)
    assert await state(store, task.task_id) == State.RUNNING


async def test_a_task_that_keeps_killing_its_dispatcher_is_buried(opened: Opened) -> None:
    """After three deliveries without an outcome the task is dead and says why."""
    store = await opened(LEASE_SECONDS="0.5")
    task_id = await admit(store)

    async def dead() -> bool:
        await store.claims.claim("acme", 1)
        await store.claims.reclaim_lapsed(10)
        return await state(store, task_id) == State.DEAD

    await until(dead)
    view = await store.tasks.view("acme", task_id)
    assert view is not None
    assert view.reason == "no outcome after 3 deliveries"
    assert (await store.windows.usage("acme")).in_flight == 0


async def test_tasks_on_their_last_chance_start_apart_and_let_others_go_first(opened: Opened) -> None:
    """Those under which two processes died wait where a claim has no chance for them, and start as many as it has; what
    comes after them does not wait, and a finish brings none."""
    store = await opened(LEASE_SECONDS="0.5")
    await limit(store, "acme", 5)
    doubtful = [await admit(store) for _ in range(3)]
    for _ in range(2):
        assert len((await store.claims.claim("acme", 5)).tasks) == 3
        await lapse(store, 3)
    fresh = await admit(store)
    none = await store.claims.claim("acme", 5, 0)
    assert ([task.task_id for task in none.tasks], none.more) == ([fresh], True)
    assert await store.claims.ready(10) == ["acme"]
    brought = (await store.claims.finish(none.tasks[0], outcome(Verdict.DELIVERED), retry_in=None, want=5)).claimed
    assert brought is not None
    assert (brought.tasks, brought.more) == ([], True)
    first = await store.claims.claim("acme", 5, 1)
    assert ([task.task_id for task in first.tasks], first.more) == (doubtful[:1], True)
    assert first.tasks[0].suspect
    rest = await store.claims.claim("acme", 5, 2)
    assert ([task.task_id for task in rest.tasks], rest.more) == (doubtful[1:], False)


async def test_a_claim_whose_task_was_deleted_frees_its_slot(opened: Opened, raw: Any, key: Key) -> None:
    """A client at its limit of one whose running task vanished by hand starts its next one once the lease lapsed."""
    store = await opened(LEASE_SECONDS="0.5")
    await limit(store, "acme", 1)
    task = await one_claim(store)
    waiting = await admit(store)
    assert not (await store.claims.claim("acme", 1)).tasks  # at its limit, and noted as such
    await raw.xdel(key("stream:acme:default"), task.entry)

    async def ready() -> bool:
        await store.claims.reclaim_lapsed(10)
        return await store.claims.ready(10) == ["acme"]

    await until(ready)
    assert [each.task_id for each in (await store.claims.claim("acme", 1)).tasks] == [waiting]


async def test_what_is_handed_back_comes_first_and_in_its_old_order(opened: Opened) -> None:
    """A drain's tasks start again before the others, in order, and none of them counts as delivered."""
    store = await opened()
    ids = [await admit(store) for _ in range(6)]
    claim = await store.claims.claim("acme", 3)
    await store.claims.hand_back(list(reversed(claim.tasks)))
    again = await store.claims.claim("acme", 3)
    assert [task.task_id for task in again.tasks] == ids[:3]
    assert {task.attempt for task in again.tasks} == {1}
    assert {task.fence for task in again.tasks} == {2}


async def test_a_lost_claim_reply_holds_its_slots_no_longer_than_it_must(opened: Opened) -> None:
    """What is pending under this consumer and unknown to it goes back at once; what it knows stays."""
    store = await opened()
    for _ in range(3):
        await admit(store)
    known, *_ = (await store.claims.claim("acme", 3)).tasks
    assert await store.claims.hand_back_unknown("acme", [known]) == 2
    assert (await store.windows.usage("acme")).in_flight == 1
    assert await store.claims.renew([known]) == []


async def test_the_ready_set_holds_a_client_exactly_while_it_can_start_something(opened: Opened) -> None:
    """Admit puts it there, a claim that leaves nothing takes it off, a finish puts it back, no audit objects."""
    store = await opened()
    for _ in range(4):
        await admit(store)
    assert await store.claims.ready(10) == ["acme"]
    claim = await store.claims.claim("acme", 3)
    assert await store.claims.ready(10) == []  # at its limit
    await admit(store)
    assert await store.claims.ready(10) == []  # still
    await store.claims.finish(claim.tasks[0], outcome(Verdict.DELIVERED), retry_in=None)
    assert await store.claims.ready(10) == ["acme"]
    finished = await store.claims.finish(claim.tasks[1], outcome(Verdict.DELIVERED), retry_in=None, want=5)
    assert finished.claimed is not None
    assert len(finished.claimed.tasks) == 2
    assert not (await store.audit.stretch(100)).violations


async def test_a_stream_that_was_deleted_comes_back_with_its_group(opened: Opened, raw: Any, key: Key) -> None:
    """After DEL of a stream by hand, what is admitted next is claimed all the same."""
    store = await opened()
    await admit(store)
    await raw.delete(key("stream:acme:default"))
    task_id = await admit(store)
    assert [task.task_id for task in (await store.claims.claim("acme", 5)).tasks] == [task_id]
