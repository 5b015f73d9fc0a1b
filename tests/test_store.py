"""What the scripts decide, on a real server: admission, claims, fences, leases, schedules, ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from deployments import Deployment, standalone

from gateway.models import (
    Admitted,
    Attempt,
    ClaimedTask,
    Client,
    Duplicate,
    GatewayFull,
    KeyConflict,
    Outcome,
    QueueFull,
    RateLimit,
    RateLimited,
    State,
    TaskSpec,
    TooManyClients,
    TooManyQueues,
    Verdict,
)
from gateway.store import Store
from gateway.store.clients import UnreadableClient


def spec(**changes: Any) -> TaskSpec:
    fields: dict[str, Any] = {
        "queue": "default",
        "method": "POST",
        "url": "http://target/hook",
        "headers": {"X-A": "1"},
        "body": b"hello",
        "requests_per_min": 1000,
    }
    return TaskSpec(**{**fields, **changes})


def outcome(verdict: Verdict, status: int = 200) -> Outcome:
    attempt = Attempt(status=status, error=None, started_at=1_700_000_000_000, duration_ms=1.5, body="ok")
    return Outcome(verdict=verdict, attempt=attempt, reason=f"http {status}")


Opened = Callable[..., Awaitable[Store]]
Key = Callable[..., str]


@pytest.fixture
async def opened(deployment: Deployment) -> AsyncIterator[Opened]:
    """Opens stores on an emptied Redis; settings by environment name."""
    async with AsyncExitStack() as stack:

        async def open_(**environment: str) -> Store:
            return await stack.enter_async_context(deployment.store(**environment))

        yield open_


@pytest.fixture
async def raw(deployment: Deployment) -> AsyncIterator[Any]:
    async with deployment.raw() as client:
        yield client


@pytest.fixture
def key(deployment: Deployment) -> Key:
    """Names of keys as this deployment has them."""
    return deployment.key


async def limit(store: Store, client_id: str, concurrent: int, per_minute: int = 1000) -> None:
    def change(client: Client | None) -> Client:
        return msgspec.structs.replace(
            client or store.clients.new(client_id), rate_limit=RateLimit(concurrent, per_minute), source="client"
        )

    await store.clients.update(client_id, change)


async def admit(store: Store, client_id: str = "acme", **changes: Any) -> str:
    admitted = await store.tasks.admit(client_id, spec(**changes), create=True)
    assert isinstance(admitted, Admitted), admitted
    return admitted.task_id


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    """Wait for the condition, generously; the pause only keeps the loop from spinning."""
    end = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < end, "the condition never held"
        await asyncio.sleep(0.02)


async def state(store: Store, task_id: str, client_id: str = "acme") -> State:
    view = await store.tasks.view(client_id, task_id)
    assert view is not None
    return view.state


async def test_the_first_task_creates_its_client_and_a_later_one_does_not(opened: Opened) -> None:
    """An unknown client comes to be in the script that admits its first task."""
    store = await opened()
    first = await store.tasks.admit("acme", spec(), create=True)
    second = await store.tasks.admit("acme", spec(), create=True)
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    assert (first.created, second.created) == (True, False)
    client = await store.clients.get("acme")
    assert client is not None
    assert (client.tier, client.rate_limit, client.source) == ("default", RateLimit(3, 50), "tier")


@pytest.mark.parametrize("algorithm", ["sliding", "fixed"])
async def test_a_refused_request_leaves_nothing_behind(opened: Opened, raw: Any, algorithm: str) -> None:
    """A 429 changes no key at all: no count, no record, no client, no idempotency key."""
    store = await opened(WINDOW_ALGORITHM=algorithm)
    await raw.set("client_config:other", "{}")  # so that the database is not empty
    await store.tasks.admit("acme", spec(requests_per_min=1), create=True)
    before = {key: await raw.dump(key) for key in await raw.keys("*")}
    refused = await store.tasks.admit("acme", spec(requests_per_min=1, idempotency_key="k"), create=False)
    assert isinstance(refused, RateLimited)
    assert refused.window.used == 1
    assert 1 <= refused.retry_after <= 61
    assert {key: await raw.dump(key) for key in await raw.keys("*")} == before


@pytest.mark.parametrize("algorithm", ["sliding", "fixed"])
async def test_the_window_admits_exactly_its_limit(opened: Opened, algorithm: str) -> None:
    """However many ask at once, through two stores, exactly the limit is admitted (a minute's edge aside for fixed)."""
    first, second = await opened(WINDOW_ALGORITHM=algorithm), await opened(WINDOW_ALGORITHM=algorithm)
    if algorithm == "fixed":
        while time.time() % 60 > 50:  # the counter starts anew at the edge, by its definition
            await asyncio.sleep(0.5)
    answers = await asyncio.gather(
        *(store.tasks.admit("acme", spec(requests_per_min=10), create=True) for store in (first, second) * 50)
    )
    assert sum(isinstance(answer, Admitted) for answer in answers) == 10


async def test_the_sliding_window_frees_each_second_on_its_own(opened: Opened, raw: Any, key: Key) -> None:
    """What was admitted counts for 60 to 61 s and then no more, second by second, and Retry-After names that moment."""
    store = await opened()
    now = int(time.time())
    await raw.hset(
        key("counts:acme"), mapping={now - 60: 4, now - 62: 3, now - 30: 2, "n": 9, "o": now - 62, "l": now - 30}
    )
    admitted = await store.tasks.admit("acme", spec(requests_per_min=7), create=True)
    assert isinstance(admitted, Admitted)
    assert admitted.window.used in (7, 3)  # 3 where the second turned between
    assert await raw.hexists(key("counts:acme"), str(now - 62)) is False
    refused = await store.tasks.admit("acme", spec(requests_per_min=7, cost=5), create=True)
    if isinstance(refused, RateLimited):
        assert refused.retry_after in (29, 30, 31)  # the four of a minute ago are not enough for five


async def test_a_clock_put_back_opens_no_second_window(opened: Opened, raw: Any, key: Key) -> None:
    """A window whose last second lies ahead of the clock still counts in full."""
    store = await opened()
    now = int(time.time())
    await raw.hset(key("counts:acme"), mapping={now + 3600: 5, "n": 5, "o": now + 3600, "l": now + 3600})
    refused = await store.tasks.admit("acme", spec(requests_per_min=5), create=True)
    assert isinstance(refused, RateLimited)


async def test_cost_counts_as_that_many_requests(opened: Opened, raw: Any) -> None:
    """A task of cost 7 leaves room for 3 of 10, and the minute's counter says 7."""
    store = await opened()
    await admit(store, cost=7, requests_per_min=10)
    assert isinstance(await store.tasks.admit("acme", spec(cost=4, requests_per_min=10), create=False), RateLimited)
    assert isinstance(await store.tasks.admit("acme", spec(cost=3, requests_per_min=10), create=False), Admitted)
    counters = [int(await raw.get(key)) for key in await raw.keys("ratelimit:acme:*")]
    assert sum(counters) == 10
    for key in await raw.keys("ratelimit:acme:*"):
        assert 0 < await raw.ttl(key) <= 120


async def test_an_idempotency_key_answers_the_first_task_again(opened: Opened) -> None:
    """The same key and task is a duplicate that consumes nothing; with a different task it is a conflict."""
    store = await opened()
    first = await admit(store, idempotency_key="{k}%", fingerprint=b"one")
    again = await store.tasks.admit("acme", spec(idempotency_key="{k}%", fingerprint=b"one"), create=False)
    other = await store.tasks.admit("acme", spec(idempotency_key="{k}%", fingerprint=b"two"), create=False)
    assert isinstance(again, Duplicate)
    assert isinstance(other, KeyConflict)
    assert again.task_id == other.task_id == first
    assert other.window.used == 1


@standalone
async def test_depth_bytes_queues_and_clients_are_bounded(opened: Opened) -> None:
    """Past each bound the script says which one it was and stores nothing."""
    store = await opened(MAX_QUEUED_PER_CLIENT="2", MAX_QUEUES_PER_CLIENT="2", MAX_CLIENTS="1")
    await admit(store)
    assert isinstance(await store.tasks.admit("other", spec(), create=True), TooManyClients)
    await admit(store, queue="second")
    assert isinstance(await store.tasks.admit("acme", spec(queue="third"), create=False), TooManyQueues)
    full = await store.tasks.admit("acme", spec(), create=False)
    assert isinstance(full, QueueFull)
    assert full.what == "tasks"
    narrow = await opened(MAX_QUEUED_BYTES_PER_CLIENT="1000", KEY_PREFIX="narrow:")
    heavy = await narrow.tasks.admit("acme", spec(body=b"x" * 2000), create=True)
    assert isinstance(heavy, QueueFull)
    assert heavy.what == "bytes"


@standalone
@pytest.mark.parametrize(("what", "bound"), [("tasks", {"MAX_QUEUED": "3"}), ("bytes", {"MAX_QUEUED_BYTES": "900"})])
async def test_all_clients_together_are_bounded(opened: Opened, raw: Any, what: str, bound: dict[str, str]) -> None:
    """Past the bound of all, another client's task is refused; what ended, however it did, makes room again."""
    store = await opened(**bound)
    first = await admit(store)
    second = await admit(store, delay=60)
    third = await store.tasks.admit("other", spec(), create=True)
    assert isinstance(third, Admitted)
    full = await store.tasks.admit("third", spec(body=b"x" * 200), create=True)
    assert isinstance(full, GatewayFull)
    assert full.what == what
    claim = (await store.claims.claim("acme", 1)).tasks[0]
    assert claim.task_id == first
    await store.claims.finish(claim, outcome(Verdict.REFUSED, 404), retry_in=None)
    await store.tasks.cancel("acme", second)
    assert isinstance(await store.tasks.admit("third", spec(body=b"x" * 200), create=True), Admitted)
    await store.clients.delete("third", cancel_tasks=True)
    await store.clients.delete("other", cancel_tasks=True)
    assert await raw.hgetall("totals") == {"n": "0", "b": "0"}


async def test_a_batch_is_judged_in_order(opened: Opened) -> None:
    """Of 120 tasks under a limit of 100 the first 100 are admitted, over three chunks."""
    store = await opened()
    answers = await store.tasks.admit_many("acme", [spec(requests_per_min=100)] * 120, create=True)
    assert [isinstance(answer, Admitted) for answer in answers] == [True] * 100 + [False] * 20
    assert [answer.created for answer in answers if isinstance(answer, Admitted)].count(True) == 1


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


async def one_claim(store: Store, **changes: Any) -> ClaimedTask:
    await admit(store, **changes)
    return (await store.claims.claim("acme", 1)).tasks[0]


async def test_a_finish_is_fenced(opened: Opened) -> None:
    """After the lease lapsed and another took the task, the first owner's finish and renewal change nothing."""
    slow, fast = await opened(LEASE_SECONDS="0.5"), await opened(LEASE_SECONDS="0.5")
    task = await one_claim(slow)

    async def reclaimed() -> bool:
        return await fast.claims.reclaim_lapsed(10) == 1

    await eventually(reclaimed)
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

    await eventually(dead)
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


async def lapse(store: Store, count: int) -> None:
    """The leases of so many claims end, and they are taken back."""
    taken = 0

    async def back() -> bool:
        nonlocal taken
        taken += await store.claims.reclaim_lapsed(10)
        return taken == count

    await eventually(back)


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

    await eventually(ready)
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

    await eventually(due)
    again = (await store.claims.claim("acme", 1)).tasks[0]
    assert (again.attempt, again.failures) == (2, 1)


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


async def test_deleting_a_client_cancels_what_waits_where_asked(opened: Opened) -> None:
    """250 waiting tasks, scheduled and queued, are cancelled; what runs goes on under default's limits."""
    store = await opened()
    running = await one_claim(store)
    for number in range(250):
        await admit(store, delay=60 * (number % 2))
    assert await store.clients.delete("acme", cancel_tasks=True) == 250
    usage = await store.windows.usage("acme")
    assert (usage.in_flight, usage.queued, usage.scheduled) == (1, 0, 0)
    assert (await store.claims.finish(running, outcome(Verdict.DELIVERED), retry_in=None)).owned
    assert await store.clients.get("acme") is None


async def test_records_of_other_programs_are_read(opened: Opened, raw: Any, key: Key) -> None:
    """Nanoseconds, offsets, an empty tier, null limits: read all the same, and listed."""
    store = await opened()
    await raw.set(
        key("client_config:foreign", "foreign"),
        '{"client_id":"foreign","tier":"","rate_limit":null,"allowed_queues":null,"enabled":true,'
        '"created_at":"2024-01-15T12:30:00.123456789+02:00","updated_at":"2024-01-15T10:30:00Z"}',
    )
    client = await store.clients.get("foreign")
    assert client is not None
    assert (client.tier, client.rate_limit, client.source) == ("default", RateLimit(3, 50), "tier")
    assert client.created_at.isoformat() == "2024-01-15T10:30:00+00:00"
    page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
    assert [entry.client_id for entry in page.clients] == ["foreign"]


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"enabled": "yes"}',
        '{"rate_limit": {"max_concurrent": "x"}}',
        '{"rate_limit": {"max_concurrent": 1}}',
        '{"allowed_queues": "default"}',
        '{"tier": 5}',
        '{"created_at": "0001-01-01T00:00:00+05:00"}',
    ],
)
async def test_a_record_that_can_not_be_read_is_never_overwritten(
    opened: Opened, raw: Any, key: Key, text: str
) -> None:
    """It is refused on reading, skipped in lists, and neither a set nor auto-creation replaces it."""
    store = await opened()
    await raw.set(key("client_config:broken", "broken"), text)
    with pytest.raises(UnreadableClient):
        await store.clients.get("broken")
    with pytest.raises(UnreadableClient):
        await store.clients.update("broken", lambda _: store.clients.new("broken"))
    await store.tasks.admit("broken", spec(), create=True)
    assert await raw.get(key("client_config:broken", "broken")) == text
    page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
    assert page.clients == []


