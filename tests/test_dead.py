"""Dead letters: listed by client, error and time, replayed as if just enqueued, purged for good."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from stores import admit, one_claim, outcome, state

from gateway.models import State, Verdict
from gateway.store import Store
from gateway.store.listing import TaskPage, parse_cursor
from gateway.task_filter import TaskFilter


def dead(**given: Any) -> TaskFilter:
    return TaskFilter(client_id="acme", states=frozenset({State.DEAD}), **given)


ALL = dead()


async def die(store: Store, status: int = 404, **changes: Any) -> str:
    task = await one_claim(store, **changes)
    await store.claims.finish(task, outcome(Verdict.REFUSED, status), retry_in=None)
    return task.task_id


async def page(store: Store, wanted: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
    place = None if cursor is None else parse_cursor(cursor)
    return await store.listing.page(wanted, cursor=place, limit=limit, newest=True)


async def listed(store: Store, wanted: TaskFilter = ALL, limit: int = 500) -> list[str]:
    """All pages, newest first."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        part = await page(store, wanted, cursor, limit)
        assert len(part.tasks) <= limit
        found += [task.view.task_id for task in part.tasks]
        cursor = part.next_cursor
        if cursor is None:
            return found


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


async def test_pages_join_to_the_whole_list_newest_first(store: Store) -> None:
    """Each dead letter once, also those of one millisecond and where the cursor's own one has gone meanwhile."""
    ids = [await die(store) for _ in range(25)]
    whole = await listed(store)
    assert sorted(whole) == sorted(ids)
    died = {task.view.task_id: task.view.finished_at or 0 for task in (await page(store, ALL, None, 500)).tasks}
    assert whole == sorted(whole, key=lambda task_id: (died[task_id], task_id), reverse=True)
    assert await listed(store, limit=4) == whole
    cursor = (await page(store, ALL, None, 3)).next_cursor
    assert await store.steering.all("purge", dead(task_id=whole[3])) == 1
    assert await store.steering.all("purge", dead(task_id=whole[2])) == 1
    assert (await page(store, ALL, cursor, 1)).tasks[0].view.task_id == whole[4]


async def test_filters_choose_by_error_status_and_time(store: Store) -> None:
    """Reason, error, status and time; what is not chosen stays."""
    gone, forbidden = await die(store, 410), await die(store, 403)
    dying = now_ms()
    await until(lambda: now_ms() > dying + 1)  # those before and after are told apart by their milliseconds
    middle = now_ms()
    late = await die(store, 410)
    assert await listed(store, dead(error="HTTP 410")) == [late, gone]
    assert await listed(store, dead(error="403")) == [forbidden]
    assert await listed(store, dead(after=middle)) == [late]
    assert sorted(await listed(store, dead(before=middle))) == sorted([gone, forbidden])
    assert await listed(store, dead(error="410", before=middle)) == [gone]
    assert await store.steering.all("purge", dead(error="410", before=middle)) == 1
    assert sorted(await listed(store)) == sorted([forbidden, late])
    assert await store.tasks.view("acme", gone) is None


async def test_what_is_replayed_is_as_if_just_enqueued(store: Store) -> None:
    """Queued at the end, oldest first, with all its retries; counts and audit agree, and it can die again."""
    ids = [await die(store) for _ in range(3)]
    waiting = await admit(store)
    assert await store.steering.all("replay", ALL) == 3
    assert await store.steering.all("replay", ALL) == 0
    assert await listed(store) == []
    usage = await store.windows.usage("acme")
    assert (usage.queued, usage.dead) == (4, 0)
    assert not (await store.audit.stretch(100)).violations
    tasks = (await store.claims.claim("acme", 10)).tasks
    assert [task.task_id for task in tasks] == [waiting, *sorted(ids)]
    assert {(task.attempt, task.failures, task.body) for task in tasks} == {(1, 0, b"hello")}
    await store.claims.finish(tasks[1], outcome(Verdict.REFUSED, 404), retry_in=None)
    await store.claims.finish(tasks[2], outcome(Verdict.DELIVERED), retry_in=None)
    assert await state(store, tasks[2].task_id) == State.SUCCEEDED
    assert await listed(store) == [tasks[1].task_id]
    assert not (await store.audit.stretch(100)).violations


