"""Tasks found by filter, page by page, wherever they are; and what operators do to one of them."""

from typing import Any

import pytest
from conftest import Gateway, GatewayFactory, Target, until
from stores import admit, limit, one_claim, outcome, spec

from gateway.models import Admitted, State, Verdict
from gateway.store import Store
from gateway.store.listing import parse_cursor
from gateway.task_filter import TaskFilter

ALL = TaskFilter()


async def listed(
    store: Store, wanted: TaskFilter = ALL, *, most: int = 500, newest: bool = True, pages: list[int] | None = None
) -> list[tuple[str, State]]:
    """All pages."""
    found: list[tuple[str, State]] = []
    cursor = None
    while True:
        place = None if cursor is None else parse_cursor(cursor)
        page = await store.listing.page(wanted, cursor=place, limit=most, newest=newest)
        assert len(page.tasks) <= most
        if pages is not None:
            pages.append(len(page.tasks))
        found += [(task.view.task_id, task.view.state) for task in page.tasks]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def one_of_each(store: Store) -> dict[State, str]:
    """A task in every state."""
    ids = {}
    for state, verdict, retry_in in (
        (State.SUCCEEDED, Verdict.DELIVERED, None),
        (State.DEAD, Verdict.REFUSED, None),
        (State.RETRYING, Verdict.RETRY, 60),
    ):
        task = await one_claim(store)
        await store.claims.finish(task, outcome(verdict, 503 if retry_in else 404), retry_in=retry_in)
        ids[state] = task.task_id
    ids[State.CANCELLED] = await admit(store)
    await store.tasks.cancel("acme", ids[State.CANCELLED])
    ids[State.SCHEDULED] = await admit(store, delay=60)
    ids[State.RUNNING] = (await one_claim(store)).task_id
    ids[State.QUEUED] = await admit(store)
    return ids


async def test_every_state_is_found_under_its_name(store: Store) -> None:
    """Each by itself, several, and all; also one that was taken back, and one of a queue that is asked for."""
    ids = await one_of_each(store)
    for state, task_id in ids.items():
        assert await listed(store, TaskFilter(client_id="acme", states=frozenset({state}))) == [(task_id, state)]
        assert await listed(store, TaskFilter(task_id=task_id)) == [(task_id, state)]
    two = TaskFilter(states=frozenset({State.QUEUED, State.DEAD}))
    assert {task_id for task_id, _ in await listed(store, two)} == {ids[State.QUEUED], ids[State.DEAD]}
    assert dict(map(reversed, await listed(store, most=2))) == ids
    elsewhere = [await admit(store, queue="other"), await admit(store, queue="other", delay=5)]
    assert sorted(task_id for task_id, _ in await listed(store, TaskFilter(queue="other"))) == sorted(elsewhere)
    [running] = (await store.claims.claim("acme", 1)).tasks
    await store.claims.hand_back([running])
    found = dict(await listed(store))
    assert found[running.task_id] is State.QUEUED
    assert await listed(store, TaskFilter(client_id="other")) == []
    assert await listed(store, TaskFilter(task_id="unknown")) == []


