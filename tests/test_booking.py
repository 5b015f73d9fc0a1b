"""How what a process counted of its clients gets to Redis: in pieces, in time, and also once Redis was away."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import time

import aiohttp
import pytest
from conftest import Target, until
from processes import GENEROUS, Process
from test_metrics import samples

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.metrics.tally import ADMITTED
from gateway.settings import Settings
from gateway.store import open_store
from gateway.store.counting import SECONDS, SECONDS_OF_MANY, Booking
from gateway.store.usage import EVERYBODY, MINUTE, Usages


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    metrics.configure(1000, None)
    yield
    metrics.configure(1000, None)


async def test_redis_away_loses_nothing_that_it_did_not_take(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be sent is booked later, to its own minute; what may have been taken is given up and told."""
    settings = Settings.load({"REDIS_URL": store_url})
    async with open_store(settings, store_url) as store:
        booking = Booking(store.usages)
        answer = store.usages._runner.command
        problem: StoreUnavailable | None = StoreUnavailable("away")

        async def command(*command: str | bytes | int | float, tries: int = 1) -> object:
            if problem is not None and command[0] == "EVAL":
                raise problem
            return await answer(*command, tries=tries)

        monkeypatch.setattr(store.usages._runner, "command", command)
        for _ in range(2):
            metrics.enqueued("acme", "default")
            with pytest.raises(StoreUnavailable):
                await booking.flush()
        problem = None
        await booking.flush()
        now = await store.usages.now()
        assert (await store.usages.last_hour("acme", now))[ADMITTED] == 2
        assert (await store.usages.last_hour(EVERYBODY, now))[ADMITTED] == 2
        problem = StoreUnavailable("no reply", unknown=True)
        metrics.enqueued("acme", "default")
        await booking.flush()
        problem = None
        await booking.flush()
        assert (await store.usages.last_hour("acme", now))[ADMITTED] == 2
    assert b"gateway_usage_lost_total 1.0" in metrics.render()[0]


async def test_many_clients_are_booked_in_pieces(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of clients are all booked by one flush, the sum of all with them; no command has more than a few,
    others have their turn between two pieces, and what comes after a minute's edge is another's."""
    settings = Settings.load({"REDIS_URL": store_url})
    async with open_store(settings, store_url) as store:
        booking = Booking(store.usages)
        many = 5000
        for n in range(many):
            metrics.enqueued(f"client-{n}", "default")
        sizes, turns, answer = [], 0, store.usages._runner.command
        moment = time() // 60 * 60 + 30
        monkeypatch.setattr("gateway.store.counting.time", lambda: moment)

        async def now() -> float:
            return moment

        async def command(*command: str | bytes | int | float, tries: int = 1) -> object:
            nonlocal moment
            if command[0] == "EVAL":
                sizes.append(int(command[2]))
                if len(sizes) == 50:  # the minute ends while pieces are on their way
                    metrics.enqueued("late-before", "default")
                    moment += 60
            return await answer(*command, tries=tries)

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        monkeypatch.setattr(store.usages, "now", now)
        monkeypatch.setattr(store.usages._runner, "command", command)
        beside = asyncio.create_task(others())
        booking._since = moment
        await booking.flush()
        beside.cancel()
        metrics.enqueued("late-after", "default")
        await booking.flush()
        assert max(sizes) <= 3 + 2 * 51
        assert turns > len(sizes) > many / 51
        begin = int(moment) // 60 * 60 - 120
        counted = await store.usages.steps(EVERYBODY, begin, begin + 300, MINUTE)
        assert sum(counts[ADMITTED] for counts in counted.values()) == many + 2
        for name in ("client-0", f"client-{many - 1}", "late-before"):
            [(first, counts)] = (await store.usages.steps(name, begin, begin + 300, MINUTE)).items()
            assert counts[ADMITTED] == 1
        [(later, _)] = (await store.usages.steps("late-after", begin, begin + 300, MINUTE)).items()
        assert later == first + 60
    assert b"gateway_usage_lost_total 0.0" in metrics.render()[0]


async def test_nobody_lags_by_more_than_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few clients or many, a flush is due so soon that ten seconds suffice with the time it may take, and at each
    minute's edge."""
    moment = 600_000.0
    monkeypatch.setattr("gateway.store.counting.time", lambda: moment)
    booking = Booking(Usages.__new__(Usages))
    assert booking.next_in() == SECONDS <= 5
    booking._many = True
    assert booking.next_in() == SECONDS_OF_MANY <= 6
    moment += 57
    assert booking.next_in() == 0
    booking._since = moment
    assert booking.next_in() == pytest.approx(3.001)


@pytest.mark.parametrize(("clients_kept", "minutes"), [(12, 4), (200_000, 10)], ids=["clients", "minutes"])
async def test_what_nobody_could_book_is_bounded(
    store_url: str, monkeypatch: pytest.MonkeyPatch, clients_kept: int, minutes: int
) -> None:
    """While Redis is away memory stays bounded, in clients and in minutes, the latest are kept, and what is given up is
    counted."""
    settings = Settings.load({"REDIS_URL": store_url})
    async with open_store(settings, store_url) as store:
        moment = 600_000.0

        async def away() -> float:
            raise StoreUnavailable("away")

        monkeypatch.setattr(store.usages, "now", away)
        monkeypatch.setattr("gateway.store.counting.time", lambda: moment)
        monkeypatch.setattr("gateway.store.counting.CLIENTS_KEPT", clients_kept)
        booking = Booking(store.usages)
        for minute in range(14):
            for n in range(2):
                metrics.enqueued(f"client-{minute}-{n}", "default")
            with pytest.raises(StoreUnavailable):
                await booking.flush()
            moment += 60
        assert sum(len(kept.tallies) for kept in booking._waiting) <= clients_kept
        assert [kept.minute for kept in booking._waiting][-minutes:] == list(range(10_013 - minutes, 10_013))
        kept_events = sum(kept.events() for kept in booking._waiting)
        assert f"gateway_usage_lost_total {28 - kept_events}.0".encode() in metrics.render()[0]
        booking.close()
        assert b"gateway_usage_lost_total 28.0" in metrics.render()[0]


async def test_workers_count_together_and_leave_nothing_behind(store_url: str, target: Target, tmp_path: Path) -> None:
    """Any worker answers for all, and what was counted last before a stop is booked on the way out."""
    async with aiohttp.ClientSession() as session:
        gateway = Process(session, tmp_path / "log", ["--workers", "2"], REDIS_URL=store_url)

        async def admitted() -> tuple[float, int]:
            async with session.get(f"{gateway.url}/metrics", headers={"Connection": "close"}) as answer:
                counted = samples(await answer.text()).get(("tasks_enqueued_total", ("acme", "default")), 0)
            return counted, (await gateway.call("GET", "/admin/usage"))[1]["total"]["admitted"]

        async def enqueue(count: int) -> None:
            body = {"client_id": "acme", "task": {"url": target.url}}
            for _ in range(count):
                async with session.post(
                    f"{gateway.url}/v1/enqueue", json=body, headers={"Connection": "close"}
                ) as answer:
                    assert answer.status == 201

        async def all_told() -> bool:
            return await admitted() == (20, 20)

        try:
            await gateway.ready()
            await enqueue(20)
            await until(all_told, GENEROUS)
            await enqueue(5)
        finally:
            assert await gateway.end() == 0
    async with open_store(Settings.load({"REDIS_URL": store_url}), store_url) as store:
        assert (await store.usages.last_hour("acme", await store.usages.now()))[ADMITTED] == 25