async def test_hundreds_are_replayed_by_filter(store: Store) -> None:
    """More than a chunk, some of them chosen: those and no others, each once."""
    chosen, others = [], []
    for number in range(130):
        chosen.append(await die(store, 410))
        if number % 3 == 0:
            others.append(await die(store, 403))
    assert await store.steering.all("replay", dead(error="410")) == 130
    assert sorted(await listed(store)) == sorted(others)
    assert (await store.windows.usage("acme")).queued == 130


async def test_only_the_dead_of_that_client_are_touched(store: Store) -> None:
    """Another client's, or a task that lives, is neither replayed nor purged."""
    died, lives = await die(store), await admit(store)
    for action in ("replay", "purge"):
        assert await store.steering.all(action, TaskFilter(client_id="other", task_id=died)) == 0
        assert await store.steering.all(action, TaskFilter(client_id="acme", task_id=lives)) == 0
    assert await state(store, died) == State.DEAD


@pytest.fixture
async def gw(gateway: GatewayFactory) -> Gateway:
    return await gateway()


async def test_an_operator_finds_and_replays(gw: Gateway, target: Target, a_client: str) -> None:
    """Over HTTP: what a broken target refused is listed without its query's values, and delivered once it is mended."""
    target.statuses["/x"] = 404
    status, task, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x?token=hunter"}})
    assert status == 201

    async def dead() -> bool:
        return len((await gw.admin("GET", f"/admin/dead?client_id={a_client}"))[1]["tasks"]) == 1

    await until(dead)
    [letter] = (await gw.admin("GET", f"/admin/dead?client_id={a_client}&error=404&limit=5"))[1]["tasks"]
    assert (letter["task_id"], letter["state"], letter["method"]) == (task["task_id"], "dead", "POST")
    assert letter["url"] == f"{target.url}/x?…"
    assert (await gw.admin("GET", f"/admin/dead?client_id={a_client}&error=503"))[1]["tasks"] == []
    target.statuses["/x"] = 200
    path = f"/admin/dead/replay?client_id={a_client}&after=2024-01-15T10:30:00Z"
    assert (await gw.admin("POST", path))[1] == {"client_id": a_client, "tasks": 1}
    await target.received(2)
    assert (await gw.admin("DELETE", f"/admin/dead?client_id={a_client}"))[1]["tasks"] == 0


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("client_id=a", "client_id: must be 3 to 64"),
        ("state=dead", "unknown query parameter"),
        ("status=abc", "status: must be an HTTP status"),
        ("min_age=-1", "min_age: must be seconds"),
        ("order=up", "order: must be newest or oldest"),
        ("cursor=x", "cursor: must be the next_cursor"),
        ("client_id=acme&after=yesterday", "after: must be an RFC 3339 time"),
        ("client_id=acme&before=2024-01-15T10:30:00", "before: must be an RFC 3339 time"),
        ("client_id=acme&before=0001-01-01T00:00:00%2B14:00", "before: must be an RFC 3339 time"),
        ("client_id=acme&limit=501", "limit: must be a whole number from 1 to 500"),
        ("client_id=acme&eror=x", "did you mean error?"),
    ],
)
async def test_a_malformed_query_is_told(gw: Gateway, query: str, told: str) -> None:
    """It names the parameter and what would be right."""
    status, body, _ = await gw.admin("GET", f"/admin/dead?{query}")
    assert status == 400
    assert told in body["message"]


async def test_the_commands(gw: Gateway, target: Target, a_client: str) -> None:
    """`gateway dead list`, `replay` and `purge` show and do it; none does it to all unless it is told so."""
    target.statuses["/x"] = 404
    await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/x"}})

    async def dead() -> bool:
        return (await gw.store.windows.usage(a_client)).dead == 1

    await until(dead)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    shown = await run("dead", "list", "--client", a_client, env=env)
    assert (shown.code, "404" in shown.out, f"{target.url}/x" in shown.out.replace("\n", "")) == (0, True, True)
    assert len(json.loads((await run("dead", "list", "--client", a_client, "--json", env=env)).out)["tasks"]) == 1
    for command in ("replay", "purge"):
        refused = await run("dead", command, "--client", a_client, env=env)
        assert refused.code != 0
        assert "--all" in refused.err
    assert "0 queued again" in (await run("dead", "replay", "--client", a_client, "--error", "503", env=env)).out
    assert "1 removed" in (await run("dead", "purge", "--client", a_client, "--all", env=env)).out
