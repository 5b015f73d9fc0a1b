"""A gateway with an hour behind it and work in every state: what the dashboard is tested with. Run as a command it
takes the pictures of the README: `make screenshots`."""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from browser import PHONE, chromium, dashboard

from gateway import log, metrics
from gateway.app import running
from gateway.metrics import tally
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.embedded import EmbeddedValkey
from gateway.store.usage import EVERYBODY, Batch

KEY = "the-key-of-the-showcase"
_PALETTE = ("--force", "--ext=.png", "--speed=1", "--strip", "128")
HELD = "/reports/nightly"
# client, tier, requests a minute; the share that is refused, the share of the calls that fails
CLIENTS = (
    ("acme-billing", "free", 60, 0.35, 0.02),
    ("globex-orders", "basic", 90, 0.06, 0.12),
    ("initech-mail", "premium", 140, 0.0, 0.01),
    ("umbrella-sync", "basic", 40, 0.02, 0.0),
    ("hooli-events", "enterprise", 160, 0.0, 0.004),
    ("stark-reports", "free", 8, 0.1, 0.0),
)
FAILURES = (("503", "api.globex.example", 6), ("timeout", "hooks.globex.example", 3), ("404", "old.acme.example", 1))


class Showcase(NamedTuple):
    """Where it is; ``held`` lets the calls end that are held open; ``tasks`` are ids by what became of them."""

    url: str
    held: asyncio.Event
    tasks: dict[str, str]


@contextlib.asynccontextmanager
async def showcase(redis: str) -> AsyncIterator[Showcase]:
    """The gateway on this Redis, furnished, while the context is open."""
    held = asyncio.Event()
    async with _target(held) as target:
        metrics.configure(1000, None)
        settings = Settings.load(
            {
                "REDIS_URL": redis,
                "PORT": "0",
                "ADMIN_API_KEY": KEY,
                "OUTBOUND_ALLOW": "127.0.0.1,localhost",
                "DRAIN_SECONDS": "1",
                "LOG_LEVEL": "warning",
            }
        )
        async with running(settings) as [url, *_], aiohttp.ClientSession(url) as session:
            async with open_store(settings, redis) as store:
                await _history(store)
                tasks = await _furnish(session, target)
                await store.figured.look()  # or the pages would show it some seconds later
            yield Showcase(url, held, tasks)
            held.set()


@contextlib.asynccontextmanager
async def _target(held: asyncio.Event) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == HELD:
            await held.wait()
        status = {"/orders/busy": 503, "/orders/gone": 410}.get(request.path, 200)
        headers = {"Retry-After": "300"} if status == 503 else {}
        return web.json_response(
            {"path": request.path, "markup": "<img src=x onerror=alert(1)>"}, status=status, headers=headers
        )

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://localhost:{runner.addresses[0][1]}"
    await runner.cleanup()


