"""What the admission decides, on a real server: clients, windows, idempotency keys, bounds, batches."""

import asyncio
import time
from typing import Any

import pytest
from deployments import standalone
from stores import Key, Opened, admit, outcome, spec

from gateway.models import (
    Admitted,
    Duplicate,
    GatewayFull,
    KeyConflict,
    QueueFull,
    RateLimit,
    RateLimited,
    TooManyClients,
    TooManyQueues,
    Verdict,
)


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


@standalone
async def test_scripts_keep_the_garbage_of_lua_small(opened: Opened, raw: Any) -> None:
    """From the first script on Lua collects early, whatever was set before."""
    store = await opened()
    tell_and_reset = "return collectgarbage('setpause', 200)"
    await raw.eval(tell_and_reset, 0)
    await store.tasks.admit("acme", spec(), create=True)
    assert await raw.eval(tell_and_reset, 0) == 120
