"""The audit on a real server: each kind of damage, done by hand, is found, told and mended; health is left alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as redis

from gateway import metrics
from gateway.models import Admitted, Attempt, ClaimedTask, Outcome, Task, TaskSpec, Verdict
from gateway.settings import Settings
from gateway.store import Store, open_store

STREAM = "stream:acme:default"
GROUP = "client:acme"
DELIVERED = Outcome(
    verdict=Verdict.DELIVERED,
    attempt=Attempt(status=200, error=None, started_at=1_700_000_000_000, duration_ms=1, body=""),
    reason="http 200",
)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    async with open_store(Settings.load({}), store_url) as opened:
        yield opened


@pytest.fixture
async def raw(store_url: str) -> AsyncIterator[Any]:
    async with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


async def admit(store: Store, **changes: Any) -> str:
    task = Task(queue="default", method="POST", url="http://target/", headers={}, body=None, **changes)
    spec = TaskSpec(task, requests_per_min=100)
    admitted = await store.tasks.admit("acme", spec, create=True)
    assert isinstance(admitted, Admitted)
    return admitted.task_id


async def claim(store: Store) -> ClaimedTask:
    return (await store.claims.claim("acme", 1)).tasks[0]


async def kinds(store: Store, *, mend: bool = True) -> set[str]:
    """What is wrong with the one client."""
    return {found.kind async for _, each in store.audit.everything(mend=mend) for found in each}


async def forget_pending_task(store: Store, raw: Any) -> None:
    await admit(store, expires_at=2_000_000_000_000)  # so that it has a record
    task = await claim(store)
    await raw.delete(f"task:{task.task_id}")


async def drop_pending_entry(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.xdel(STREAM, (await claim(store)).entry)


async def note_a_stranger_as_returned(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.zadd("returned:acme", {"nobody": 1})


async def forget_that_something_was_taken_back(store: Store, raw: Any) -> None:
    await admit(store)
    await store.claims.hand_back([await claim(store)])
    await raw.hdel("counts:acme", "returned")


async def note_a_running_task_as_returned(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.zadd("returned:acme", {(await claim(store)).task_id: 1})


async def schedule_a_stranger(store: Store, raw: Any) -> None:
    await admit(store, delay=60)
    await raw.zadd("scheduled:acme", {"nobody": 1})


async def forget_due(store: Store, raw: Any) -> None:
    await admit(store, delay=60)
    await raw.delete("due")


async def miscount(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.hincrby("counts:acme", "tasks", 3)


async def forget_active(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.delete("active")


async def forget_leases(store: Store, raw: Any) -> None:
    await admit(store)
    await claim(store)
    await raw.delete("leases")


async def forget_ready(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.delete("ready")


async def miscount_the_window(store: Store, raw: Any) -> None:
    await admit(store)
    await raw.hincrby("counts:acme", "n", 2)


DAMAGES = {
    "ghost": [forget_pending_task, drop_pending_entry],
    "returned": [
        note_a_stranger_as_returned,
        note_a_running_task_as_returned,
        forget_that_something_was_taken_back,
    ],
    "scheduled": [schedule_a_stranger],
    "due": [forget_due],
    "depth": [miscount],
    "active": [forget_active],
    "lease": [forget_leases],
    "stranded": [forget_ready],
    "window": [miscount_the_window],
}


@pytest.mark.parametrize(("kind", "damage"), [(kind, each) for kind, all_ in DAMAGES.items() for each in all_])
async def test_damage_is_found_told_and_mended(
    store: Store, raw: Any, kind: str, damage: Callable[[Store, Any], Awaitable[None]]
) -> None:
    """Looking without mending changes nothing; mending leaves nothing to find, and the client's work can go on."""
    await damage(store, raw)
    assert kind in await kinds(store, mend=False)
    assert kind in await kinds(store)
    assert await kinds(store) == set()
    task_id = await admit(store)
    assert task_id in {task.task_id for task in (await store.claims.claim("acme", 3)).tasks}


def test_every_kind_has_a_label_from_the_start() -> None:
    """An alert on an increase sees the first violation only where the series was there before."""
    assert set(DAMAGES) | {"lanes"} == set(metrics.INVARIANTS)


async def test_consumers_of_processes_that_are_gone_are_dropped(
    store: Store, store_url: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer goes once it is idle with nothing pending; one that holds a task stays, whatever its age."""
    monkeypatch.setattr("gateway.store.audit._IDLE_MS", -1)
    await admit(store)
    held = await claim(store)
    await admit(store)
    async with open_store(Settings.load({}), store_url) as gone:
        await gone.claims.finish(await claim(gone), DELIVERED, retry_in=None)
    assert len(await raw.xinfo_consumers(STREAM, GROUP)) == 2
    assert await kinds(store) == set()
    assert [row["name"] for row in await raw.xinfo_consumers(STREAM, GROUP)] == [store.consumer]
    assert (await store.claims.finish(held, DELIVERED, retry_in=None)).owned


async def test_streams_of_an_idle_client_go_and_come_back(
    store: Store, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client with nothing left keeps no stream; its next task makes one again."""
    monkeypatch.setattr("gateway.store.audit._IDLE_MS", -1)
    await admit(store)
    await store.claims.finish(await claim(store), DELIVERED, retry_in=None)
    await kinds(store)
    assert await raw.exists(STREAM, "queues:acme", "counts:acme", "active") == 0
    task_id = await admit(store)
    assert (await claim(store)).task_id == task_id
