"""How the metrics are added up and told: as Prometheus's own values would be, and in turn with everybody else."""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from random import Random

import pytest
from conftest import GatewayFactory
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from test_metrics import outcome, samples

from gateway import metrics
from gateway.metrics import text
from gateway.metrics.sums import Durations
from gateway.metrics.tally import BOUNDS, BUCKETS, DELIVERED
from gateway.middleware.answers import Pieces
from gateway.models import Verdict


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    metrics.configure(1000, None)
    yield
    metrics.configure(1000, None)


def test_durations_are_those_that_were_observed_one_by_one() -> None:
    """Put into buckets together, in several goes and also on a bound, they make the same histogram, and are counted."""
    bounds, chance = (0.1, 0.5, 2.5), Random(7)
    seconds = [*bounds, 0.0, 99.0, *(chance.expovariate(1) for _ in range(500))]
    pages, counted = [], []
    for together in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("h", "h", ["route"], registry=registry, buckets=bounds)
        durations = Durations(histogram, bounds, lambda key: (key,), lambda _, count: counted.append(count))
        for number, each in enumerate(seconds):
            if together:
                durations["/a"].append(each)
            else:
                histogram.labels("/a").observe(each)
            if number == 250:
                durations.settle()
        durations.settle()
        durations.settle()
        pages.append([line for line in generate_latest(registry).decode().splitlines() if "_sum" not in line])
        assert registry.get_sample_value("h_sum", {"route": "/a"}) == pytest.approx(sum(seconds))
    assert pages[0] == pages[1]
    assert sum(counted) == len(seconds)


def test_what_waits_to_be_put_into_buckets_is_bounded() -> None:
    """Where nobody looks and nothing is booked, durations are handed on all the same."""
    note = metrics.http_requests("/v1/enqueue", "POST", 201)
    for number in range(1999):
        note(0.001)
        metrics.redis_call("admit", 0.0001 * number)
    waiting = sum(map(len, metrics._now.requests.values()))
    assert waiting == 499
    found = samples()
    assert found["gateway_http_requests_total", ("POST", "/v1/enqueue", "201")] == 1999
    assert found["gateway_redis_command_duration_seconds_count", ("admit",)] == 1999


def test_both_counts_of_a_client_are_of_the_same_events() -> None:
    """What Prometheus is told and what is booked of a client agree, whichever is asked first and in between."""
    for _ in range(3):
        metrics.enqueued("acme", "mail")
        metrics.enqueued("acme", "default")
        metrics.rate_limited("acme", "free")
        metrics.attempt("acme", "http://target/", outcome(Verdict.DELIVERED, 204, 0.2))
        samples()
    metrics.enqueued("acme", "mail")
    tally = metrics.take_usage().tallies["acme"]
    found = samples()
    assert tally[:BUCKETS] == [7, 3, 3, 0, 0]
    assert tally[DELIVERED] == tally[BUCKETS + bisect_left(BOUNDS, 0.2)] == 3
    assert found["tasks_enqueued_total", ("acme", "mail")] == 4
    assert found["tasks_enqueued_total", ("acme", "default")] == 3
    assert found["gateway_attempts_total", ("delivered", "2xx")] == 3
    assert metrics.take_usage().tallies == {}


@pytest.mark.parametrize("lines", [1, 7, 200, 5000])
def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """However small the pieces are, joined they are the library's own text, and help and type are told once."""
    monkeypatch.setattr(text, "_LINES", lines)
    registry = CollectorRegistry()
    many = Counter("many", "Of many\nlines \\ here.", ["client_id"], registry=registry)
    for number in range(450):
        many.labels(f'client-"{number}"').inc(number)
    Counter("none", "Without a line.", ["client_id"], registry=registry)
    Histogram("some", "Of buckets.", registry=registry).observe(0.3)
    assert b"".join(text.pieces(registry)) == generate_latest(registry)
    if lines <= 200:
        assert len([*text.pieces(registry)]) > 450 / lines


async def test_a_scrape_leaves_turns_to_others(gateway: GatewayFactory) -> None:
    """While a thousand clients are told of, others run, and the page is whole."""
    gw = await gateway(dispatch=False)
    for number in range(1000):
        metrics.enqueued(f"client-{number}", "default")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    async with gw.client.get("/metrics") as answer:
        page = await answer.text()
        assert int(answer.headers["Content-Length"]) == len(page.encode())
    task.cancel()
    found = samples(page)
    assert sum(value for (name, _), value in found.items() if name == "tasks_enqueued_total") == 1000
    assert turns > 40


async def test_a_long_body_is_sent_as_it_is() -> None:
    """Its length is known before it is sent, and it arrives in order."""
    sent = []

    class Writer:
        async def write(self, piece: bytes) -> None:
            sent.append(piece)

    pieces = Pieces([b"[1", b",2", b"]"])
    assert pieces.size == 5
    await pieces.write(Writer())
    assert b"".join(sent).decode() == pieces.decode() == "[1,2]"
