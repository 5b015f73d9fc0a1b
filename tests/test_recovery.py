"""The dispatcher on a real server whose replies get lost or never come: every task is called, once where it can be."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from conftest import until

from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.lanes import Lane
from gateway.dispatch.upkeep import Upkeep
from gateway.errors import StoreUnavailable
from gateway.models import (
    Admitted,
    Attempt,
    ClaimedTask,
    Client,
    Outcome,
    RateLimit,
    State,
    Task,
    TaskSpec,
    Verdict,
)
from gateway.settings import Settings
from gateway.store import Store, open_store

LEASE = 1.0
DELIVERED = Outcome(
    verdict=Verdict.DELIVERED,
    attempt=Attempt(status=200, error=None, started_at=0, duration_ms=1, body=""),
    reason="http 200",
)


class Calls:
    """A sender that records its calls and answers them once told to."""

    def __init__(self) -> None:
        self.tasks: list[ClaimedTask] = []
        self.cancelled: list[ClaimedTask] = []
        self.open = 0
        self.go = asyncio.Event()

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        self.tasks.append(task)
        self.open += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(task)
            raise
        finally:
            self.open -= 1
        return DELIVERED


class Faulty:
    """The store's claims; what is in ``lost`` is carried out and its reply lost, what is in ``away`` never arrives."""

    def __init__(self, store: Store) -> None:
        self._claims = store.claims
        self.lost: list[str] = []
        self.away: set[str] = set()
        self.recovered = 0

    async def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name in self.away:
            raise StoreUnavailable("away")
        answer = await getattr(self._claims, name)(*args, **kwargs)
        if name in self.lost:
            self.lost.remove(name)
            raise StoreUnavailable("lost", unknown=True)
        return answer

    async def ready(self, limit: int) -> Sequence[str]:
        found: Sequence[str] = await self._do("ready", limit)
        return found

    async def claim(self, client_id: str, want: int, chances: int) -> Any:
        return await self._do("claim", client_id, want, chances)

    async def finish(self, task: ClaimedTask, outcome: Outcome, *, retry_in: float | None, want: int = 0) -> Any:
        return await self._do("finish", task, outcome, retry_in=retry_in, want=want)

    async def renew(self, tasks: Any) -> Any:
        return await self._do("renew", tasks)

    async def hand_back(self, tasks: Any) -> None:
        await self._do("hand_back", tasks)

    async def hand_back_unknown(self, client_id: str, known: Any) -> int:
        count: int = await self._do("hand_back_unknown", client_id, known)
        self.recovered += count
        return count

    async def listen(self, on_ready: Any, on_due: Any) -> None:
        await self._claims.listen(on_ready, on_due)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    async with open_store(Settings.load({"LEASE_SECONDS": str(LEASE)}), store_url) as opened:
        yield opened


async def admit(store: Store, count: int, limit: int = 5) -> list[str]:
    def change(client: Client | None) -> Client:
        new = client or store.clients.new("acme")
        return msgspec.structs.replace(new, rate_limit=RateLimit(limit, 10_000), source="client")

    await store.clients.update("acme", change)
    ids = []
    for _ in range(count):
        task = Task(queue="default", method="POST", url="http://t/", headers={}, body=None)
        spec = TaskSpec(task, requests_per_min=10_000)
        admitted = await store.tasks.admit("acme", spec, create=False)
        assert isinstance(admitted, Admitted)
        ids.append(admitted.task_id)
    return ids


def dispatcher(claims: Faulty, calls: Calls, lease: float = 30, drain: float = 5) -> Dispatcher:
    return Dispatcher(claims, calls, max_in_flight=20, lease_seconds=lease, drain_seconds=drain)


async def in_flight(store: Store) -> int:
    return (await store.windows.usage("acme")).in_flight


async def states(store: Store, ids: list[str]) -> set[State]:
    views = [await store.tasks.view("acme", task_id) for task_id in ids]
    return {view.state for view in views if view is not None}


async def test_what_a_lost_reply_of_a_claim_brought_is_handed_back_and_called_once(store: Store) -> None:
    """Far sooner than their lease ends, and no slot stays taken."""
    claims, calls = Faulty(store), Calls()
    claims.lost = ["claim"]
    calls.go.set()
    ids = await admit(store, 12)
    async with dispatcher(claims, calls) as running:
        await until(lambda: len(calls.tasks) == 12)
        await until(lambda: running.in_flight == 0)
    assert claims.recovered == 5
    assert sorted(task.task_id for task in calls.tasks) == sorted(ids)
    assert {task.attempt for task in calls.tasks} == {1}
    assert await states(store, ids) == {State.SUCCEEDED}


async def test_what_a_lost_reply_of_a_finish_brought_is_handed_back_and_called_once(store: Store) -> None:
    """The finish is repeated and changes nothing; the task that came along with it starts after all."""
    claims, calls = Faulty(store), Calls()
    claims.lost = ["finish", "finish"]
    ids = await admit(store, 12)
    async with dispatcher(claims, calls) as running:
        await until(lambda: len(calls.tasks) == 5)
        calls.go.set()
        await until(lambda: len(calls.tasks) == 12)
        await until(lambda: running.in_flight == 0)
    assert claims.recovered > 0
    assert sorted(task.task_id for task in calls.tasks) == sorted(ids)
    assert await states(store, ids) == {State.SUCCEEDED}


