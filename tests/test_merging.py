"""What is asked for at the same time shares script calls, and nothing else: each gets its own answer, and one client's
broken keys are its own affair."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import redis.asyncio as redis
import structlog
from stores import limit, outcome, spec

from gateway.errors import StoreUnavailable
from gateway.models import Admitted, Verdict
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.merging import AT_ONCE, MANY, MOST, Merger, at_once


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    async with open_store(Settings.load({"REDIS_URL": store_url}), store_url) as store:
        yield store


@pytest.fixture
async def raw(store_url: str) -> AsyncIterator[Any]:
    async with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


class Calls:
    """Carries out by counting, once it may."""

    def __init__(self) -> None:
        self.made: list[dict[str, list[int]]] = []
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def carry_out(self, partition: int, items: dict[str, list[int]]) -> list[tuple[str, int]]:
        self.made.append(items)
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return [(client, item) for client, ones in items.items() for item in ones]


def merger(calls: Calls, patience: float = 60, at_once: int = 1, together: int = 0) -> Merger[int, tuple[str, int]]:
    return Merger(lambda _: 0, calls.carry_out, patience=patience, at_once=at_once, together=together)


async def test_what_comes_while_a_call_is_under_way_travels_together() -> None:
    """By client, in order, at most so many at a time; each answer reaches who asked."""
    calls = Calls()
    merged = merger(calls)
    first = merged.submit("a", 0)
    await asyncio.sleep(0)
    later = [merged.submit("ab"[number % 2], number) for number in range(1, MOST + 11)]
    await asyncio.sleep(0)
    calls.go.set()
    assert await first == ("a", 0)
    assert await asyncio.gather(*later) == [("ab"[number % 2], number) for number in range(1, MOST + 11)]
    assert [sum(map(len, items.values())) for items in calls.made] == [1, MOST, 10]


async def test_a_full_group_is_begun_before_the_turn_ends() -> None:
    """Redis works on it while the other callers are read; one with room waits for them."""
    begun: list[int] = []

    def carry_out(_: int, items: dict[str, list[int]]) -> Awaitable[list[int]]:
        begun.append(sum(map(len, items.values())))
        return answer(items)

    async def answer(items: dict[str, list[int]]) -> list[int]:
        return [item for ones in items.values() for item in ones]

    merged: Merger[int, int] = Merger(lambda _: 0, carry_out, patience=60, at_once=2)
    submitted = [merged.submit("a", number) for number in range(MOST - 1)]
    assert begun == []
    submitted += [merged.submit("a", number) for number in range(MOST - 1, MOST + 5)]
    assert begun == [MOST]
    assert await asyncio.gather(*submitted) == list(range(MOST + 5))
    assert begun == [MOST, 5]


@pytest.mark.parametrize(
    ("first", "groups", "begun"),
    [(MANY, AT_ONCE, [MANY, MOST]), (MANY - 1, AT_ONCE, [MANY - 1, 1]), (MANY, at_once(confirmed=True), [MANY, 1])],
)
async def test_beside_a_large_group_the_next_one_waits_until_it_is_full(
    first: int, groups: int, begun: list[int]
) -> None:
    """Or until the other is answered; beside a small one, and where what is sent waits for replicas, nobody waits."""
    calls, made = Calls(), list[int]()

    def carry_out(partition: int, items: dict[str, list[int]]) -> Awaitable[list[tuple[str, int]]]:
        made.append(sum(map(len, items.values())))
        return calls.carry_out(partition, items)

    merged: Merger[int, tuple[str, int]] = Merger(lambda _: 0, carry_out, patience=60, at_once=groups)
    submitted = [merged.submit("a", number) for number in range(first)]
    await asyncio.sleep(0)
    while len(made) < 2 and len(submitted) < first + MOST:
        submitted.append(merged.submit("a", len(submitted)))
        await asyncio.sleep(0)
    assert made == begun
    submitted.append(merged.submit("a", len(submitted)))
    calls.go.set()
    assert await asyncio.gather(*submitted) == [("a", number) for number in range(len(submitted))]
    assert sum(made) == len(submitted)


@pytest.mark.parametrize(
    ("number", "made"),
    [(MOST + 10, [{"b": MOST + 10}, {"c": 5}]), (MOST + 40, [{"b": MOST + 15}, {"b": 25, "c": 5}])],
)
async def test_the_last_client_of_a_call_is_not_parted(number: int, made: list[dict[str, int]]) -> None:
    """What else would be left of it goes along, where that is few."""
    calls = Calls()
    merged = merger(calls, together=15)
    first = merged.submit("a", 0)
    await asyncio.sleep(0)
    submitted = [merged.submit("b" if at < number else "c", at) for at in range(number + 5)]
    calls.go.set()
    await asyncio.gather(first, *submitted)
    assert [{client: len(ones) for client, ones in items.items()} for items in calls.made[1:]] == made


async def test_who_waits_for_a_redis_that_does_not_answer_hears_it_with_the_others() -> None:
    """What was sent may have been carried out, what was not certainly was not; nobody waits a second time."""
    calls = Calls()
    merged = merger(calls, patience=-1)
    sent = merged.submit("a", 0)
    await asyncio.sleep(0)
    waiting = [merged.submit("b", number) for number in range(200)]
    calls.failure = StoreUnavailable("no answer", unknown=True)
    calls.go.set()
    with pytest.raises(StoreUnavailable) as told:
        await sent
    assert told.value.unknown
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) and not answer.unknown for answer in answers)
    assert len(calls.made) == 1


async def test_a_defect_leaves_nobody_waiting() -> None:
    """Whatever goes wrong is told as not known, and the next call is made."""
    calls = Calls()
    merged = merger(calls)
    calls.failure = ValueError("a defect")
    calls.go.set()
    with pytest.raises(StoreUnavailable) as told:
        await merged.submit("a", 0)
    assert told.value.unknown
    calls.failure = None
    assert await merged.submit("a", 1) == ("a", 1)


async def test_an_answer_that_cannot_be_given_keeps_nobody_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    """It is told to the loop's handler of errors, and the others are told in order."""
    calls, told = Calls(), asyncio.Queue[Any]()
    calls.go.set()
    merged = merger(calls)
    merged.hand_in("a", 0, told.put_nowait)
    merged.hand_in("a", 1, lambda _: 1 / 0)
    merged.hand_in("b", 2, told.put_nowait)
    assert [await told.get(), await told.get()] == [("a", 0), ("b", 2)]
    assert "An answer could not be given." in caplog.text


