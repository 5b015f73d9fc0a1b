"""Tasks whose stored form nobody can read, changed by hand or written by a version to come: each ends as a dead letter
by itself, whatever is wrong with it, and what runs, waits or is listed beside it is not disturbed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import redis.asyncio as redis
from conftest import Gateway, GatewayFactory, Target, until
from stores import Key, Opened, admit, lapse, state

from gateway.models import State
from gateway.store import records, stored
from gateway.store.stored import UNREADABLE, Record

Break = Callable[[Any, str], Awaitable[None]]


def changed(**fields: Any) -> Break:
    """A record with these fields in place of its own."""

    async def change(raw: Any, name: str) -> None:
        told = msgspec.msgpack.decode(await raw.get(name))
        for field, value in fields.items():
            told[Record.__struct_fields__.index(field)] = value
        await raw.set(name, msgspec.msgpack.encode(told))

    return change


async def garbage(raw: Any, name: str) -> None:
    await raw.set(name, b"\xc1 garbage \xff")


async def cut_short(raw: Any, name: str) -> None:
    await raw.set(name, (await raw.get(name))[:-9])


async def no_text(raw: Any, name: str) -> None:
    """Something in it is no UTF-8."""
    await raw.set(name, (await raw.get(name)).replace(b"/broken", b"/\xffroken"))


async def another_type(raw: Any, name: str) -> None:
    await raw.delete(name)
    await raw.rpush(name, "a", "list")


BROKEN: dict[str, Break] = {
    "garbage": garbage,
    "cut short": cut_short,
    "no text": no_text,
    "another type": another_type,
    "a newer version": changed(version=stored.VERSION + 1),
    "a number for a text": changed(url=5),
    "a text for a number": changed(bound="many"),
    "headers that are no JSON": changed(headers="{"),
    "a state that is none": changed(state=7),
}


LATER = "2199-01-01T00:00:00Z"


@pytest.fixture
async def there(store_url: str) -> AsyncIterator[Any]:
    async with redis.Redis.from_url(store_url) as client:
        yield client


async def enqueued(gw: Gateway, target: Target, path: str, **more: Any) -> str:
    task = {"url": f"{target.url}{path}", "headers": {"X-A": "1"}, "body": "hello"}
    status, told, _ = await gw.enqueue({"client_id": "acme", "task": task, **more})
    assert status == 201, told
    return str(told["task_id"])


async def listed(gw: Gateway, query: str = "") -> dict[str, dict[str, Any]]:
    status, page, _ = await gw.admin("GET", f"/admin/tasks?limit=50&client_id=acme{query}")
    assert status == 200, page
    return {task["task_id"]: task for task in page["tasks"]}


async def shown(gw: Gateway, task_id: str) -> dict[str, Any]:
    """The task as its list has it; nothing else that shows it fails."""
    for path in (f"/v1/tasks/{task_id}", f"/v1/tasks/{task_id}/explain", f"/admin/tasks/{task_id}"):
        status, told, _ = await gw.admin("GET", f"{path}?client_id=acme")
        assert (status, told["task_id"]) == (200, task_id), (path, told)
    for path in ("/admin/clients/usage?client_id=acme", f"/admin/tasks?task_id={task_id}", "/admin/dead?host=target"):
        assert (await gw.admin("GET", path))[0] == 200, path
    return (await listed(gw))[task_id]


async def buried(gw: Gateway, task_id: str) -> dict[str, Any]:
    async def dead() -> bool:
        return (await listed(gw))[task_id]["state"] == "dead"

    await until(dead)
    return await shown(gw, task_id)


async def nothing_differs(gw: Gateway) -> None:
    assert [found async for _, each in gw.store.audit.everything(mend=False) for found in each] == []


async def ends_alone(gw: Gateway, target: Target, task_id: str) -> None:
    """Its neighbours run at once; it is a dead letter, and one again where it is replayed, and can be removed."""
    assert {call["path"] for call in await target.received(2)} == {"/one", "/two"}
    for _ in range(2):
        told = await buried(gw, task_id)
        assert (told["reason"], told["attempts"], told["last_attempt"]["error"]) == (UNREADABLE, 1, UNREADABLE)
        assert (await gw.store.windows.usage("acme")).in_flight == 0
        await nothing_differs(gw)
        assert (await gw.admin("POST", f"/admin/dead/replay?client_id=acme&task_id={task_id}"))[1]["tasks"] == 1
    await buried(gw, task_id)
    assert (await gw.admin("DELETE", f"/admin/dead?client_id=acme&task_id={task_id}"))[1]["tasks"] == 1
    assert task_id not in await listed(gw)
    assert len(target.calls) == 2


@pytest.mark.parametrize("how", ["with an expiry", "scheduled", "after a delay"])
@pytest.mark.parametrize("broken", BROKEN)
async def test_one_broken_record_of_three_is_a_dead_letter(
    gateway: GatewayFactory, target: Target, there: Any, broken: str, how: str
) -> None:
    """The others run at once: nobody waits for a lease, which is long here."""
    first = await gateway(dispatch=False)
    more: dict[str, Any] = {"expires_at": LATER} if how == "with an expiry" else {"delay": 0.1}
    _, middle, _ = [await enqueued(first, target, path, **more) for path in ("/one", "/broken", "/two")]
    if how == "after a delay":

        async def due() -> bool:
            await first.store.claims.promote_due(10)
            return (await first.store.windows.usage("acme")).queued == 3

        await until(due)
    await BROKEN[broken](there, f"task:{middle}")
    assert (await listed(first))[middle]["state"] in ("queued", "scheduled")
    await ends_alone(await gateway(lease_seconds="60"), target, middle)


FRESH: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _: b"\xc1 garbage \xff",
    "empty": lambda _: b"",
    "cut short": lambda value: value[:-9],
    "of another form": lambda value: msgspec.msgpack.encode([2, *msgspec.msgpack.decode(value)]),
    "a number for a text": lambda value: value.replace(b"\xa4POST", b"\xcd\x00\x00\x00\x00"),
}


@pytest.mark.parametrize("broken", FRESH)
async def test_one_broken_entry_of_three_is_a_dead_letter(
    gateway: GatewayFactory, target: Target, there: Any, broken: str
) -> None:
    """The same for tasks that are their entries and have no record."""
    first = await gateway(dispatch=False)
    for path in ("/one", "/broken", "/two"):
        await enqueued(first, target, path)
    (_, (entry, fields), _) = await there.xrange("stream:acme:default")
    await there.xdel("stream:acme:default", entry)
    await there.xadd("stream:acme:default", {b"r": FRESH[broken](fields[b"r"])})
    [task_id] = [name for name, told in (await listed(first)).items() if told["reason"] == UNREADABLE] or [
        *await listed(first)
    ][2:]
    await shown(first, task_id)
    await ends_alone(await gateway(lease_seconds="60"), target, task_id)


async def test_what_an_older_version_could_not_read_is_delivered_by_one_that_can(
    gateway: GatewayFactory, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is lost while it is a dead letter; replayed, it is called as it was enqueued."""

    def refuse(_: bytes) -> None:
        raise ValueError

    gw = await gateway()
    with monkeypatch.context() as older:
        older.setattr(records, "decode_fresh", refuse)
        task_id = await enqueued(gw, target, "/later")
        await buried(gw, task_id)
    assert (await gw.admin("POST", f"/admin/dead/replay?client_id=acme&task_id={task_id}"))[0] == 200
    [call] = await target.received(1)
    assert (call["path"], call["body"], call["headers"]["X-A"]) == ("/later", b"hello", "1")