async def _history(store: Store) -> None:
    """What the processes of the last hour would have booked."""
    chance = random.Random(7)
    now = int(await store.usages.now()) // 60
    for minute in range(now - 59, now):
        everybody = tally.empty()
        tallies = {EVERYBODY: everybody}
        failed = 0
        for client_id, _, rate, refused, fails in CLIENTS:
            counts = tallies[client_id] = tally.empty()
            asked = int(rate * (0.7 + 0.5 * chance.random()))
            counts[tally.REFUSED] = int(asked * refused * (0.4 + chance.random()))
            counts[tally.ADMITTED] = asked - counts[tally.REFUSED]
            counts[tally.FAILED] = int(counts[tally.ADMITTED] * fails * 2 * chance.random())
            counts[tally.DELIVERED] = counts[tally.ADMITTED] - counts[tally.FAILED]
            failed += counts[tally.FAILED]
            for _ in range(counts[tally.ADMITTED]):
                counts[tally.bucket(chance.lognormvariate(-3, 1))] += 1
            tally.add(everybody, counts)
        spread = [failed * share // 10 for _, _, share in FAILURES]
        failures: dict[tuple[str, str], int] = {}
        for (status, host, _), count in zip(FAILURES, spread, strict=True):
            if count:
                failures[("status", status)] = failures[("host", host)] = count
        await store.usages.book(Batch(minute, tallies, failures))


async def _furnish(session: aiohttp.ClientSession, target: str) -> dict[str, str]:
    admin = {"X-Admin-Key": KEY}

    async def change(method: str, path: str, body: Any = None) -> None:
        async with session.request(method, f"/admin/{path}", json=body, headers=admin) as answer:
            assert answer.status < 300, await answer.text()

    async def enqueue(client_id: str, path: str, **more: Any) -> str:
        task = {"url": target + path, "body": {"event": path.rpartition("/")[2]}}
        async with session.post("/v1/enqueue", json={"client_id": client_id, "task": task, **more}) as answer:
            told = await answer.json()
            assert answer.status == 201, told
            return str(told["task_id"])

    for client_id, tier, *_ in CLIENTS:
        await change("PUT", "clients/set", {"client_id": client_id, "tier": tier})
    await change(
        "PUT", "clients/set", {"client_id": "acme-billing", "rate_limit": {"max_concurrent": 2, "requests_per_min": 40}}
    )
    await change("PUT", "clients/set", {"client_id": "stark-reports", "enabled": False})
    await change("POST", "clients/pause?client_id=umbrella-sync&queue=bulk")
    tasks = {
        "running": await enqueue("acme-billing", HELD, labels=["nightly"]),
        "held": await enqueue("acme-billing", HELD),
    }
    tasks["queued"] = await enqueue("acme-billing", "/invoices/created", labels=["invoice-2041", "eu"])
    for number in range(9):
        await enqueue("acme-billing", "/invoices/created", labels=[f"invoice-{2042 + number}"])
    tasks["scheduled"] = await enqueue("umbrella-sync", "/sync/full", delay=3600)
    tasks["paused"] = await enqueue("umbrella-sync", "/sync/delta", queue="bulk")
    tasks["retrying"] = await enqueue("globex-orders", "/orders/busy", labels=["order-4711"])
    tasks["dead"] = await enqueue("globex-orders", "/orders/gone", labels=["order-4712"])
    for number in range(3):
        tasks["last_dead"] = await enqueue(
            "globex-orders", "/orders/gone", queue="critical", labels=[f"order-{4713 + number}"]
        )
    for client_id in ("initech-mail", "hooli-events"):
        for _ in range(4):
            tasks["succeeded"] = await enqueue(client_id, "/events")
    await _settled(session, admin, tasks)
    return tasks


async def _settled(session: aiohttp.ClientSession, admin: dict[str, str], tasks: dict[str, str]) -> None:
    """Until each is in the state that it is to show."""
    owners = {
        "running": "acme-billing",
        "retrying": "globex-orders",
        "dead": "globex-orders",
        "last_dead": "globex-orders",
        "succeeded": "hooli-events",
    }
    async with asyncio.timeout(20):
        for name, client_id in owners.items():
            state = name.removeprefix("last_")
            while (await _asked(session, admin, f"tasks/{tasks[name]}?client_id={client_id}"))["state"] != state:
                await asyncio.sleep(0.05)


async def _asked(session: aiohttp.ClientSession, admin: dict[str, str], path: str) -> Any:
    async with session.get(f"/admin/{path}", headers=admin) as answer:
        return await answer.json()


async def _pictures(folder: Path) -> None:
    shots = (
        ("overview-light", "overview", "light", (1280, 900)),
        ("overview-dark", "overview", "dark", (1280, 900)),
        ("client-light", "clients/acme-billing", "light", (1280, 900)),
        ("task-dark", "tasks/{queued}?client_id=acme-billing", "dark", (1280, 640)),
        ("overview-phone", "overview", "dark", PHONE),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gw-") as data:
        async with EmbeddedValkey(Path(data), None) as server, showcase(server.url) as shown, chromium() as browser:
            for name, view, scheme, size in shots:
                async with dashboard(shown.url, browser, size, color_scheme=scheme) as visitor:
                    await visitor.log_in(KEY)
                    page = await visitor.open(view.format(**shown.tasks))
                    await page.wait_for_timeout(2500)  # what is live has been told more than once
                    picture = folder / f"{name}.png"
                    await page.screenshot(path=picture)
                    if (pngquant := shutil.which("pngquant")) is not None:  # a third of the size
                        await (await asyncio.create_subprocess_exec(pngquant, *_PALETTE, str(picture))).wait()
                    print(picture)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    log.configure("error", "console")  # else the pictures are lost among what the gateway tells
    asyncio.run(_pictures(parser.parse_args().folder))
    sys.exit(0)
