"""`make demo`: a gateway of its own, a local target, three clients of different tiers, and a live table.

Everything is temporary (ports, data folder) and gone at the end. Exits 1 where a task was not delivered, or
where a client had more calls open than its tier allows.
"""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from rich.console import Console
from rich.live import Live
from rich.table import Table

TASKS_PER_CLIENT = 120
ENQUEUE_SECONDS = 6.0
TARGET_SECONDS = 0.2
START_DEADLINE = 30.0
DELIVERY_DEADLINE = 60.0
STOP_DEADLINE = 30.0
LOOPBACK = "127.0.0.1"


@dataclasses.dataclass
class Figures:
    """What the demo has seen of one client: the gateway's answers, and the calls at the target."""

    client_id: str
    tier: str
    concurrent: int = 0
    per_minute: int = 0
    admitted: int = 0
    refused: int = 0
    in_flight: int = 0
    peak: int = 0
    delivered: int = 0

    @property
    def done(self) -> bool:
        """Everything was asked for, and what was admitted has arrived."""
        asked = self.admitted + self.refused == TASKS_PER_CLIENT
        return asked and self.delivered >= self.admitted


def table(clients: dict[str, Figures]) -> Table:
    """The live view, one line a client."""
    view = Table(
        # Narrow enough for 80 columns.
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
        title="Three clients, their limits, and what becomes of their tasks",
        caption=f"{TASKS_PER_CLIENT} tasks each, the target takes {TARGET_SECONDS} s",
    )
    view.add_column("client", no_wrap=True)
    for name in (
        "at once",
        "a minute",
        "admitted",
        "429",
        "in flight",
        "peak",
        "delivered",
    ):
        view.add_column(name, justify="right", no_wrap=True)
    for one in clients.values():
        numbers = (
            one.concurrent,
            one.per_minute,
            one.admitted,
            one.refused,
            one.in_flight,
            one.peak,
            one.delivered,
        )
        view.add_row(one.client_id, *map(str, numbers), style="green" if one.done else None)
    return view


@contextlib.asynccontextmanager
async def target(clients: dict[str, Figures]) -> AsyncIterator[int]:
    """A server that counts each client's calls; yields its port."""

    async def take(request: web.Request) -> web.Response:
        one = clients[request.headers["X-Client-ID"]]
        one.in_flight += 1
        one.peak = max(one.peak, one.in_flight)
        try:
            await asyncio.sleep(TARGET_SECONDS)
        finally:
            one.in_flight -= 1
        one.delivered += 1
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, LOOPBACK, 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def gateway(target_port: int) -> AsyncIterator[str]:
    """A gateway on a temporary folder that may call the target; yields its address. Its log is shown only
    where it does not start."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder, tempfile.TemporaryFile() as log:
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR", "LANG"}}
        own = {
            "HOST": LOOPBACK,
            "PORT": str(port),
            "GATEWAY_DATA_DIR": folder,
            "OUTBOUND_ALLOW": f"{LOOPBACK}:{target_port}",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            "serve",
            env=kept | own,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = f"http://{LOOPBACK}:{port}"
            if not await answers(address, process):
                log.seek(0)
                sys.exit(f"the gateway did not start:\n{log.read().decode(errors='replace')}")
            yield address
        finally:
            await stop(process)


async def answers(address: str, process: asyncio.subprocess.Process) -> bool:
    """Whether the gateway became ready in time."""
    deadline = time.monotonic() + START_DEADLINE
    async with ClientSession(timeout=ClientTimeout(total=2)) as http:
        while time.monotonic() < deadline and process.returncode is None:
            with contextlib.suppress(ClientError, TimeoutError):
                async with http.get(f"{address}/readyz") as answer:
                    if answer.status == 200:
                        return True
            await asyncio.sleep(0.1)
    return False


async def stop(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL for one that does not end."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_DEADLINE)
    except TimeoutError:
        process.kill()
        await process.wait()


async def enqueue(http: ClientSession, one: Figures, url: str) -> None:
    """All tasks of one client, spread over a few seconds so that there is something to watch."""
    async with http.put("/admin/clients/set", json={"client_id": one.client_id, "tier": one.tier}) as answer:
        limit = (await answer.json())["rate_limit"]
        one.concurrent, one.per_minute = limit["max_concurrent"], limit["requests_per_min"]
    for number in range(TASKS_PER_CLIENT):
        body = {"client_id": one.client_id, "task": {"url": url, "body": {"number": number}}}
        async with http.post("/v1/enqueue", json=body) as answer:
            if answer.status == 201:
                one.admitted += 1
            elif answer.status == 429:
                one.refused += 1
            else:
                sys.exit(f"unexpected answer {answer.status}: {await answer.text()}")
        await asyncio.sleep(ENQUEUE_SECONDS / TASKS_PER_CLIENT)


async def show(clients: dict[str, Figures], console: Console) -> None:
    """Redraws until everything is done or the deadline has passed."""
    deadline = time.monotonic() + DELIVERY_DEADLINE
    with Live(table(clients), console=console, auto_refresh=False) as live:
        while time.monotonic() < deadline and not all(one.done for one in clients.values()):
            live.update(table(clients), refresh=True)
            await asyncio.sleep(0.1)
        live.update(table(clients), refresh=True)
    if not console.is_terminal:
        console.print()  # there, the last picture has no end of its line


async def run(console: Console) -> int:
    """The whole demo; the exit code."""
    clients = {f"demo-{tier}": Figures(f"demo-{tier}", tier) for tier in ("free", "basic", "premium")}
    async with (
        target(clients) as port,
        gateway(port) as address,
        ClientSession(address) as http,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(show(clients, console))
        for one in clients.values():
            tasks.create_task(enqueue(http, one, f"http://{LOOPBACK}:{port}/"))
    late = [one.client_id for one in clients.values() if not one.done]
    over = [one.client_id for one in clients.values() if one.peak > one.concurrent]
    if late or over:
        console.print(f"not delivered in time: {late}, more at once than allowed: {over}", style="red")
        return 1
    delivered = sum(one.delivered for one in clients.values())
    refused = sum(one.refused for one in clients.values())
    console.print(
        f"{delivered} tasks delivered, {refused} refused; no client had more calls open than its tier allows."
    )
    return 0


def main() -> None:
    """Runs the demo; Ctrl-C ends it early."""
    try:
        sys.exit(asyncio.run(run(Console())))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
