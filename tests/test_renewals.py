"""Renewing the leases of many clients: in one round trip, and for those that were answered for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace

import pytest
from conftest import until
from proxy import proxy_to
from stores import admit as admit_one

from gateway.dispatch.lanes import Lanes
from gateway.dispatch.leases import TRIES, Leases
from gateway.errors import StoreUnavailable
from gateway.models import ClaimedTask
from gateway.settings import Settings
from gateway.store import Store, open_store

LEASE = 1.0


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    async with open_store(Settings.load({}), store_url) as opened:
        yield opened


async def test_the_claims_of_many_clients_are_renewed_in_one_round_trip(store_url: str) -> None:
    """All are asked for before the first answer is there: how long it takes does not grow with the clients."""
    names = [f"client-{number}" for number in range(5)]
    async with proxy_to(store_url.removeprefix("unix://")) as line, open_store(Settings.load({}), line.url) as store:
        for name in names:
            await admit_one(store, name)
        tasks = [task for name in names for task in (await store.claims.claim(name, 1)).tasks]
        line.sent.clear()
        line.answering.clear()
        renewing = asyncio.create_task(store.claims.renew(tasks))
        await until(lambda: all(name.encode() in line.sent for name in names))
        assert not renewing.done()
        line.answering.set()
        assert await renewing == []


async def test_a_renewal_that_is_answered_for_some_clients_holds_for_them(store: Store) -> None:
    """Where the line breaks in the middle of it, only the calls whose answers were lost come nearer to their end; they
    are asked for first the next time."""
    lanes = Lanes(10)
    proofs = {}
    for name in ("kept", "lost"):
        await admit_one(store, name)
        [task] = (await store.claims.claim(name, 1)).tasks
        lanes.wake(name)
        lane = lanes.find(name)
        assert lane is not None
        proofs[name] = lanes.add(lane, task, 0.0)

    asked = []

    async def renew(tasks: Sequence[ClaimedTask]) -> list[ClaimedTask]:
        asked.append(tasks[0].client_id)
        if tasks[0].client_id == "lost":
            raise StoreUnavailable("lost", unknown=True)
        return await store.claims.renew(tasks)

    leases = Leases(SimpleNamespace(renew=renew), lanes, LEASE)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await leases.renew_once()
    assert proofs["kept"].proof > 0.0
    assert proofs["lost"].proof == 0.0
    assert asked == ["kept", *["lost"] * TRIES, *["lost"] * TRIES, "kept"]


async def test_a_line_that_breaks_again_and_again_costs_no_lease(store: Store) -> None:
    """A renewal that is lost with somebody else's reply is asked for again at once, in the same round."""
    lanes = Lanes(10)
    await admit_one(store, "acme")
    [task] = (await store.claims.claim("acme", 1)).tasks
    lanes.wake("acme")
    lane = lanes.find("acme")
    assert lane is not None
    run = lanes.add(lane, task, 0.0)
    losses = [StoreUnavailable("lost", unknown=True)] * (TRIES - 1)

    async def renew(tasks: Sequence[ClaimedTask]) -> list[ClaimedTask]:
        if losses:
            raise losses.pop()
        return await store.claims.renew(tasks)

    await Leases(SimpleNamespace(renew=renew), lanes, LEASE).renew_once()  # type: ignore[arg-type]
    assert losses == []
    assert run.proof > 0.0
