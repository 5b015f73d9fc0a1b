"""What lies in deploy/prometheus and deploy/grafana, held against a Prometheus that scrapes a gateway with work."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from as_user import ROOT, Background, free_port, plain_environment
from conftest import Target, until
from processes import GENEROUS, Process

RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """promtool in the folder of the rules; both streams in ``stdout``."""
    return subprocess.run(
        ["promtool", *arguments],
        cwd=RULES.parent,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


@needs_promtool
def test_the_configuration_and_its_rules_are_sound() -> None:
    """promtool accepts what the compose file mounts, and the rules do what their tests say."""
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout
    tested = promtool("test", "rules", "rules_test.yml")
    assert tested.returncode == 0, tested.stdout


def test_every_alert_is_tested() -> None:
    """Each alert fires in one test of the rules and is silent in another."""
    alerts = {rule["alert"] for group in rules() for rule in group if "alert" in rule}
    cases = [
        case
        for test in yaml.safe_load((RULES.parent / "rules_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


@needs_promtool
@needs_prometheus
async def test_every_query_has_an_answer(store_url: str, target: Target, tmp_path: Path) -> None:
    """A Prometheus that scraped a gateway with work of every kind computes each panel and each rule; none is empty."""
    async with aiohttp.ClientSession() as session:
        tiers = tmp_path / "tiers.toml"
        tiers.write_text("[gold]\nmax_concurrent = 3\nrequests_per_min = 5\nprice = 9.5\n")
        gateway = Process(session, tmp_path / "gateway.log", [], REDIS_URL=store_url, TIERS_FILE=str(tiers))
        try:
            await gateway.ready()
            async with scraping(session, gateway.port, tmp_path) as prometheus:
                await work(gateway, target)
                exposition = (await gateway.call("GET", "/metrics"))[1]
                checked = promtool("check", "metrics", text=exposition)
                assert (checked.returncode, checked.stdout) == (0, "")
                for name, query in {**panels(), **records()}.items():
                    await until(partial(answered, session, prometheus, name, query), GENEROUS, partial(str, name))
                await until(partial(same_numbers, session, prometheus, gateway), GENEROUS)
                async with session.get(f"{prometheus}/api/v1/rules") as answer:
                    groups = (await answer.json())["data"]["groups"]
                health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
                assert set(health.values()) == {"ok"}, health
                assert len(health) == sum(map(len, rules()))
        finally:
            await gateway.end()


async def work(gateway: Process, target: Target) -> None:
    """Tasks that are delivered, that wait, that fail and die, and requests that are refused, for a minute's window."""
    target.statuses["/fails"] = 500
    held = target.hold("/hangs")
    for name in ("acme", "globex"):
        fields = {"client_id": name, "tier": "gold"}
        assert (await gateway.call("PUT", "/admin/clients/set", fields))[0] == 200
        for path in ("/ok", "/fails", "/hangs", "/ok", "/ok"):
            task = {"url": target.url + path}
            await gateway.call("POST", "/v1/enqueue", {"client_id": name, "task": task, "max_retry": 1})
    override = {
        "client_id": "acme",
        "task": {"url": target.url},
        "rate_limit": {"max_concurrent": 1, "requests_per_min": 1},
    }
    assert (await gateway.call("POST", "/v1/enqueue", override))[0] == 429

    async def all_known() -> bool:
        text = (await gateway.call("GET", "/metrics"))[1]
        return 'gateway_tasks{state="dead"} 2.0' in text

    await until(all_known, GENEROUS)
    held.set()


@asynccontextmanager
async def scraping(session: aiohttp.ClientSession, gateway: int, folder: Path) -> AsyncIterator[str]:
    """A Prometheus with our rules, each second; its address."""
    config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{gateway}"]
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [
        str(shutil.which("prometheus")),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    running = Background(command, folder / "prometheus.log", plain_environment())
    url = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        assert not running.ended, running.text()
        try:
            async with session.get(f"{url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    try:
        await until(ready, GENEROUS)
        yield url
    finally:
        await asyncio.to_thread(running.stop)


async def same_numbers(session: aiohttp.ClientSession, prometheus: str, gateway: Process) -> bool:
    """Whether Prometheus, the overview and the usage agree by now; each lags by some seconds."""

    async def of(query: str) -> float:
        async with session.post(f"{prometheus}/api/v1/query", data={"query": query}) as answer:
            return float((await answer.json())["data"]["result"][0]["value"][1])

    overview = (await gateway.call("GET", "/admin/overview"))[1]
    pairs = {
        "gateway_active_clients": overview["clients"]["active"],
        'sum(gateway_clients{tier="gold"})': overview["clients"]["known"],
        "sum(tasks_enqueued_total)": overview["last_hour"]["admitted"],
        "sum(rate_limit_exceeded_total)": overview["last_hour"]["refused"],
        'sum(gateway_attempts_total{outcome="delivered"})': overview["last_hour"]["delivered"],
        'sum(gateway_attempts_total{outcome!="delivered"})': overview["last_hour"]["failed"],
    }
    for state, name in (("queued", "queued"), ("scheduled", "scheduled"), ("running", "in_flight"), ("dead", "dead")):
        pairs[f'max(gateway_tasks{{state="{state}"}})'] = overview["totals"][name]
    return [await of(query) for query in pairs] == list(pairs.values())


async def answered(session: aiohttp.ClientSession, prometheus: str, name: str, query: str) -> bool:
    """Whether the query has a result by now; it must be a query at all."""
    async with session.post(f"{prometheus}/api/v1/query", data={"query": query}) as answer:
        told = await answer.json()
    assert told["status"] == "success", (name, query, told)
    return bool(told["data"]["result"])


def rules() -> list[list[dict[str, Any]]]:
    """The rules, by group."""
    return [group["rules"] for group in yaml.safe_load(RULES.read_text())["groups"]]


def records() -> dict[str, str]:
    """What the recording rules compute, by the name of the series."""
    return {rule["record"]: rule["record"] for group in rules() for rule in group if "record" in rule}


def panels() -> dict[str, str]:
    """The queries of the dashboard, as it asks them for all clients, by the titles of their panels."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for query in panel.get("targets", []):
            text = query["expr"].replace("$client", ".*").replace("$__rate_interval", "1m")
            found[f"{panel['title']} {query['refId']}"] = text
    return found