async def test_a_call_whose_task_was_taken_over_is_aborted(store: Store, store_url: str) -> None:
    """Redis says at the renewal that the claim is another's: the call ends, and nothing is finished or handed back."""
    claims, calls = Faulty(store), Calls()
    (task_id,) = await admit(store, 1)
    async with dispatcher(claims, calls, lease=3), open_store(Settings.load({}), store_url) as other:
        await until(lambda: calls.open == 1)
        (task,) = calls.tasks
        # As when Redis's clock jumps: the lease is over before its owner thinks so, and another is faster.
        claims.away = {"claim"}
        await store.claims.hand_back([task])
        (taken,) = (await other.claims.claim("acme", 1)).tasks
        assert taken.task_id == task_id
        await until(lambda: calls.cancelled == [task])
        assert await in_flight(store) == 1
        assert (await other.claims.finish(taken, DELIVERED, retry_in=None)).owned
    assert await states(store, [task_id]) == {State.SUCCEEDED}


async def test_an_outcome_kept_past_its_lease_leaves_the_next_claim_of_the_task_alone(store: Store) -> None:
    """Its lease ended while its finish could not be stored, and this process claimed the task again: the old outcome is
    refused, the new call is renewed, finished and counted by itself."""
    claims, calls = Faulty(store), Calls()
    (task_id,) = await admit(store, 1)
    async with Upkeep(store.claims, store.audit, LEASE), dispatcher(claims, calls, lease=LEASE) as running:
        await until(lambda: calls.open == 1)
        claims.away = {"finish", "renew"}
        calls.go.set()
        await until(lambda: calls.open == 0)
        calls.go.clear()
        await until(lambda: len(calls.tasks) == 2)
        claims.away = set()
        began = asyncio.get_running_loop().time()
        await until(lambda: running.in_flight == 1)
        # Longer than a lease: the second call is renewed, so nobody takes it over.
        await until(lambda: asyncio.get_running_loop().time() - began > 1.5 * LEASE)
        assert calls.open == 1
        calls.go.set()
        await until(lambda: running.in_flight == 0)
    assert [task.attempt for task in calls.tasks] == [1, 2]
    assert await states(store, [task_id]) == {State.SUCCEEDED}


async def test_a_drain_ends_in_time_while_redis_is_away(store: Store) -> None:
    """Neither what can't be finished nor what can't be handed back holds the stop up; leases end by themselves."""
    claims, calls = Faulty(store), Calls()
    ids = await admit(store, 5)
    loop = asyncio.get_running_loop()
    async with dispatcher(claims, calls, drain=0.5):
        await until(lambda: calls.open == 5)
        claims.away = {"finish", "hand_back", "renew", "ready", "claim"}
        began = loop.time()
    assert loop.time() - began < 5
    assert len(calls.cancelled) == 5
    assert await states(store, ids) == {State.RUNNING}
    async with Upkeep(store.claims, store.audit, LEASE):

        async def taken_back() -> bool:
            return await in_flight(store) == 0

        await until(taken_back)
    assert await states(store, ids) == {State.QUEUED}


async def test_a_task_that_was_lost_before_its_call_is_not_called(store: Store) -> None:
    """A renewal may tell so between the claim and the call."""
    await admit(store, 1)
    calls = Calls()
    running = dispatcher(Faulty(store), calls)
    (task,) = (await store.claims.claim("acme", 1)).tasks
    run = running._lanes.add(Lane("acme"), task, asyncio.get_running_loop().time())
    run.abort()
    running._attempts.begin(run)
    await until(lambda: running.in_flight == 0)
    assert calls.tasks == []
    assert await in_flight(store) == 1  # left to its owner


async def test_a_finish_that_is_repeated_does_not_end_the_next_attempt(store: Store) -> None:
    """Its reply was lost, the task was retried and claimed by the same process: the delivery count is 1 again."""
    (task_id,) = await admit(store, 1)
    (first,) = (await store.claims.claim("acme", 1)).tasks
    failed = msgspec.structs.replace(DELIVERED, verdict=Verdict.RETRY)
    assert (await store.claims.finish(first, failed, retry_in=0)).owned

    async def claimed() -> bool:
        await store.claims.promote_due(10)
        return bool((await store.claims.claim("acme", 1)).tasks)

    await until(claimed)
    assert (await store.claims.finish(first, failed, retry_in=0)).owned is False
    assert await store.claims.renew([first]) == [first]
    await store.claims.hand_back([first])
    assert await states(store, [task_id]) == {State.RUNNING}
    assert await in_flight(store) == 1


async def test_a_lost_claim_is_found_beside_a_known_one_of_another_queue(store: Store) -> None:
    """Entry ids are unique in one stream only: two queues may hold the same."""
    await admit(store, 0)
    specs = [
        TaskSpec(Task(queue=queue, method="POST", url="http://t/", headers={}, body=None), requests_per_min=100)
        for queue in ("one", "two")
    ]
    await store.tasks.admit_many("acme", specs, create=False)
    known, lost = (await store.claims.claim("acme", 2)).tasks
    assert known.entry == lost.entry
    assert await store.claims.hand_back_unknown("acme", [known]) == 1
    assert await store.claims.renew([known, lost]) == [lost]