async def test_what_is_done_for_many_has_no_log_fields_of_one() -> None:
    """Neither the call nor who is told of its answer."""
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def carry_out(_: int, items: dict[str, list[int]]) -> list[int]:
        seen.put_nowait(structlog.contextvars.get_contextvars())
        return [0 for _ in items]

    merged: Merger[int, int] = Merger(lambda _: 0, carry_out, patience=60)
    with structlog.contextvars.bound_contextvars(request_id="one's own"):
        merged.hand_in("a", 0, lambda _: seen.put_nowait(structlog.contextvars.get_contextvars()))
    assert [await seen.get(), await seen.get()] == [{}, {}]


async def test_broken_keys_of_one_client_do_not_keep_others_from_being_admitted(store: Store, raw: Any) -> None:
    """Only who has them is told, and that nobody knows."""
    await raw.set("counts:broken", "no hash")
    *broken, fine = await asyncio.gather(
        *(store.tasks.admit(name, spec(), create=True) for name in ("broken", "broken", "broken", "fine")),
        return_exceptions=True,
    )
    assert all(isinstance(each, StoreUnavailable) and each.unknown for each in broken)
    assert isinstance(fine, Admitted)
    assert await raw.hget("totals", "n") == "1"


PLAIN, DELAYED, BOUNDED = {}, {"delay": 60}, {"bound": 3}


@pytest.mark.parametrize("key", ["stream:acme:bad", "scheduled:acme"])
async def test_what_could_not_be_stored_is_not_counted(store: Store, raw: Any, key: str) -> None:
    """Of a client's tasks that travel together those are refused whose stream, or schedule, is no such thing; the
    others are stored, and what is counted is what there is. A client whose only task fails is not made."""
    await raw.rpush(key, "a list")
    await raw.rpush("stream:other:bad", "a list")
    bad: Any = {"queue": "bad", **BOUNDED} if key.startswith("stream") else DELAYED
    plain_bad: Any = {"queue": "bad"} if key.startswith("stream") else DELAYED
    asked = [("acme", PLAIN), ("acme", bad), ("other", {"queue": "bad"}), ("acme", plain_bad), ("acme", BOUNDED)]
    told = await asyncio.gather(
        *(store.tasks.admit(name, spec(**changes), create=True) for name, changes in asked), return_exceptions=True
    )
    assert [isinstance(each, Admitted) for each in told] == [True, False, False, False, True]
    assert all(isinstance(each, StoreUnavailable) and each.unknown for each in told[1:4])
    await raw.delete(key, "stream:other:bad")
    held = {await raw.hget("counts:acme", "bytes"), await raw.hget("totals", "b")}
    assert (await raw.hget("totals", "n"), await raw.hget("counts:acme", "tasks"), len(held)) == ("2", "2", 1)
    assert (await store.windows.usage("acme")).window.used == 2
    assert len(await raw.keys("task:*")) == 1  # of the one with a bound
    assert await raw.zrange("clients", 0, -1) == ["acme"]
    assert [found async for _, each in store.audit.everything(mend=False) for found in each] == []
    assert len((await store.claims.claim("acme", 5)).tasks) == 2


@pytest.mark.parametrize(("key", "bound"), [("counts:broken", 0), ("ended:broken", 0), ("ended:broken", 3)])
async def test_broken_keys_of_one_client_do_not_keep_others_from_finishing(
    store: Store, raw: Any, key: str, bound: int
) -> None:
    """The other's end is stored and its next task claimed; the broken one's are tried again. What is broken are its
    counts, or the index of its results, with tasks that have records and such as have none."""
    claims = []
    for name, running in (("broken", 3), ("fine", 1)):
        await limit(store, name, running)
        for _ in range(running + 1):
            await store.tasks.admit(name, spec(bound=bound), create=False)
        claims += (await store.claims.claim(name, running)).tasks
    await raw.delete(key)
    await raw.rpush(key, "a list")
    *broken, fine = await asyncio.gather(
        *(store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None, want=1) for task in claims),
        return_exceptions=True,
    )
    assert all(isinstance(each, StoreUnavailable) for each in broken)
    assert fine.owned
    assert len(fine.claimed.tasks) == 1


async def test_attempts_of_one_client_that_end_together_bring_its_next_tasks_together(store: Store) -> None:
    """One answer brings what all of them wanted; the others say that nothing more is to be had now."""
    await limit(store, "acme", 4)
    for _ in range(10):
        await store.tasks.admit("acme", spec(), create=False)
    running = (await store.claims.claim("acme", 4)).tasks
    ended = await asyncio.gather(
        *(store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None, want=1) for task in running)
    )
    assert all(each.owned and each.claimed is not None for each in ended)
    assert [len(each.claimed.tasks) for each in ended if each.claimed is not None] == [4, 0, 0, 0]
    assert (await store.windows.usage("acme")).in_flight == 4
