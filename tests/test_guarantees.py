"""What must hold, with processes that are really stopped, killed and frozen: limits over replicas, nothing lost."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
from conftest import Target, until
from processes import GENEROUS, Server
from served import Start, enqueue, ids, set_client, settled, task


async def test_two_processes_never_exceed_a_clients_concurrency(server: Server, start: Start, target: Target) -> None:
    """500 tasks of a client with 5 calls at once: the target never sees 6, and sees 500 distinct ids, no more."""
    one, two = start(REDIS_URL=server.url), start(REDIS_URL=server.url)
    await asyncio.gather(one.ready(), two.ready())
    await set_client(one, client_id="acme", rate_limit={"max_concurrent": 5, "requests_per_min": 1000})
    target.delays["/slow"] = 0.02
    halves = [{"client_id": "acme", "tasks": [task(target, "/slow") for _ in range(250)]} for _ in range(2)]
    answers = await asyncio.gather(
        *(process.call("POST", "/v1/enqueue/batch", half) for process, half in zip((one, two), halves, strict=True))
    )
    assert [status for status, _ in answers] == [201, 201]
    await settled(target, 500)
    assert target.max_open <= 5
    assert len(ids(target)) == 500
    usage = (await one.call("GET", "/v1/rate-limit?client_id=acme"))[1]
    assert (usage["in_flight"], usage["queued"], usage["current_usage"]) == (0, 0, 500)


async def test_a_hundred_at_once_through_two_processes_admit_exactly_ten(
    server: Server, start: Start, target: Target
) -> None:
    """The free tier's window is exact over replicas."""
    one, two = start(REDIS_URL=server.url), start(REDIS_URL=server.url)
    await asyncio.gather(one.ready(), two.ready())
    await set_client(one, client_id="trial", tier="free")
    body = {"client_id": "trial", **task(target)}
    answers = await asyncio.gather(*(process.call("POST", "/v1/enqueue", body) for process in (one, two) * 50))
    statuses = [status for status, _ in answers]
    assert (statuses.count(201), statuses.count(429)) == (10, 90)
    await settled(target, 10)
    assert target.max_open <= 1


async def test_a_killed_process_tasks_are_delivered_by_the_other(server: Server, start: Start, target: Target) -> None:
    """After SIGKILL the other process delivers what was in flight; extras are at most the calls open at the kill."""
    settings = {"REDIS_URL": server.url, "LEASE_SECONDS": "2"}
    one = await start(**settings).ready()
    await set_client(one, client_id="acme", rate_limit={"max_concurrent": 4, "requests_per_min": 1000})
    target.delays["/slow"] = 3600
    accepted = [await enqueue(one, task(target, "/slow")) for _ in range(12)]
    await until(lambda: target.open == 4, GENEROUS)
    two = await start(**settings).ready()
    killed_at = time.monotonic()
    await one.end(signal.SIGKILL)
    target.delays.clear()
    await until(lambda: set(ids(target)) == set(accepted) and len(target.calls) == 16, GENEROUS)
    again = [call for call in target.calls if call["headers"]["X-Attempt"] == "2"]
    assert len(again) == 4
    # Not before the lease had ended: the dead process might have been only slow.
    assert min(call["start"] for call in again) - killed_at > 1.0
    assert (await two.call("GET", "/v1/rate-limit?client_id=acme"))[1]["queued"] == 0


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_redis_away_is_a_pause(server: Server, start: Start, target: Target, how: str) -> None:
    """Enqueue answers 503 soon, probes say so, and afterwards all works by itself and nothing is lost."""
    process = await start(REDIS_URL=server.url).ready()
    accepted = await enqueue(process, task(target, delay=3))
    assert server.process is not None
    if how == "killed":
        server.kill()
    else:
        server.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    status, answer = await process.call("POST", "/v1/enqueue", {"client_id": "acme", **task(target)})
    assert time.monotonic() - began < 5  # REDIS_TIMEOUT is 1.5; the rest is a busy machine's
    assert (status, answer["error"]) == (503, "Service unavailable")
    assert await process.status("/readyz") == 503
    assert await process.status("/livez") == 200
    if how == "killed":
        await server.start()
    else:
        server.process.send_signal(signal.SIGCONT)

    async def works() -> bool:
        return await process.status("/readyz") == 200

    await until(works, GENEROUS)
    later = await enqueue(process, task(target, "/after"))
    await until(lambda: {accepted, later} <= set(ids(target)), GENEROUS)
    assert ids(target).count(accepted) == 1


