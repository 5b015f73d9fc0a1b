"""The metrics: names, labels, caps, and what several processes answer together."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import GatewayFactory, Target, until
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import from_url
from stores import collect_once

from gateway import metrics
from gateway.models import Attempt, Outcome, Verdict


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    metrics.configure(1000, None)
    yield
    metrics.configure(1000, None)


def samples(text: str | None = None) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and its label values, in the order of the labels' names."""
    text = metrics.render()[0].decode() if text is None else text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def outcome(verdict: Verdict, status: int | None, seconds: float = 0.2) -> Outcome:
    """What a call came to."""
    told = Attempt(status=status, error=None, started_at=0, duration_ms=seconds * 1000, body=None)
    return Outcome(verdict=verdict, attempt=told, reason="")


def test_every_metric_has_its_name() -> None:
    """Each function moves the metric that dashboards and alerts know by this name and these labels."""
    metrics.enqueued("acme", "default")
    metrics.rate_limited("acme", "free")
    metrics.queue_full("acme")
    metrics.attempt("acme", "http://target/", outcome(Verdict.DELIVERED, 204))
    metrics.attempt("acme", "http://target/", outcome(Verdict.RETRY, None))
    metrics.finished("retry")
    metrics.started_after(0.01)
    metrics.http_request("/v1/enqueue", "POST", 201, 0.001)
    metrics.redis_call("admit", 0.001)
    metrics.redis_error("admit")
    metrics.show_in_flight(lambda: 3)
    metrics.set_max_in_flight(1000)
    metrics.oldest_waiting(7.5)
    metrics.set_pool(2, 100)
    metrics.depths("acme", 1, 2, 3, 4)
    metrics.totals(10, 20, 5, 30)
    metrics.active_clients(6)
    metrics.upgrade_candidates(2)
    metrics.saturation("window", 0.5, 1)
    metrics.tiers({"gold": (3, 1)}, {"gold": 9.5, "silver": 5})
    metrics.usage_lost(4)
    metrics.invariant_violated("depth")
    metrics.override("refused")
    metrics.egress_refused("loopback", "dial")
    found = samples()
    expected = {
        ("tasks_enqueued_total", ("acme", "default")): 1,
        ("rate_limit_exceeded_total", ("acme", "free")): 1,
        ("gateway_attempts_total", ("delivered", "2xx")): 1,
        ("gateway_attempts_total", ("retry", "none")): 1,
        ("gateway_attempt_duration_seconds_count", ()): 2,
        ("gateway_queue_full_total", ("acme",)): 1,
        ("gateway_tasks_finished_total", ("retry",)): 1,
        ("gateway_tasks_finished_total", ("dead",)): 0,
        ("gateway_start_delay_seconds_count", ()): 1,
        ("gateway_max_in_flight", ()): 1000,
        ("gateway_oldest_waiting_seconds", ()): 7.5,
        ("gateway_http_requests_total", ("POST", "/v1/enqueue", "201")): 1,
        ("gateway_http_request_duration_seconds_count", ("/v1/enqueue",)): 1,
        ("gateway_redis_command_duration_seconds_count", ("admit",)): 1,
        ("gateway_redis_errors_total", ("admit",)): 1,
        ("gateway_in_flight", ()): 3,
        ("gateway_redis_pool_in_use", ()): 2,
        ("gateway_redis_pool_size", ()): 100,
        ("gateway_tasks_queued", ("acme",)): 1,
        ("gateway_tasks_scheduled", ("acme",)): 2,
        ("gateway_tasks_running", ("acme",)): 3,
        ("gateway_tasks_dead", ("acme",)): 4,
        ("gateway_tasks", ("scheduled",)): 20,
        ("gateway_tasks", ("running",)): 5,
        ("gateway_active_clients", ()): 6,
        ("gateway_upgrade_candidates", ()): 2,
        ("gateway_limit_saturation_ratio", ("window",)): 0.5,
        ("gateway_clients_at_limit", ("window",)): 1,
        ("gateway_clients", ("enabled", "gold")): 3,
        ("gateway_clients", ("disabled", "gold")): 1,
        ("gateway_tier_revenue", ("gold",)): 28.5,
        ("gateway_tier_revenue", ("silver",)): 0,
        ("gateway_usage_lost_total", ()): 4,
        ("gateway_invariant_violations_total", ("depth",)): 1,
        ("gateway_invariant_violations_total", ("lanes",)): 0,
        ("gateway_overrides_total", ("refused",)): 1,
        ("gateway_egress_refused_total", ("loopback", "dial")): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert any(name == "gateway_build_info" for name, _ in found)


def test_content_type_is_prometheus_text() -> None:
    """Prometheus picks its parser by this header."""
    assert metrics.render()[1].startswith("text/plain; version=0.0.4")


def test_clients_past_the_cap_share_a_label() -> None:
    """The first clients keep their label, all others are `other`, in every metric alike; no count is lost."""
    metrics.configure(2, None)
    for client in ("one", "two", "three", "four", "one"):
        metrics.enqueued(client, "default")
    metrics.rate_limited("four", "free")
    found = samples()
    enqueued = {labels: n for (name, labels), n in found.items() if name == "tasks_enqueued_total"}
    assert enqueued == {("one", "default"): 2, ("two", "default"): 1, ("other", "default"): 2}
    assert found["rate_limit_exceeded_total", ("other", "free")] == 1


def test_queues_of_one_client_are_capped() -> None:
    """A client can't grow the label set by inventing queues, nor take another client's share."""
    for n in range(metrics.MAX_VALUES_PER_CLIENT + 5):
        metrics.enqueued("acme", f"q{n}")
        metrics.enqueued("acme", "q0")
    metrics.enqueued("beta", "mine")
    found = {labels: n for (name, labels), n in samples().items() if name == "tasks_enqueued_total"}
    assert len(found) == metrics.MAX_VALUES_PER_CLIENT + 2
    assert found["acme", "other"] == 5
    assert found["acme", "q0"] == metrics.MAX_VALUES_PER_CLIENT + 6
    assert found["beta", "mine"] == 1


def test_odd_methods_share_a_label() -> None:
    """A caller can't grow the label set with method names."""
    for method in ("BREW", "WHEN", "GET"):
        metrics.http_request("unknown", method, 405, 0.001)
    found = {labels: n for (name, labels), n in samples().items() if name == "gateway_http_requests_total"}
    assert found == {("other", "unknown", "405"): 2, ("GET", "unknown", "405"): 1}


def test_depths_of_a_client_that_went_away_are_removed() -> None:
    """Gauges of a client without tasks leave the exposition, and come back with its next task."""
    metrics.depths("acme", 1, 0, 0, 0)
    metrics.depths("acme", 0, 0, 0, 0)
    assert not any(labels == ("acme",) for _, labels in samples())
    metrics.depths("acme", 2, 0, 0, 0)
    assert samples()["gateway_tasks_queued", ("acme",)] == 2


def test_depths_past_the_cap_add_up() -> None:
    """`other` shows the sum of the clients without a label, also as they change and go."""
    metrics.configure(1, None)
    for client, queued in (("one", 1), ("two", 10), ("three", 5), ("two", 7)):
        metrics.depths(client, queued, 0, 0, 0)
    found = samples()
    assert found["gateway_tasks_queued", ("one",)] == 1
    assert found["gateway_tasks_queued", ("other",)] == 12
    metrics.depths("two", 0, 0, 0, 0)
    assert samples()["gateway_tasks_queued", ("other",)] == 5
    metrics.depths("three", 0, 0, 0, 0)
    assert ("gateway_tasks_queued", ("other",)) not in samples()


def test_depths_of_a_client_that_nobody_lists_any_more_are_removed() -> None:
    """Whoever is not among those that were looked at has no gauges left, nor a share in `other`."""
    metrics.configure(1, None)
    for client in ("one", "two"):
        metrics.depths(client, 0, 0, 0, 3)
    metrics.keep_depths(["two"])
    found = samples()
    assert ("gateway_tasks_dead", ("one",)) not in found
    assert found["gateway_tasks_dead", ("other",)] == 3
    metrics.keep_depths([])
    assert not [name for name, _ in samples() if name == "gateway_tasks_dead"]


def test_every_metric_is_in_the_documentation() -> None:
    """docs/monitoring.md lists each by its name."""
    text = (Path(__file__).parent.parent / "docs/monitoring.md").read_text()
    names = re.findall(r"^# TYPE (?!process_)(\S+)", metrics.render()[0].decode(), re.MULTILINE)
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in text] == []


