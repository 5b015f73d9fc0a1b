"""What must hold, with processes that are really stopped, killed and frozen: limits over replicas, nothing lost."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as redis
from as_user import BIN, free_port, plain_environment
from conftest import Target, until
from processes import GENEROUS, Process, Server

Start = Callable[..., Process]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts gateway processes; those that still run are killed at the end."""
    started: list[Process] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(GENEROUS)) as session:

        def make(*arguments: str, **settings: str) -> Process:
            process = Process(session, tmp_path / f"gateway-{len(started)}.log", list(arguments), **settings)
            started.append(process)
            return process

        yield make
        for process in started:
            if process.process.poll() is None:
                process.process.send_signal(signal.SIGCONT)
                await process.end()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    (tmp_path / "redis").mkdir()
    made = Server(tmp_path / "redis")
    await made.start()
    yield made
    made.kill()


def task(target: Target, path: str = "/hook", **fields: Any) -> dict[str, Any]:
    return {"task": {"url": target.url + path}, **fields}


def ids(target: Target) -> list[str]:
    return [call["headers"]["X-Task-ID"] for call in target.calls]


async def settled(target: Target, count: int) -> None:
    """All ``count`` tasks have arrived and none of their calls is open."""
    await until(lambda: len(set(ids(target))) >= count and target.open == 0, GENEROUS)


async def set_client(process: Process, **fields: Any) -> None:
    status, body = await process.call("PUT", "/admin/clients/set", fields)
    assert status == 200, body


async def enqueue(process: Process, body: dict[str, Any], client_id: str = "acme") -> str:
    status, answer = await process.call("POST", "/v1/enqueue", {"client_id": client_id, **body})
    assert status == 201, answer
    return str(answer["task_id"])


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
    """Enqueue answers 503 within 2 s, probes say so, and afterwards all works by itself and nothing is lost."""
    process = await start(REDIS_URL=server.url).ready()
    accepted = await enqueue(process, task(target, delay=3))
    assert server.process is not None
    if how == "killed":
        server.kill()
    else:
        server.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    status, answer = await process.call("POST", "/v1/enqueue", {"client_id": "acme", **task(target)})
    assert time.monotonic() - began < 2
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


async def test_workers_share_a_port_and_are_replaced(start: Start, target: Target, tmp_path: Path) -> None:
    """Two workers, one port, one embedded Valkey: one metrics page for both, a killed one comes back, all drain."""
    parent = await start("--workers", "2", GATEWAY_DATA_DIR=str(tmp_path / "data")).ready()
    for _ in range(20):
        await enqueue(parent, task(target))
    await settled(target, 20)
    page = (await parent.call("GET", "/metrics"))[1]
    assert 'tasks_enqueued_total{client_id="acme",queue="default"} 20.0' in page

    def workers() -> list[int]:
        """Those started so far, from the log."""
        lines = [json.loads(line) for line in parent.log().splitlines()]
        return [line["pid"] for line in lines if line["event"] == "worker_started"]

    before = workers()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: len(workers()) >= 3, GENEROUS, parent.log)
    assert await enqueue(parent, task(target))
    await settled(target, 21)
    assert await parent.end() == 0
    assert "worker_exited" in parent.log()


async def test_roles_split_the_service(server: Server, start: Start, target: Target) -> None:
    """An api process accepts and calls nobody; a dispatcher calls and accepts nothing."""
    api = await start("--role", "api", REDIS_URL=server.url).ready()
    task_id = await enqueue(api, task(target))
    assert (await api.call("GET", f"/v1/tasks/{task_id}?client_id=acme"))[1]["state"] == "queued"
    dispatcher = await start("--role", "dispatcher", REDIS_URL=server.url).ready()
    await until(lambda: ids(target) == [task_id], GENEROUS)
    assert await dispatcher.status("/v1/rate-limit?client_id=acme") == 404
    assert await dispatcher.status("/metrics") == 200


