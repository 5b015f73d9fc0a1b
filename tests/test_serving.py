"""`gateway serve` as processes: workers, roles, listeners, open files, what is sent to Redis, and its command line."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import aiohttp
import redis.asyncio as redis
from as_user import BIN, free_port, plain_environment
from conftest import Target, until
from processes import GENEROUS, Process, Server
from served import Start, enqueue, ids, settled, task


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