async def test_dead_letters_and_results_that_break_do_no_harm(
    gateway: GatewayFactory, target: Target, there: Any
) -> None:
    """A dead letter stays one that can be removed; of a result nothing is known any more."""
    gw = await gateway()
    target.statuses["/refused"] = 404
    dead = await enqueued(gw, target, "/refused")
    await buried(gw, dead)
    done = await enqueued(gw, target, "/done")

    async def ended() -> bool:
        return (await listed(gw))[done]["state"] == "succeeded"

    await until(ended)
    for task_id in (dead, done):
        await garbage(there, f"task:{task_id}")
    assert (await shown(gw, dead))["state"] == "dead"
    assert list(await listed(gw)) == [dead]
    assert (await gw.call("GET", f"/v1/tasks/{done}?client_id=acme"))[0] == 404
    assert (await gw.admin("DELETE", f"/admin/dead?client_id=acme&task_id={dead}"))[1]["tasks"] == 1
    assert await listed(gw) == {}


async def test_a_record_that_breaks_under_its_call_stops_nobody(opened: Opened, raw: Any, key: Key) -> None:
    """Its lease ends as its neighbours' do and they are claimed again in their order, it among them; while it waits, it
    can be cancelled."""
    store = await opened(LEASE_SECONDS="0.5")
    ids = [await admit(store, expires_at=2_000_000_000_000) for _ in range(3)]
    assert len((await store.claims.claim("acme", 3)).tasks) == 3
    await raw.set(key(f"task:{ids[1]}"), "garbage")
    await lapse(store, 3)
    await raw.set(key(f"task:{ids[1]}"), "garbage again")  # while it is noted as taken back
    claimed = (await store.claims.claim("acme", 3)).tasks
    assert [(task.task_id, task.unreadable) for task in claimed] == [
        (ids[0], None),
        (ids[1], UNREADABLE),
        (ids[2], None),
    ]
    await store.claims.hand_back(claimed)
    assert await state(store, ids[1]) == State.QUEUED
    cancelled = await store.tasks.cancel("acme", ids[1])
    assert cancelled is not None
    assert (cancelled[0].reason, cancelled[1]) == (UNREADABLE, True)
    assert [task.task_id for task in (await store.claims.claim("acme", 3)).tasks] == [ids[0], ids[2]]
    assert [each async for _, each in store.audit.everything(mend=False) if each] == []