async def test_pages_join_to_the_whole_in_both_orders(store: Store) -> None:
    """Whatever the page's size, each task once, in its queue's order or against it; those that go meanwhile leave no
    gap."""
    queued = [await admit(store, queue=queue) for queue in ("a", "b") for _ in range(5)]
    later = [await admit(store, run_at=4_000_000_000_000 + (number // 3)) for number in range(7)]
    oldest = [task_id for task_id, _ in await listed(store, newest=False)]
    assert oldest[:10] == queued
    assert sorted(oldest[10:]) == sorted(later)
    for most in (1, 3, 4):
        assert [task_id for task_id, _ in await listed(store, newest=False, most=most)] == oldest
    newest = [task_id for task_id, _ in await listed(store)]
    assert newest == [*reversed(queued[:5]), *reversed(queued[5:]), *reversed(oldest[10:])]
    for most in (1, 3):
        assert [task_id for task_id, _ in await listed(store, most=most)] == newest
    waiting = TaskFilter(states=frozenset({State.QUEUED, State.SCHEDULED}))
    for newest_first in (True, False):
        for at in (3, 12):
            page = await store.listing.page(waiting, cursor=None, limit=at, newest=newest_first)
            await store.tasks.cancel("acme", page.tasks[-1].view.task_id)
            place = parse_cursor(page.next_cursor or "")
            rest = await store.listing.page(waiting, cursor=place, limit=2, newest=newest_first)
            still = [task_id for task_id, _ in await listed(store, waiting, newest=newest_first)]
            assert [task.view.task_id for task in rest.tasks] == still[at - 1 : at + 1]


async def test_filters_look_at_what_the_task_is_and_has_met(store: Store) -> None:
    """Label, host with and without its port, last status, error, age."""
    ids = await one_of_each(store)
    labelled = await admit(store, labels=("eu", "order-1"), url="https://Api.example.com:8443/x?y")
    for given, expected in (
        ({"label": "order-1"}, labelled),
        ({"host": "api.EXAMPLE.com"}, labelled),
        ({"host": "api.example.com:8443"}, labelled),
        ({"status": 503}, ids[State.RETRYING]),
        ({"error": "http 404"}, ids[State.DEAD]),
        ({"label": "order"}, None),
        ({"host": "example.com"}, None),
        ({"created_before": 1000}, None),
        ({"after": 4_000_000_000_000}, None),
        ({"untouched_since": 1000}, None),
    ):
        wanted: dict[str, Any] = given
        assert [task_id for task_id, _ in await listed(store, TaskFilter(**wanted))] == ([expected] if expected else [])
    assert len(await listed(store, TaskFilter(created_after=1000, created_before=4_000_000_000_000))) == 8


async def test_the_walk_over_clients_meets_each_once(store: Store) -> None:
    """More clients than are asked at once, some idle; also where the client of the cursor has nothing left."""
    names = [f"client-{number:03}" for number in range(70)]
    for name in names:
        await admit(store, name)
    pages: list[int] = []
    found = await listed(store, most=9, pages=pages)
    assert len({task_id for task_id, _ in found}) == len(found) == 70
    assert max(pages) == 9
    page = await store.listing.page(ALL, cursor=None, limit=30, newest=True)
    last = page.tasks[-1].view
    await store.tasks.cancel(last.client_id, last.task_id)
    waiting = TaskFilter(states=frozenset({State.QUEUED}))
    rest, cursor = [], page.next_cursor
    while cursor is not None:
        part = await store.listing.page(waiting, cursor=parse_cursor(cursor), limit=7, newest=True)
        rest += [task.view.client_id for task in part.tasks]
        cursor = part.next_cursor
    assert sorted(rest + [task.view.client_id for task in page.tasks]) == names


async def test_clients_that_have_none_are_passed_over(store: Store) -> None:
    """What waits in no queue is found among many clients that have nothing of it, each task once on whatever pages, at
    no more cost than a look at each client."""
    names = [f"client-{number:03}" for number in range(140)]
    for name in names:
        await admit(store, name)
    delayed = {await admit(store, names[number], delay=60) for number in (3, 4, 70, 139)}
    scheduled = TaskFilter(states=frozenset({State.SCHEDULED}))
    for most in (1, 2, 50):
        found = await listed(store, scheduled, most=most)
        assert (len(found), {task_id for task_id, _ in found}) == (4, delayed)
    page = await store.listing.page(scheduled, cursor=None, limit=50, newest=True)
    assert page.looked_at < len(names) + 20
    assert await listed(store, TaskFilter(states=frozenset({State.DEAD}))) == []


async def test_a_client_that_leaves_while_others_are_walked_hides_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks move when clients become idle in the midst of a page; each of those that wait is met all the same."""
    names = [f"client-{number:03}" for number in range(70)]
    ids = {name: await admit(store, name) for name in names}
    look = store.listing._places

    async def while_others_end(key: str, start: int, stop: int) -> Any:
        found = await look(key, start, stop)
        for place in found[:20] if start == 0 and stop > 0 else []:
            await store.tasks.cancel(place.client, ids[place.client])
        return found

    monkeypatch.setattr(store.listing, "_places", while_others_end)
    waiting = TaskFilter(states=frozenset({State.QUEUED}))
    found = [
        task.view.client_id for task in (await store.listing.page(waiting, cursor=None, limit=99, newest=True)).tasks
    ]
    monkeypatch.undo()
    left = {
        task.view.client_id for task in (await store.listing.page(waiting, cursor=None, limit=99, newest=True)).tasks
    }
    assert left <= set(found)
    assert len(set(found)) == len(found)
    assert len(left) < 70


async def test_a_page_is_bounded_and_goes_on(store: Store) -> None:
    """Where nothing matches, a page looks at two thousand tasks, says where to go on, and the next one finds it."""
    await limit(store, "acme", 1, 10**6)
    for _ in range(3):
        await store.tasks.admit_many("acme", [spec(requests_per_min=10**6)] * 900, create=False)
    wanted = TaskFilter(client_id="acme", label="last")
    last = await admit(store, labels=("last",), requests_per_min=10**6)
    page = await store.listing.page(wanted, cursor=None, limit=50, newest=False)
    assert (page.tasks, page.looked_at) == ([], 2000)
    page = await store.listing.page(wanted, cursor=parse_cursor(page.next_cursor or ""), limit=50, newest=False)
    assert [task.view.task_id for task in page.tasks] == [last]
    assert page.next_cursor is None
    large = [
        await store.tasks.admit("acme", spec(body=b"x" * 2**20, requests_per_min=10**6), create=False) for _ in range(6)
    ]
    assert all(isinstance(each, Admitted) for each in large)
    pages = await store.listing.page(TaskFilter(client_id="acme"), cursor=None, limit=8, newest=True)
    assert len(pages.tasks) == 8  # over several calls, each of which reads no more than it may


async def test_what_has_its_time_later_is_run_now(store: Store) -> None:
    """Delayed and retrying tasks start at once; what is queued, runs or has ended is passed over; counts agree."""
    ids = await one_of_each(store)
    tasks = [await store.tasks.detail("acme", task_id) for task_id in ids.values()]
    assert await store.steering.apply("run", [task for task in tasks if task is not None]) == 2
    claimed = {task.task_id: task for task in (await store.claims.claim("acme", 10)).tasks}
    assert set(claimed) == {ids[State.QUEUED], ids[State.SCHEDULED], ids[State.RETRYING]}
    assert (claimed[ids[State.RETRYING]].attempt, claimed[ids[State.RETRYING]].failures) == (2, 1)
    assert not (await store.audit.stretch(100)).violations


@pytest.fixture
async def gw(gateway: GatewayFactory) -> Gateway:
    return await gateway()


async def test_over_http(gw: Gateway, target: Target, a_client: str) -> None:
    """An operator finds a task by label and host, sees its attempts, has it run before its time, and queued again."""
    target.statuses["/x"] = [503, 503, 404, 200]
    body = {"client_id": a_client, "labels": ["order-7"], "task": {"url": f"{target.url}/x?token=hunter"}}
    _, task, _ = await gw.enqueue({**body, "delay": 600})
    path, named = f"/admin/tasks/{task['task_id']}", f"?client_id={a_client}"
    host = target.url.removeprefix("http://")
    page = (await gw.admin("GET", f"/admin/tasks?label=order-7&host={host}&state=scheduled&max_age=60"))[1]
    assert page["next_cursor"] is None
    [found] = page["tasks"]
    assert (found["state"], found["labels"], found["url"]) == ("scheduled", ["order-7"], f"{target.url}/x?…")
    assert (await gw.admin("GET", "/admin/tasks?label=order-7&min_age=60"))[1]["tasks"] == []
    assert (await gw.admin("POST", f"{path}/replay{named}"))[0] == 409
    status, run, _ = await gw.admin("POST", f"{path}/run{named}")
    assert (status, run["task_id"]) == (200, task["task_id"])

    async def attempts(count: int) -> bool:
        shown = (await gw.admin("GET", f"{path}{named}"))[1]
        return len(shown["history"]) == count and shown["state"] in {"retrying", "dead"}

    for count in (1, 2):
        await until(lambda count=count: attempts(count))
        assert (await gw.admin("POST", f"{path}/run{named}"))[0] == 200
    await until(lambda: attempts(3))
    shown = (await gw.admin("GET", f"{path}{named}"))[1]
    assert [attempt["status"] for attempt in shown["history"]] == [503, 503, 404]
    assert shown["history"][-1] == shown["last_attempt"]
    status, refused, _ = await gw.admin("POST", f"{path}/run{named}")
    assert (status, refused["state"], "run is for retrying and scheduled ones" in refused["message"]) == (
        *(409, "dead"),
        True,
    )
    assert (await gw.admin("POST", f"{path}/replay{named}"))[0] == 200
    await target.received(4)
    assert (await gw.admin("POST", f"/admin/tasks/unknown/run{named}"))[0] == 404
    actions = [entry["action"] for entry in (await gw.admin("GET", "/admin/audit"))[1]["entries"]]
    assert actions == ["replay", "run", "run", "run"]