async def test_admin_on_a_listener_of_its_own(server: Server, start: Start, target: Target) -> None:
    """ADMIN_PORT takes /admin off the public listener; --admin-only serves it with health and metrics alone."""
    port = free_port()
    both = await start(REDIS_URL=server.url, ADMIN_PORT=str(port)).ready()
    assert await both.status("/admin/clients") == 404
    both.url = f"http://127.0.0.1:{port}"
    assert await both.status("/admin/clients") == 200
    await both.end()
    only = start("--admin-only", "--admin-port", str(port), REDIS_URL=server.url)
    only.url = f"http://127.0.0.1:{port}"
    await only.ready()
    assert await only.status("/admin/tiers") == 200
    assert await only.status("/metrics") == 200
    assert await only.status("/v1/rate-limit?client_id=acme") == 404


async def test_a_process_short_of_files_tells_callers_and_keeps_its_links(tmp_path: Path, server: Server) -> None:
    """With 128 of them, connections past those that fit get a 503 at once; those that were there are served on, and
    new ones as soon as some have closed."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(GENEROUS)) as session:
        process = Process(session, tmp_path / "few.log", [], files=128, REDIS_URL=server.url)
        try:
            await process.ready()
            await _crowd(process)
            await process.ready()
        finally:
            await process.end()


async def _crowd(process: Process) -> None:
    callers = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(60)]
    told = []
    for reader, writer in callers:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: gateway\r\n\r\n")
        told.append((await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), GENEROUS)).decode())
    refused = [head for head in told if head.startswith("HTTP/1.1 503 ")]
    assert 60 - 32 <= len(refused) < 60
    assert all("Retry-After: " in head for head in refused)
    assert all(head.startswith("HTTP/1.1 200 ") for head in told if head not in refused)
    for _, writer in callers:
        writer.close()


async def test_an_enqueue_is_one_command(server: Server, start: Start, target: Target) -> None:
    """Over HTTP, an accepted enqueue of a known client is one command, of a new one that and three reads."""
    process = await start("--role", "api", REDIS_URL=server.url).ready()
    await enqueue(process, task(target))
    await enqueue(process, task(target))

    async with redis.Redis.from_url(server.url, decode_responses=True) as client, client.monitor() as monitor:

        async def commands(client_id: str, marker: str) -> list[str]:
            """What the gateway sent for one enqueue: commands of scripts and of background reads left out."""
            await enqueue(process, task(target, f"/{marker}"), client_id)
            await client.echo(marker)
            seen = []
            async for command in monitor.listen():
                if command["command"].startswith("ECHO"):
                    return seen
                own = command["client_type"] != "lua" and client_id in command["command"]
                if own:
                    seen.append(command["command"].split()[0])
            return seen

        assert await commands("acme", "known") == ["EVALSHA"]
        # Its keys and its settings together, and the latter again, since what is not there is not remembered.
        assert await commands("newcomer", "new") == ["HGETALL", "GET", "GET", "EVALSHA"]


async def test_the_command_line_drives_a_gateway(server: Server, start: Start) -> None:
    """`gateway clients` sets, imports, lists, gets and deletes against the real admin API."""
    process = await start(REDIS_URL=server.url).ready()
    env = plain_environment(GATEWAY_URL=process.url, ADMIN_API_KEY="key")

    async def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        ran = await asyncio.to_thread(
            subprocess.run,
            [str(BIN / "gateway"), *arguments],
            env=env,
            input=typed,
            capture_output=True,
            text=True,
            timeout=GENEROUS,
        )
        return ran.returncode, ran.stdout, ran.stderr

    assert (await run("clients", "set", "acme", "--tier", "premium"))[0] == 0
    code, out, _ = await run("clients", "get", "acme", "--json")
    assert code == 0
    assert '"requests_per_min":1000' in out.replace(" ", "")
    code, _, err = await run("clients", "set", "acme", "--tier", "premum")
    assert code == 1
    assert "premium" in err
    assert (await run("clients", "import", "-", typed="one-client:basic\ntwo-client:free\n"))[0] == 0
    _, listed, _ = await run("clients", "list", "--json")
    assert [name in listed for name in ("acme", "one-client", "two-client")] == [True] * 3
    # What `list` answers can be imported again and changes nothing: tier limits stay the tier's.
    assert (await run("clients", "import", "-", typed=listed))[0] == 0
    assert (await process.call("GET", "/admin/clients/get?client_id=one-client"))[1]["source"] == "tier"
    assert (await run("clients", "delete", "acme"))[0] == 0
    assert (await run("clients", "get", "acme"))[0] == 1
