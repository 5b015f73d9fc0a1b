"""A task that is admitted by itself starts in the same step: what is claimed with it, what is not, and what becomes of
places that nothing fills."""

import asyncio
from typing import Any

import pytest
from conftest import until
from proxy import Proxy
from stores import Key, Opened, Taker, limit, outcome, spec, state
from test_dispatcher import Calls, Memory, dispatcher, make

from gateway.dispatch.asked import AskedWithAdmission
from gateway.dispatch.dispatcher import Dispatcher
from gateway.errors import StoreUnavailable
from gateway.models import Admission, Admitted, Duplicate, RateLimited, State, Verdict
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.claimed import Claimed


async def taken(store: Store, taker: Taker, **changes: Any) -> Admission:
    return await store.tasks.admit("acme", spec(**changes), create=True, claimer=taker)


async def test_what_is_admitted_alone_starts_in_the_same_step(opened: Opened) -> None:
    """It is this process's claim like any other: it is in flight, nobody else looks for it, it is renewed and ended."""
    store, other = await opened(), await opened()
    await limit(store, "acme", 2)
    taker = Taker(2)
    answer = await taken(store, taker)
    assert isinstance(answer, Admitted)
    assert answer.claimed
    assert taker.claimed is not None
    [task] = taker.claimed.tasks
    assert (task.task_id, task.attempt, task.body) == (answer.task_id, 1, b"hello")
    assert (taker.claimed.limit, taker.claimed.more, taker.claimed.in_flight) == (2, False, 1)
    assert (await store.windows.usage("acme")).in_flight == 1
    assert await other.claims.ready(10) == []
    assert await other.claims.renew([task]) == [task]
    assert await store.claims.renew([task]) == []
    assert (await store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None)).owned
    assert await state(store, task.task_id) is State.SUCCEEDED


async def test_what_waited_before_goes_first_and_the_rest_stays_ready(opened: Opened) -> None:
    """The new task takes no place from older ones, and where more waits than was wanted, dispatchers find it."""
    store = await opened()
    await limit(store, "acme", 10)
    older = [await taken(store, Taker(0)) for _ in range(2)]
    taker = Taker(2)
    await taken(store, taker)
    assert taker.claimed is not None
    assert [task.task_id for task in taker.claimed.tasks] == [one.task_id for one in older if isinstance(one, Admitted)]
    assert taker.claimed.more
    assert await store.claims.ready(10) == ["acme"]


async def test_what_expired_and_is_buried_on_the_way_leaves_the_sum_of_all_clients(
    opened: Opened, raw: Any, key: Key
) -> None:
    """The claim that goes with an admission counts after it."""
    store = await opened()
    await taken(store, Taker(0), expires_at=1)
    taker = Taker(2)
    await taken(store, taker)
    assert taker.claimed is not None
    assert len(taker.claimed.tasks) == 1
    usage = await store.windows.usage("acme")
    assert (usage.in_flight, usage.queued, usage.dead) == (1, 0, 1)
    assert await raw.hget(key("totals"), "n") == "1"


async def test_at_its_limit_a_client_gets_no_start_with_an_admission(opened: Opened) -> None:
    """Admissions that ask for places never start more than the limit allows, and what they leave starts at the end of a
    call."""
    store = await opened()
    await limit(store, "acme", 3)
    takers = [Taker(2) for _ in range(10)]
    answers = [await taken(store, taker) for taker in takers]
    started = [task for taker in takers if taker.claimed is not None for task in taker.claimed.tasks]
    assert len(started) == 3
    assert [answer.claimed for answer in answers if isinstance(answer, Admitted)] == [True] * 3 + [False] * 7
    finished = await store.claims.finish(started[0], outcome(Verdict.DELIVERED), retry_in=None, want=1)
    assert finished.claimed is not None
    assert len(finished.claimed.tasks) == 1


