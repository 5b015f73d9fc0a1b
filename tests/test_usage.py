"""What clients did: counted in the process, booked by minute and hour in Redis, told by the operators' API."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from conftest import GatewayFactory, Target, until
from deployments import UNHURRIED, Deployment
from redis.asyncio import from_url
from test_metrics import outcome

from gateway import metrics
from gateway.metrics import tally
from gateway.metrics.tally import ADMITTED, DELIVERED, FAILED, REFUSED, REFUSED_MINUTES
from gateway.metrics.usage import MOST_CLIENTS, Counting
from gateway.models import Verdict
from gateway.settings import Settings
from gateway.store import open_store
from gateway.store.counting import Booking
from gateway.store.usage import DAY, EVERYBODY, HOUR, MINUTE, Batch


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    metrics.configure(1000, None)
    yield
    metrics.configure(1000, None)


def did(**counts: int) -> tally.Tally:
    """A tally with these counts, by their names."""
    made = tally.empty()
    for name, count in counts.items():
        made[{"admitted": ADMITTED, "refused": REFUSED, "delivered": DELIVERED, "failed": FAILED}[name]] = count
    return made


def test_quantiles_are_those_of_the_calls() -> None:
    """Half of the calls and 95 of 100 stayed below what is told, as exactly as the buckets are wide."""
    counts = tally.empty()
    for milliseconds in range(1, 101):
        counts[tally.bucket(milliseconds / 1000)] += 1
    median, high = tally.quantile(counts, 0.5), tally.quantile(counts, 0.95)
    assert median == pytest.approx(0.05, abs=0.001)
    assert high == pytest.approx(0.095, abs=0.001)
    assert tally.quantile(tally.empty(), 0.5) is None
    counts = tally.empty()
    counts[tally.bucket(9999.0)] += 1
    assert tally.quantile(counts, 0.5) == tally.BOUNDS[-1]


def test_what_is_packed_is_what_is_added() -> None:
    """The stored form has every count and every bucket, and adds up."""
    counts = did(admitted=70_000, refused=3, delivered=2)
    for at in (tally.BUCKETS, len(counts) - 1):
        counts[at] = at
    total = tally.empty()
    for _ in range(2):
        tally.add_packed(total, tally.pack(counts))
    assert total == [2 * count for count in counts]
    assert len(tally.pack(tally.empty())) == 6


def test_clients_past_the_bound_are_counted_in_sum_only() -> None:
    """Memory does not grow with client ids between two flushes, and nothing is missing in the sum."""
    counting = Counting()
    for n in range(MOST_CLIENTS + 5):
        counting.admitted(f"client-{n}", 1)
    counted = counting.take()
    assert len(counted.tallies) == MOST_CLIENTS + 1
    batch = Batch.of(counted, 1)
    assert batch.tallies[EVERYBODY][ADMITTED] == MOST_CLIENTS + 5
    assert batch.events() == MOST_CLIENTS
    assert counting.take().tallies == {}


def test_kinds_of_failures_are_bounded() -> None:
    """Targets can't grow what is counted by naming hosts, nor errors by naming addresses."""
    counting = Counting()
    for n in range(100):
        counting.failed(f"http://user:secret@host{n}:80/path", outcome(Verdict.RETRY, None))
    counted = counting.take()
    assert len(counted.hosts) == 33
    assert counted.hosts["other"] == 68
    assert not any("secret" in name for name in counted.hosts)
    assert sum(counted.statuses.values()) == 100


async def test_two_replicas_add_up(deployment: Deployment) -> None:
    """What several processes counted of one minute is one sum, in its minute, in its hour, of the client and of all."""
    metrics.take_usage()  # what other tests left would be booked, too, once this takes some seconds
    async with deployment.store(**UNHURRIED) as one, deployment.store(**UNHURRIED) as other:
        now = int(await one.usages.now())
        minute = now // MINUTE
        for store, admitted in ((one, 3), (other, 4)):
            fields = {"acme": did(admitted=admitted, refused=1), "globex": did(delivered=2, failed=1)}
            booked = batch(minute, fields)
            booked.failures = {("status", "503"): 1}
            await store.usages.book(booked)
            assert booked.empty
        begin = minute * MINUTE
        [(at, acme)] = (await one.usages.steps("acme", begin - HOUR, begin + MINUTE, MINUTE)).items()
        assert (at, acme[ADMITTED], acme[REFUSED]) == (begin, 7, 2)
        hour = now // HOUR * HOUR
        for client, expected in (("acme", did(admitted=7, refused=2)), ("globex", did(delivered=4, failed=2))):
            found = await one.usages.steps(client, hour, hour + HOUR, HOUR)
            assert found[hour][: tally.REFUSED_MINUTES] == expected[: tally.REFUSED_MINUTES]
        everybody = await one.usages.last_hour(EVERYBODY, now)
        assert everybody[: tally.REFUSED_MINUTES] == [7, 2, 4, 2]
        assert [name for name, _ in await other.usages.most(REFUSED, now, 10)] == ["acme"]
        assert [name for name, _ in await other.usages.most(FAILED, now, 10)] == ["globex"]
        assert [name for name, _ in await other.usages.candidates(0, now)] == ["acme"]
        assert (await other.usages.failures(now)).by_status == [("503", 2)]


def batch(minute: int, tallies: dict[str, tally.Tally]) -> Batch:
    """A batch as `Booking` makes it."""
    return Batch.of(metrics.Counted(tallies, {}, {}), minute)


