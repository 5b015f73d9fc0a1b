"""`gateway tasks`, `jobs`, `queues`, `dead` over all clients and `redis`: they show and do what the API does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from typer.testing import CliRunner

from gateway.cli import app


@pytest.fixture
async def gw(gateway: GatewayFactory) -> AsyncIterator[Gateway]:
    made = await gateway()
    working = asyncio.create_task(made.store.job_worker.run())
    yield made
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


async def test_find_look_and_act(gw: Gateway, target: Target, a_client: str) -> None:
    """A task is found by its label, shown with its attempts though no client is named, run, replayed; unknown is 1."""
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    target.statuses["/x"] = [404, 404, 200]
    body = {"client_id": a_client, "labels": ["order-7"], "delay": 600, "task": {"url": f"{target.url}/x"}}
    _, task, _ = await gw.enqueue(body)
    name = task["task_id"]
    listed, queues, redis, unknown = await asyncio.gather(
        run("tasks", "list", "--label", "order-7", "--state", "scheduled", "--limit", "5", env=env),
        run("queues", "list", "--client", a_client, env=env),
        run("redis", env=env),
        run("tasks", "get", "unknown", env=env),
    )
    assert name in listed.out
    assert "order-7" in listed.out
    assert "default" in queues.out
    assert "master" in redis.out
    assert (unknown.code, "no client has a task unknown" in unknown.err) == (1, True)
    assert name in (await run("tasks", "run", name, env=env)).out

    async def dead() -> bool:
        return len((await gw.admin("GET", "/admin/dead"))[1]["tasks"]) == 1

    await until(dead)
    shown = await run("tasks", "get", name, env=env)
    assert "404" in shown.out
    assert f"POST {target.url}/x" in shown.out
    assert "order-7" in shown.out
    assert "seen" in shown.out  # what the target answered
    assert name in (await run("tasks", "replay", name, "--client", a_client, env=env)).out
    await until(dead)
    job: Any = json.loads((await run("dead", "replay", "--all", "--json", env=env)).out)
    assert (job["action"], job["state"], job["changed"]) == ("replay", "done", 1)
    await target.received(3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dead", "replay"), "--all"),
        (("jobs", "create", "cancel", "--label", "a"), "--yes"),
        (("queues", "purge", "default", "--client", "acme"), "--yes"),
    ],
)
def test_nothing_is_done_to_many_by_accident(words: tuple[str, ...], told: str) -> None:
    """Without a flag that says so it is a usage error, and nothing is called."""
    result = CliRunner().invoke(app, list(words))
    assert (result.exit_code, told in result.stderr) == (2, True)


async def test_in_bulk(gw: Gateway, target: Target, a_client: str) -> None:
    """A job counts without touching, does it once told so, and is listed; a queue is purged."""
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    for label in ("a", "a", "b"):
        body = {"client_id": a_client, "labels": [label], "delay": 600, "task": {"url": f"{target.url}/x"}}
        assert (await gw.enqueue(body))[0] == 201
    counted = await run("jobs", "create", "cancel", "--label", "a", "--dry-run", "--json", env=env)
    job = json.loads(counted.out)
    assert (job["state"], job["matched"], job["changed"]) == ("counted", 2, 0)
    started = await run("jobs", "start", job["job_id"], "--json", env=env)
    assert json.loads(started.out)["changed"] == 2
    listed, aborted, purged = await asyncio.gather(
        run("jobs", "list", env=env),
        run("jobs", "abort", job["job_id"], env=env),
        run("queues", "purge", "default", "--client", a_client, "--yes", env=env),
    )
    assert job["job_id"] in listed.out
    assert (aborted.code, "can't be aborted any more" in aborted.err) == (1, True)
    assert purged.out == "1 cancelled\n"