async def test_started_without_its_redis(server: Server, start: Start, target: Target) -> None:
    """It serves /livez, answers 503 elsewhere, says so in the log, and works once Redis is there."""
    server.kill()
    process = start(REDIS_URL=server.url)

    async def lives() -> bool:
        return await process.status("/livez") == 200

    await until(lives, GENEROUS)
    assert (await process.call("POST", "/v1/enqueue", {"client_id": "acme", **task(target)}))[0] == 503
    assert await process.status("/health") == 503
    assert "redis_error" in process.log()
    await server.start()
    await process.ready()
    task_id = await enqueue(process, task(target))
    await until(lambda: task_id in ids(target), GENEROUS)


async def test_a_drain_finishes_what_is_short_and_hands_back_the_rest(
    server: Server, start: Start, target: Target
) -> None:
    """SIGTERM: the short call ends and is not repeated; the long one starts elsewhere at once, not after its lease."""
    settings = {"REDIS_URL": server.url, "LEASE_SECONDS": "60", "DRAIN_SECONDS": "2"}
    one = await start(**settings).ready()
    target.delays |= {"/short": 1, "/long": 3600}
    short, long = await enqueue(one, task(target, "/short")), await enqueue(one, task(target, "/long"))
    await until(lambda: target.open == 2, GENEROUS)
    two = await start(**settings).ready()
    stopping = asyncio.create_task(one.end())
    await until(lambda: ids(target).count(long) == 2, GENEROUS)  # far below the lease of 60 s
    assert await stopping == 0
    assert ids(target).count(short) == 1
    assert [call["headers"]["X-Attempt"] for call in target.calls if call["path"] == "/long"] == ["1", "1"]
    assert (await two.call("GET", f"/v1/tasks/{short}?client_id=acme"))[1]["state"] == "succeeded"


async def test_while_it_drains_balancers_are_told_and_callers_lose_nothing(
    server: Server, start: Start, target: Target
) -> None:
    """SIGTERM with a call open: /readyz is 503 and says why, /livez 200, and what still comes is kept for another."""
    one = await start(REDIS_URL=server.url, DRAIN_SECONDS="15").ready()
    release = target.hold("/slow")
    await enqueue(one, task(target, "/slow"))
    await target.received(1)
    one.process.send_signal(signal.SIGTERM)

    async def told() -> bool:
        status, body = await one.call("GET", "/readyz")
        assert status in {200, 503}
        return (status, body["status"]) == (503, "stopping")

    await until(told, GENEROUS)
    assert (await one.status("/livez"), await one.status("/health")) == (200, 200)
    late = await enqueue(one, task(target, "/late"))
    release.set()
    assert await asyncio.to_thread(one.process.wait, GENEROUS) == 0
    assert [call["path"] for call in target.calls] == ["/slow"]
    await start(REDIS_URL=server.url).ready()
    await until(lambda: late in ids(target), GENEROUS)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_waiting_tasks_survive_a_restart_on_the_embedded_valkey(
    start: Start, target: Target, tmp_path: Path, how: signal.Signals
) -> None:
    """Stopped or killed with tasks waiting and started again on the same folder, the gateway delivers them."""
    data = str(tmp_path / "data")
    first = await start(GATEWAY_DATA_DIR=data).ready()
    task_id = await enqueue(first, task(target, delay=2))
    await first.end(how)
    second = await start(GATEWAY_DATA_DIR=data).ready()
    await until(lambda: ids(target) == [task_id], GENEROUS)
    assert ("embedded_redis_adopted" in second.log()) == (how == signal.SIGKILL)