async def test_nothing_is_claimed_where_nothing_was_added(opened: Opened) -> None:
    """Neither for a task that waits for its time, nor for a duplicate, nor where the window is used up."""
    store = await opened()
    await limit(store, "acme", 10)
    later, again, refused = Taker(2), Taker(2), Taker(2)
    assert isinstance(await taken(store, later, delay=60), Admitted)
    await taken(store, Taker(0), idempotency_key="once", fingerprint=b"same")
    assert isinstance(await taken(store, again, idempotency_key="once", fingerprint=b"same"), Duplicate)
    assert isinstance(await taken(store, refused, requests_per_min=2), RateLimited)
    assert [taker.claimed for taker in (later, again, refused)] == [None] * 3
    assert await store.claims.ready(10) == ["acme"]


async def test_what_travels_together_is_claimed_later(opened: Opened) -> None:
    """Of requests of one moment none asks for places: their claims travel together, too."""
    store = await opened()
    taker = Taker(2)
    await asyncio.gather(*(taken(store, taker) for _ in range(5)))
    assert taker.asked == 0
    assert len((await store.claims.claim("acme", 10)).tasks) == 3


async def test_what_has_to_be_confirmed_is_claimed_later(opened: Opened) -> None:
    """With DURABILITY no task starts before its admission is confirmed, so none is claimed with it."""
    store = await opened(DURABILITY="wait", DURABILITY_REPLICAS="9", DURABILITY_TIMEOUT="0.1")
    taker = Taker(2)
    with pytest.raises(StoreUnavailable):
        await taken(store, taker)
    assert taker.asked == 0


async def test_a_claim_that_fails_leaves_its_admission(opened: Opened, raw: Any, key: Key) -> None:
    """Where the client's settings can't be read, its task is admitted all the same, and looked for again."""
    store = await opened()
    await limit(store, "acme", 10)
    await raw.delete(key("client_config:acme"))
    await raw.rpush(key("client_config:acme"), "a list")
    taker = Taker(2)
    assert isinstance(await taken(store, taker), Admitted)
    assert taker.problem is not None
    assert taker.problem.unknown
    assert await store.claims.ready(10) == ["acme"]