async def test_a_change_of_settings_reaches_other_replicas(opened: Opened) -> None:
    """What one replica cached is dropped when another changes it."""
    one, other = await opened(), await opened()
    await limit(one, "acme", 4)
    await other.doorbell.subscribed.wait()
    assert (await other.clients.get("acme") or one.clients.new("x")).rate_limit.max_concurrent == 4
    await limit(one, "acme", 9)

    async def seen() -> bool:
        client = await other.clients.get("acme")
        return client is not None and client.rate_limit.max_concurrent == 9

    await eventually(seen)


async def test_two_admins_at_once_lose_nothing(opened: Opened) -> None:
    """Twenty concurrent increments of one limit, through two stores, add up."""
    stores = [await opened(), await opened()]
    await limit(stores[0], "acme", 1)

    def increment(client: Client | None) -> Client:
        assert client is not None
        more = RateLimit(client.rate_limit.max_concurrent + 1, client.rate_limit.requests_per_min)
        return msgspec.structs.replace(client, rate_limit=more)

    await asyncio.gather(*(store.clients.update("acme", increment) for store in stores * 5))
    client = await stores[0].clients.get("acme")
    assert client is not None
    assert client.rate_limit.max_concurrent == 11


async def test_pages_of_clients_join_to_the_whole_list(opened: Opened) -> None:
    """Paging by cursor lists each client once, sorted, and every page says how many match."""
    store = await opened()
    for name in ("delta", "alpha", "charlie", "bravo", "echo"):
        await limit(store, name, 2)
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.clients.page(after=cursor, limit=2, tier=None, enabled=None)
        assert page.count == 5
        names += [client.client_id for client in page.clients]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert names == ["alpha", "bravo", "charlie", "delta", "echo"]


@standalone
async def test_an_enqueue_is_one_round_trip(opened: Opened, raw: Any) -> None:
    """An accepted enqueue of a known client is one script call, of a new one a GET and a script call."""
    store = await opened()

    async def calls() -> int:
        stats = await raw.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_eval")
        return sum(stats.get(name, {}).get("calls", 0) - stats.get(name, {}).get("failed_calls", 0) for name in names)

    await admit(store, "warm")
    await store.clients.get("warm")
    scripts = await calls()
    for _ in range(10):
        await store.clients.get("warm")
        await store.tasks.admit("warm", spec(), create=False)
    assert await calls() - scripts == 10
    gets = (await raw.info("commandstats"))["cmdstat_get"]["calls"]
    await store.clients.get("newcomer")
    await store.tasks.admit("newcomer", spec(), create=True)
    assert await calls() - scripts == 11
    assert (await raw.info("commandstats"))["cmdstat_get"]["calls"] - gets <= 2
