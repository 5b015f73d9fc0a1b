"""The upkeep's ticks on a real server, and its loops over ticks that fail."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis
from conftest import until

from gateway import metrics
from gateway.dispatch.upkeep import (
    AUDIT_SECONDS,
    AUDIT_STEP_SECONDS,
    BATCH,
    BUSY_SECONDS,
    PROMOTE_SECONDS,
    Upkeep,
)
from gateway.errors import StoreUnavailable
from gateway.models import Admitted, Task, TaskSpec
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.audit import Audited

LEASE = 0.5


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    async with open_store(Settings.load({"LEASE_SECONDS": str(LEASE)}), store_url) as opened:
        yield opened


@pytest.fixture
async def raw(store_url: str) -> AsyncIterator[Any]:
    async with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


async def admit(store: Store, delay: float = 0, client_id: str = "acme") -> str:
    task = Task(queue="default", method="POST", url="http://target/", headers={}, body=None, delay=delay)
    spec = TaskSpec(task, requests_per_min=10_000)
    admitted = await store.tasks.admit(client_id, spec, create=True)
    assert isinstance(admitted, Admitted)
    return admitted.task_id


async def test_a_promotion_moves_what_is_due_and_says_when_to_look_again(store: Store) -> None:
    """Nothing scheduled: the longest pause. Something due soon: a pause until then. Due: moved."""
    upkeep = Upkeep(store.claims, store.audit, LEASE)
    assert await upkeep.promote_once() == PROMOTE_SECONDS
    await admit(store, delay=60)
    assert await upkeep.promote_once() == PROMOTE_SECONDS
    await admit(store, delay=0.3)
    assert BUSY_SECONDS <= await upkeep.promote_once() <= 0.3

    async def moved() -> bool:
        await upkeep.promote_once()
        return (await store.windows.usage("acme")).queued == 1

    await until(moved)
    assert (await store.windows.usage("acme")).scheduled == 1


async def test_a_reclaim_takes_lapsed_claims_back_and_goes_on_while_there_are_more(store: Store) -> None:
    """Within the lease nothing is taken; after it everything, without a pause after a full batch."""
    upkeep = Upkeep(store.claims, store.audit, LEASE)
    await store.clients.update("acme", lambda _: store.clients.new("acme"))
    for _ in range(3):
        await admit(store)
    assert len((await store.claims.claim("acme", 3)).tasks) == 3
    assert await upkeep.reclaim_once() == LEASE / 6
    assert (await store.windows.usage("acme")).in_flight == 3

    async def taken_back() -> bool:
        await upkeep.reclaim_once()
        return (await store.windows.usage("acme")).in_flight == 0

    await until(taken_back)
    again = await store.claims.claim("acme", 3)
    assert [task.attempt for task in again.tasks] == [2, 2, 2]
    assert await Upkeep(Ticks(taken=BATCH), Ticks(), LEASE).reclaim_once() == BUSY_SECONDS


async def test_an_audit_mends_and_tells(store: Store, raw: Any) -> None:
    """A client with work that was taken off the ready set by hand is ready again; metric and pause tell."""
    metrics.configure(10, None)
    upkeep = Upkeep(store.claims, store.audit, LEASE)
    await admit(store)
    assert await upkeep.audit_once() == AUDIT_SECONDS
    assert violations("stranded") == 0
    await raw.delete("ready")
    await upkeep.audit_once()
    assert await store.claims.ready(10) == ["acme"]
    assert violations("stranded") == 1


async def test_an_audit_goes_on_soon_where_its_round_is_not_over(store: Store) -> None:
    """A full stretch of clients is followed by the next one, not by the pause between rounds."""
    for number in range(BATCH + 1):
        await admit(store, client_id=f"client-{number}")
    upkeep = Upkeep(store.claims, store.audit, LEASE)
    assert await upkeep.audit_once() == AUDIT_STEP_SECONDS
    assert await upkeep.audit_once() == AUDIT_SECONDS


def violations(kind: str) -> float:
    """What the metric says of a kind."""
    line = f'gateway_invariant_violations_total{{kind="{kind}"}} '
    page = metrics.render()[0].decode()
    return next(float(row.removeprefix(line)) for row in page.splitlines() if row.startswith(line))


class Ticks:
    """Claims of an upkeep that fail as told; counts the calls."""

    def __init__(self, taken: int = 0, failures: list[Exception] | None = None) -> None:
        self.taken = taken
        self.failures = failures or []
        self.promotions = 0

    async def promote_due(self, limit: int) -> float | None:
        self.promotions += 1
        if self.failures:
            raise self.failures.pop()
        return None

    async def reclaim_lapsed(self, limit: int) -> int:
        return self.taken

    async def stretch(self, limit: int) -> Audited:
        return Audited([], more=False)


async def test_the_due_doorbell_hurries_the_promotion() -> None:
    """Told that something is due, the upkeep looks at once instead of at the end of its pause."""
    ticks = Ticks()
    async with Upkeep(ticks, ticks, LEASE) as upkeep:
        await until(lambda: ticks.promotions == 1)
        began = asyncio.get_running_loop().time()
        for n in range(2, 12):
            upkeep.due()
            await until(lambda: ticks.promotions >= n)  # noqa: B023 - awaited within the turn
    assert asyncio.get_running_loop().time() - began < 9 * PROMOTE_SECONDS


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), ValueError("odd record")])
async def test_a_tick_that_fails_is_made_again(failure: Exception) -> None:
    """Neither an outage nor a defect ends the upkeep."""
    ticks = Ticks(failures=[failure])
    async with Upkeep(ticks, ticks, LEASE):
        await until(lambda: ticks.promotions >= 2)