async def test_a_call_begins_without_a_claim_of_its_own(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the admission of an idle client's task to its call nothing more is asked of Redis."""
    store, calls = await opened(), Calls()
    asked: list[str] = []
    claim = store.claims.claim

    async def counted(client_id: str, want: int, chances: int | None = None) -> Claimed:
        asked.append(client_id)
        return await claim(client_id, want, chances)

    monkeypatch.setattr(store.claims, "claim", counted)
    async with Dispatcher(store.claims, calls, max_in_flight=20, lease_seconds=30, drain_seconds=5) as running:
        answer = await store.tasks.admit("acme", spec(), create=True, claimer=running)
        assert isinstance(answer, Admitted)
        await until(lambda: len(calls.open) == 1)
        calls.go.set()
        await until(lambda: running.lanes == 0)
        assert await state(store, answer.task_id) is State.SUCCEEDED
    assert asked == []


async def test_an_admission_that_outlasts_the_drain_is_answered(line: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain waits for its places only so long; who asked hears of the task all the same."""
    monkeypatch.setattr("gateway.dispatch.dispatcher.CLOSE_SECONDS", 0)
    async with open_store(Settings.load({"REDIS_URL": line.url}), line.url) as store:
        await limit(store, "acme", 1)
        async with Dispatcher(store.claims, Calls(), max_in_flight=20, lease_seconds=30, drain_seconds=0) as running:
            line.answering.clear()
            line.sent.clear()
            admission = asyncio.ensure_future(store.tasks.admit("acme", spec(), create=False, claimer=running))
            await until(lambda: b"hello" in line.sent)
        line.answering.set()
        assert isinstance(await admission, Admitted)
        assert (await store.windows.usage("acme")).in_flight == 1


@pytest.mark.parametrize("leaving", [False, True])
async def test_what_a_lost_reply_had_claimed_goes_back(line: Proxy, store_url: str, *, leaving: bool) -> None:
    """Redis claimed and nobody heard of it: it is found within a moment, also by a process that is leaving."""
    calls = Calls()
    settings = Settings.load({"REDIS_URL": line.url})
    async with open_store(settings, line.url) as store, open_store(settings, store_url) as other:
        await limit(store, "acme", 1)
        await store.tasks.admit("other", spec(), create=True, claimer=Taker(1))  # Redis has the script
        running = Dispatcher(store.claims, calls, max_in_flight=20, lease_seconds=30, drain_seconds=5)
        await running.__aenter__()
        line.answering.clear()
        admission = asyncio.ensure_future(store.tasks.admit("acme", spec(), create=False, claimer=running))

        async def in_flight(number: int) -> bool:
            return (await other.windows.usage("acme")).in_flight == number

        await until(lambda: in_flight(1))
        left = asyncio.create_task(running.__aexit__(None, None, None)) if leaving else None
        await until(lambda: running.leaving == leaving)
        line.cut()
        line.answering.set()
        with pytest.raises(StoreUnavailable) as lost:
            await admission
        assert lost.value.unknown
        if left is None:
            await until(lambda: len(calls.open) == 1)
            calls.go.set()
            await until(lambda: running.lanes == 0)
            await running.__aexit__(None, None, None)
        else:
            await left
            assert len((await other.claims.claim("acme", 1)).tasks) == 1
            assert calls.peak == 0


# --- the dispatcher's side --------------------------------------------------------------------------------------------


def asked_of(running: Dispatcher, client_id: str) -> AskedWithAdmission:
    places = running.places(client_id)
    assert places is not None
    return places


async def test_places_are_for_clients_with_nothing_here() -> None:
    """One at a time: a client that is being claimed for, or has calls open, gets its next ones as before."""
    claims, calls = Memory({"one": 0}), Calls()
    async with dispatcher(claims, calls) as running:
        places = asked_of(running, "one")
        assert running.places("one") is None
        claims.waiting["one"].append(make("one", 0))
        places.fill(lambda: claims.take("one", places.want))
        await until(lambda: len(calls.open) == 1)
        assert running.places("one") is None
        claims.waiting["one"].append(make("one", 1))
        running.admitted("one")
        await until(lambda: len(calls.open) == 2)
        calls.go.set()
        await until(lambda: running.lanes == 0)


async def test_places_that_nothing_fills_are_free_again() -> None:
    """What an admission did not start leaves nothing behind, and does not hold up what comes next."""
    claims, calls = Memory({"one": 0}), Calls()
    async with dispatcher(claims, calls, size=10) as running:
        for _ in range(50):
            asked_of(running, "one").fill(lambda: None)
            await until(lambda: running.lanes == 0)
        assert running.has_room()


async def test_a_drain_waits_for_an_admission_that_may_start_something() -> None:
    """What it starts after all is handed back unstarted, and nobody gets places any more."""
    claims, calls = Memory({"one": 1}), Calls()
    claims.waiting["one"].clear()
    running = dispatcher(claims, calls)
    await running.__aenter__()
    places = asked_of(running, "one")
    leaving = asyncio.create_task(running.__aexit__(None, None, None))
    await until(lambda: running.leaving)
    assert running.places("other") is None
    claims.waiting["one"].append(make("one", 0))
    assert not leaving.done()
    places.fill(lambda: claims.take("one", places.want))
    await leaving
    assert [task.task_id for task in claims.returned] == ["one-0"]
    assert calls.peak == 0


async def test_a_lost_admission_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody knows whether it started something, what Redis has as ours goes back before the client is claimed
    for again."""
    claims, calls = Memory({"one": 0}), Calls()
    looked: list[str] = []

    async def hand_back_unknown(client_id: str, known: object) -> int:
        looked.append(client_id)
        claims.waiting["one"].append(make("one", 0))
        return 1

    def lost() -> Claimed | None:
        raise StoreUnavailable("the line broke", unknown=True)

    monkeypatch.setattr(claims, "hand_back_unknown", hand_back_unknown)
    async with dispatcher(claims, calls) as running:
        asked_of(running, "one").fill(lost)
        await until(lambda: len(calls.open) == 1)
        calls.go.set()
    assert looked == ["one"]
