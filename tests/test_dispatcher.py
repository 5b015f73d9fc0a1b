"""The dispatcher over a small in-memory store: cap, drain, kept outcomes, lost leases."""

import asyncio
from collections import deque

import msgspec
import pytest
from conftest import until
from in_memory import Calls, Memory, dispatcher, make

from gateway.dispatch.lanes import QUANTUM, SHORT_SECONDS, STUCK_SECONDS, Lane, Lanes
from gateway.models import ClaimedTask, Outcome, Verdict


async def test_cap_and_kept_tenth() -> None:
    """A deep backlog fills nine tenths of the process, a newcomer starts at once, all is delivered under the cap."""
    claims, calls = Memory({"deep": 200, "new": 0}), Calls()
    async with dispatcher(claims, calls) as running:
        await until(lambda: len(calls.open) == 18)
        claims.waiting["new"].append(make("new", 0))
        running.admitted("new")
        await until(lambda: any(task.client_id == "new" for task in calls.open))
        calls.go.set()
        await until(lambda: len(claims.ended) == 201)
    assert calls.peak <= 20
    assert running.in_flight == 0


async def test_lanes_take_turns() -> None:
    """With the process full, a second client gets its calls long before the first one's backlog is worked off."""
    claims, calls = Memory({"deep": 2000, "other": 50}), Calls()
    calls.go.set()
    async with dispatcher(claims, calls):
        await until(lambda: len(claims.ended) == 2050)
    last = max(n for n, task in enumerate(claims.ended) if task.client_id == "other")
    assert last < 1000


async def test_suspects_are_called_one_at_a_time() -> None:
    """Tasks under which two processes died, of whichever client, never share this one; others run beside them."""
    claims, calls = Memory({"a": 3, "b": 3, "c": 20}), Calls()
    for client in ("a", "b"):
        told = claims.waiting[client]
        claims.waiting[client] = deque(msgspec.structs.replace(task, attempt=task.failures + 3) for task in told)
    together = 0

    async def send(task: ClaimedTask, timeout: float) -> Outcome:
        nonlocal together
        together = max(together, sum(each.suspect for each in (*calls.open, task)))
        return await Calls.send(calls, task, timeout)

    calls.send = send  # type: ignore[method-assign]
    async with dispatcher(claims, calls, size=50) as running:
        await until(lambda: len(calls.open) == 21)
        calls.go.set()
        await until(lambda: len(claims.ended) == 26 and running.in_flight == 0)
    assert together == 1


async def test_retry_and_dead() -> None:
    """A failed attempt is scheduled while retries are left and is a dead letter after the last."""
    claims, calls = Memory({"one": 2}), Calls(Verdict.RETRY)
    calls.go.set()
    async with dispatcher(claims, calls):
        await until(lambda: len(claims.ended) == 2)
    by_failures = {task.failures: retry for task, retry in zip(claims.ended, claims.retries, strict=True)}
    assert by_failures[0] is not None
    assert by_failures[1] is None


async def test_outcome_survives_an_outage() -> None:
    """An outcome that can't be stored is kept and stored later, without a second call."""
    claims, calls = Memory({"one": 1}), Calls()
    claims.finish_failures = 3
    calls.go.set()
    async with dispatcher(claims, calls):
        await until(lambda: len(claims.ended) == 1)
    assert calls.peak == 1
    assert claims.returned == []


async def test_lease_loss_aborts_the_call() -> None:
    """A call whose claim can't be renewed is aborted before the lease ends, and neither finished nor handed back."""
    claims, calls = Memory({"one": 1}), Calls()
    claims.renewable = False
    async with dispatcher(claims, calls, lease=0.5):
        await until(lambda: calls.cancelled == 1)
    assert claims.ended == []
    assert claims.returned == []


async def test_drain_finishes_then_hands_back() -> None:
    """Leaving waits for calls that end in time; the rest are cancelled and handed back, and nothing new starts."""
    claims, calls = Memory({"one": 10}, limit=3), Calls()
    loop = asyncio.get_running_loop()
    async with dispatcher(claims, calls, drain=0.3):
        await until(lambda: len(calls.open) == 3)
        before = loop.time()
    assert loop.time() - before < 2
    assert sorted(task.task_id for task in claims.returned) == ["one-0", "one-1", "one-2"]
    assert len(claims.waiting["one"]) == 7
    assert claims.ended == []