async def test_gauges_follow_what_redis_holds(gateway: GatewayFactory, valkey: str, a_client: str) -> None:
    """A client's depths show while it has tasks and go with them, also where it vanished between two looks."""
    gw = await gateway(dispatch=False)
    redis = from_url(valkey)
    other = a_client + "-b"
    for client, delay in ((a_client, 0), (other, 3600)):
        body = {"client_id": client, "delay": delay, "task": {"url": "http://example.com/"}}
        assert (await gw.enqueue(body))[0] == 201
    await collect_once(gw.store)
    found = samples()
    assert (found["gateway_tasks_queued", (a_client,)], found["gateway_tasks_scheduled", (other,)]) == (1, 1)
    assert (found["gateway_tasks", ("queued",)], found["gateway_tasks", ("scheduled",)]) == (1, 1)
    await gw.admin("DELETE", f"/admin/clients/delete?client_id={a_client}&cancel_tasks=true")
    await redis.zrem("active", other)
    await collect_once(gw.store)
    labels = {label for name, labels in samples() for label in labels if name.startswith("gateway_tasks_")}
    assert not labels & {a_client, other}
    await redis.aclose()


async def test_what_a_real_run_leaves_on_the_page(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Delivered, retried, refused and malformed requests are all counted where operators look for them."""
    gw = await gateway()
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "free"})
    target.statuses["/fails"] = 503
    target.answer_headers["/fails"] = {"Retry-After": "3600"}
    body = {"client_id": a_client, "queue": "mail", "task": {"url": target.url + "/fails"}}
    assert (await gw.enqueue(body))[0] == 201
    assert (await gw.enqueue({**body, "cost": 9, "task": {"url": target.url}}))[0] == 201
    await target.received(2)
    assert (await gw.enqueue(body))[0] == 429
    assert (await gw.enqueue({}))[0] == 401
    assert (await gw.call("GET", "/nope/" + "x" * 50))[0] == 404
    await until(lambda: ("gateway_attempts_total", ("retry", "5xx")) in samples())
    await until(lambda: ("gateway_attempts_total", ("delivered", "2xx")) in samples())
    async with gw.client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = samples(await answer.text())
    expected = {
        ("tasks_enqueued_total", (a_client, "mail")): 2,
        ("rate_limit_exceeded_total", (a_client, "free")): 1,
        ("gateway_attempts_total", ("delivered", "2xx")): 1,
        ("gateway_attempts_total", ("retry", "5xx")): 1,
        ("gateway_attempt_duration_seconds_count", ()): 2,
        ("gateway_start_delay_seconds_count", ()): 2,
        ("gateway_in_flight", ()): 0,
        ("gateway_http_requests_total", ("POST", "/v1/enqueue", "201")): 2,
        ("gateway_http_requests_total", ("POST", "/v1/enqueue", "429")): 1,
        ("gateway_http_requests_total", ("POST", "/v1/enqueue", "401")): 1,
        ("gateway_http_requests_total", ("GET", "unmatched", "404")): 1,
        ("gateway_redis_pool_size", ()): 100,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["gateway_redis_command_duration_seconds_count", ("admit",)] == 3
    assert found["gateway_redis_pool_in_use", ()] >= 1


async def test_redis_errors_are_counted(gateway: GatewayFactory, a_client: str) -> None:
    """A Redis that is not there shows on the page."""
    gw = await gateway(dispatch=False, redis_url="unix:///nonexistent/valkey.sock")
    await gw.enqueue({"client_id": a_client, "task": {"url": "http://example.com/"}})
    assert samples()["gateway_redis_errors_total", ("connect",)] >= 1


WORKER = """
import os, sys
from pathlib import Path
from gateway import metrics

metrics.configure(1000, Path(sys.argv[1]))
metrics.enqueued("acme", "default")
metrics.show_in_flight(lambda: 2)
metrics.depths("acme", int(sys.argv[2]), 0, 0, 0)
if sys.argv[2] == "5":
    metrics.depths("gone", 1, 0, 0, 0)
    metrics.depths("gone", 0, 0, 0, 0)
print(os.getpid())
if len(sys.argv) > 3:
    metrics.forget_process(int(sys.argv[3]), Path(sys.argv[1]))
sys.stdout.write(metrics.render()[0].decode())
"""


@pytest.mark.parametrize("early", [True, False], ids=["folder in the environment", "folder only configured"])
def test_one_worker_answers_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, early: bool) -> None:
    """Counters add up over workers, also ended ones; gauges count living ones; depths are not added up."""
    if early:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def run(*arguments: str) -> tuple[str, dict[tuple[str, tuple[str, ...]], float]]:
        command = [sys.executable, "-W", "error", "-c", WORKER, str(tmp_path), *arguments]
        pid, _, text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("\n")
        return pid, samples(text)

    first, _ = run("4")
    second, both = run("5")
    assert both["tasks_enqueued_total", ("acme", "default")] == 2
    assert both["gateway_in_flight", ()] == 4
    assert both["gateway_tasks_queued", ("acme",)] == 5
    assert ("gateway_tasks_queued", ("gone",)) not in both
    _, after = run("6", first)
    assert after["tasks_enqueued_total", ("acme", "default")] == 3
    assert after["gateway_in_flight", ()] == 4
    assert second != first