async def test_it_expires(store_url: str) -> None:
    """Every key of usage has a time to live: a day and a bit for minutes, 90 days for hours, less for the rankings."""
    settings = Settings.load({"REDIS_URL": store_url, "KEY_PREFIX": "p:"})
    async with open_store(settings, store_url) as store:
        booking = Booking(store.usages)
        metrics.enqueued("acme", "default")
        metrics.rate_limited("acme", "free")
        metrics.attempt("acme", "http://target/", outcome(Verdict.RETRY, 503))
        await booking.flush()
    redis = from_url(store_url)
    lives = {key.decode().split(":")[1]: await redis.ttl(key) for key in await redis.keys("p:*")}
    await redis.aclose()
    assert DAY < lives.pop("usage") <= DAY + 2 * HOUR
    assert 90 * DAY < lives.pop("usage_hours") <= 91 * DAY
    assert 2 * DAY < lives.pop("refused_minutes") <= 2 * DAY + 2 * HOUR
    assert set(lives) == {"most_refused", "most_failed", "failures"}
    assert all(2 * HOUR < life <= 3 * HOUR for life in lives.values())


@pytest.mark.parametrize(
    ("buckets", "calls", "minutes_bytes", "hours_bytes"),
    [(8, 100, 45_000, 1_400), (len(tally.BOUNDS) + 1, 100_000, 260_000, 4_000)],
    ids=["busy", "worst"],
)
async def test_it_stays_small(store_url: str, buckets: int, calls: int, minutes_bytes: int, hours_bytes: int) -> None:
    """A client with traffic in every minute of a day takes no more than docs/monitoring.md says."""
    settings = Settings.load({"REDIS_URL": store_url})
    async with open_store(settings, store_url) as store:
        today = int(await store.usages.now()) // DAY * DAY // MINUTE
        counts = did(admitted=calls, refused=calls, delivered=calls, failed=calls)
        counts[tally.BUCKETS : tally.BUCKETS + buckets] = [calls] * buckets
        for n in range(DAY // MINUTE):
            await store.usages.book(Batch(today + n, {"acme": list(counts)}, {}))
    redis = from_url(store_url)
    for kind, most in (("usage:acme", minutes_bytes), ("usage_hours:acme", hours_bytes)):
        assert sum([await redis.memory_usage(key, samples=0) for key in await redis.keys(f"{kind}:*")]) <= most
    await redis.aclose()


async def test_the_api_tells_what_happened(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Admitted, refused, delivered and failed show by minute and by hour, of the client and of all, with durations."""
    gw = await gateway()
    booking = Booking(gw.store.usages)
    target.statuses["/fails"] = 404
    limits = {"max_concurrent": 5, "requests_per_min": 3}
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "rate_limit": limits})
    for path, status in (("/ok", 201), ("/ok", 201), ("/fails", 201), ("/ok", 429)):
        body = {"client_id": a_client, "task": {"url": target.url + path}}
        assert (await gw.enqueue(body))[0] == status
    expected = {"admitted": 3, "refused": 1, "delivered": 2, "failed": 1}

    async def all_told() -> bool:
        await booking.flush()
        status, told, _ = await gw.admin("GET", f"/admin/usage?client_id={a_client}")
        assert status == 200
        return expected.items() <= told["total"].items()

    await until(all_told)
    for query in (f"client_id={a_client}", f"client_id={a_client}&step=hour", "step=hour", ""):
        status, told, _ = await gw.admin("GET", f"/admin/usage?{query}")
        assert status == 200
        assert expected.items() <= told["total"].items()
        assert 0 < told["total"]["duration_p50"] <= told["total"]["duration_p95"]
        assert len(told["points"]) == (24 if "hour" in query else 60)
        assert sum(point["admitted"] for point in told["points"]) == 3
    day_ago = (datetime.now(UTC) - timedelta(days=3)).isoformat().replace("+", "%2B")
    assert len((await gw.admin("GET", f"/admin/usage?from={day_ago}"))[1]["points"]) == 1440
    for query, named in (
        ("step=day", "step"),
        ("client_id=a", "client_id"),
        ("from=now", "from"),
        ("since=1", "since"),
    ):
        status, told, _ = await gw.admin("GET", f"/admin/usage?{query}")
        assert (status, told["message"].split(":")[0]) == (400, named)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+", "%2B")
    assert (await gw.admin("GET", f"/admin/usage?from={later}"))[0] == 400


async def test_who_outgrows_its_tier(gateway: GatewayFactory) -> None:
    """Refused in more than so many minutes of the last day, over midnight too; with the next tier that would fit."""
    gw = await gateway(dispatch=False)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": "grown", "tier": "free"})
    now = int(await gw.store.usages.now()) // MINUTE
    for client, ago in (("grown", range(0, 36, 3)), ("calm", range(3)), ("past", range(26 * 60, 26 * 60 + 30))):
        for minutes in ago:
            for _ in range(2):  # two refusals of one minute are one minute
                await gw.store.usages.book(batch(now - minutes, {client: did(admitted=1, refused=2)}))
    status, told, _ = await gw.admin("GET", "/admin/upgrade-candidates")
    assert (status, told["count"], told["minutes"]) == (200, 1, 10)
    [found] = told["candidates"]
    assert found["client_id"] == "grown"
    assert (found["refused_minutes"], found["refused"], found["next_tier"]) == (12, 48, "basic")
    more = (await gw.admin("GET", "/admin/upgrade-candidates?minutes=2"))[1]["candidates"]
    assert [each["client_id"] for each in more] == ["grown", "calm"]
    assert (await gw.admin("GET", "/admin/upgrade-candidates?minutes=x"))[0] == 400
    assert (await gw.store.usages.candidates(2, now * 60))[0][1][REFUSED_MINUTES] == 12