def test_a_place_stays_with_its_client_while_nobody_waits() -> None:
    """The place of a task that ended goes on to the client's next one unless others wait, or it is a kept one."""
    lanes = Lanes(10)  # one place is kept for newcomers
    assert lanes.wake("deep")
    assert lanes.next_turn(100.0) is not None
    lanes.open = 9
    assert lanes.may_keep
    lanes.open = 10
    assert not lanes.may_keep
    lanes.open = 5
    assert lanes.wake("other")
    assert not lanes.may_keep


def test_kept_places_are_for_newcomers_while_others_move() -> None:
    """Clients with a backlog wait for places that are not kept, until no short call has given up any for a while."""
    lanes = Lanes(100)
    old, *_ = lined_up(lanes, 3)
    lanes.remove(lanes.add(old, make(old.client_id, 0), 200.0), 200.0)
    lanes.remove(lanes.add(old, make(old.client_id, 1), 100.0), 200.0 + STUCK_SECONDS)  # a long one
    lanes.open = 90
    assert lanes.next_turn(200.0 + STUCK_SECONDS / 2) is None
    assert lanes.waits_for_kept
    assert lanes.wake("new")
    turn = lanes.next_turn(200.0 + STUCK_SECONDS / 2)
    assert turn is not None
    assert (turn[0].client_id, turn[1]) == ("new", 1)
    assert lanes.next_turn(200.0 + 2 * STUCK_SECONDS) == (old, 1)


def lined_up(lanes: Lanes, count: int) -> list[Lane]:
    """Lanes that have had a turn, and wait for another one."""
    assert all(lanes.wake(f"deep-{n}") for n in range(count))
    turns = [lanes.next_turn(100.0) for _ in range(count)]
    assert all(lanes.wake(turn[0].client_id) for turn in turns if turn is not None)
    return [turn[0] for turn in turns if turn is not None]


def test_short_calls_come_in_larger_turns() -> None:
    """However many wait, a lane whose calls are short gets a quantum of places, as far as its limit
    goes; one whose calls are long gets its share."""
    lanes = Lanes(100)
    short, long, narrow, *_ = lined_up(lanes, 40)
    short.fit(50)
    narrow.fit(3)
    for lane, seconds in ((short, SHORT_SECONDS / 2), (long, SHORT_SECONDS * 2), (narrow, SHORT_SECONDS / 2)):
        lanes.remove(lanes.add(lane, make(lane.client_id, 0), 200.0), 200.0 + seconds)
    assert lanes.next_turn(300.0) == (short, QUANTUM)
    assert lanes.next_turn(300.0) == (long, 90 // 39)
    assert lanes.next_turn(300.0) == (narrow, 3)


@pytest.mark.parametrize(("limit", "room", "places"), [(50, 24, 16), (50, 23, 23), (18, 23, 18), (50, 5, 5), (2, 5, 2)])
def test_no_turn_is_left_with_a_few_places(limit: int, room: int, places: int) -> None:
    """A turn takes along what would be less than half of another one, as far as the client's limit goes."""
    lanes = Lanes(100)
    lane, *_ = lined_up(lanes, 40)
    lane.fit(limit)
    lanes.remove(lanes.add(lane, make(lane.client_id, 0), 200.0), 200.0 + SHORT_SECONDS / 2)
    lanes.promised = 90 - room
    assert lanes.next_turn(300.0) == (lane, places)


def test_who_had_nothing_here_takes_every_other_turn() -> None:
    """A client with a task now and then is not behind all that have a backlog, and does not keep them out either."""
    lanes = Lanes(100)
    lined_up(lanes, 40)
    for n in range(3):
        assert lanes.wake(f"now-and-then-{n}")
    turns = [turn[0].client_id for turn in (lanes.next_turn(300.0) for _ in range(8)) if turn is not None]
    assert [name for name in turns if name.startswith("now")] == [f"now-and-then-{n}" for n in range(3)]
    assert max(at for at, name in enumerate(turns) if name.startswith("now")) <= 5
    assert [name for name in turns if name.startswith("deep")] == [f"deep-{n}" for n in range(5)]
