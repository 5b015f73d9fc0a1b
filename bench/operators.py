"""What operators' calls cost with 50,000 clients and a million tasks: how long each takes, for how long it holds up
Redis and the gateway's event loop, and whether the tasks that come in beside them notice."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any, NamedTuple

import aiohttp

from bench import crowd, payload
from bench.contestants import gateway
from bench.crowd import BROKEN, DEEP, LIVE, QUICK, Crowd
from bench.pages import pages
from bench.processes import BenchError, Process, free_port, listening, started
from bench.valkey import Valkey, client_id, valkey

_RATE = 100  # tasks a second beside the calls
_CALLS = 7
_FAR = 40  # pages behind the first
_SETTLE_SECONDS = 60.0
_PROBE_SECONDS = 0.005
_SLOW_MICROS = 100
_LIMIT = 60.0  # seconds that one line may take

Call = Callable[[aiohttp.ClientSession], Awaitable[Any]]


class Line(NamedTuple):
    """One line of the table; times in milliseconds."""

    name: str
    p50: float
    longest: float
    redis: float  # the longest command during a call, in the middle over the calls
    lag: float  # of the event loop, likewise: how long a request waits that needs no Redis
    enqueue: float  # p99 of the enqueue requests beside all of the calls

    @property
    def figures(self) -> tuple[float, ...]:
        """Those of the table."""
        return self.p50, self.longest, self.redis, self.lag, self.enqueue


class Beside:
    """What goes on meanwhile: tasks that come in and are called, and a probe of the event loop."""

    def __init__(self, session: aiohttp.ClientSession, target: str) -> None:
        self._session = session
        self._bodies = [payload.single(LIVE % number, payload.task(target)) for number in range(crowd.FEW)]
        self.enqueues: list[float] = []
        self.probes: list[float] = []
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """While the context is open."""
        tasks = [asyncio.create_task(self._load()), asyncio.create_task(self._probe())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *self._open, return_exceptions=True)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        start, number = loop.time(), 0
        while True:
            await asyncio.sleep(max(0.0, start + number / _RATE - loop.time()))
            call = asyncio.create_task(self._enqueue(self._bodies[number % len(self._bodies)]))
            self._open.add(call)
            call.add_done_callback(self._open.discard)
            number += 1

    async def _enqueue(self, body: str) -> None:
        began = perf_counter()
        async with self._session.post("/v1/enqueue", data=body, headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
        self.enqueues.append((perf_counter() - began) * 1000 if answer.status == 201 else float("inf"))

    async def _probe(self) -> None:
        while True:
            began = perf_counter()
            async with self._session.get("/livez") as answer:
                await answer.read()
            self.probes.append((perf_counter() - began) * 1000)
            await asyncio.sleep(_PROBE_SECONDS)


def get(path: str, status: int = 200) -> Call:
    """A GET that must be answered so."""

    async def call(session: aiohttp.ClientSession) -> Any:
        async with session.get(path) as answer:
            body = await answer.read()
            if answer.status != status:
                raise BenchError(f"{path} answered {answer.status}: {body[:200]!r}")
            return await answer.json() if answer.content_type == "application/json" else body

    return call


async def _task_id(session: aiohttp.ClientSession, query: str) -> str:
    page = await get(f"/admin/tasks?{query}&limit=1")(session)
    return str(page["tasks"][0]["task_id"])


def far(path: str, pages_behind: int = _FAR) -> Call:
    """A page far behind the first; its cursor is looked up once."""
    found: list[str] = []

    async def call(session: aiohttp.ClientSession) -> Any:
        if not found:
            cursor = ""
            for _ in range(pages_behind):
                told = await get(f"{path}{cursor}")(session)
                if told["next_cursor"] is None:
                    break
                cursor = f"&cursor={told['next_cursor']}"
            found.append(cursor)
        return await get(path + found[0])(session)

    return call


async def counted_job(session: aiohttp.ClientSession) -> None:
    """A job that counts, to its end, and is then given up."""
    body = {"action": "cancel", "filter": {"client_id": DEEP, "state": "queued"}, "dry_run": True}
    async with session.post("/admin/jobs", json=body) as answer:
        job = (await answer.json())["job_id"]
    while (await get(f"/admin/jobs/{job}")(session))["state"] == "counting":  # noqa: ASYNC110 - nobody else says so
        await asyncio.sleep(0.05)
    async with session.delete(f"/admin/jobs/{job}") as answer:
        await answer.read()


async def events(session: aiohttp.ClientSession) -> None:
    """The first events of a page that watches the overview."""
    async with session.get(f"/admin/ui/events?watch=overview&watch=clients/usage%3Fclient_id%3D{DEEP}") as answer:
        left = 2
        async for text in answer.content:
            left -= text.startswith(b"data: ")
            if not left:
                return
        raise BenchError(f"the stream of events ended, {answer.status}")


async def calls(session: aiohttp.ClientSession, many: Crowd) -> dict[str, Call]:
    """What is measured, by name."""
    far_client = client_id(many.clients // 2)
    held = await _task_id(session, f"client_id={DEEP}&order=oldest&state=queued")
    record = await _task_id(session, f"client_id={BROKEN % 1}&state=dead")
    lists = {
        "clients": "clients?limit=50",
        "clients, far": f"clients?limit=50&cursor={far_client}",
        "clients by tier": "clients?limit=50&tier=premium",
        "clients disabled": "clients?limit=50&enabled=false",
        "clients by part of the id": "clients?limit=50&search=0499",
        "clients, all of them": "clients",
        "clients with tasks": "clients/active?limit=50",
        "one client": f"clients/get?client_id={DEEP}",
        "figures of the deepest client": f"clients/usage?client_id={DEEP}",
        "tasks": "tasks?limit=50",
        "tasks, oldest first": "tasks?limit=50&order=oldest",
        "tasks by client": f"tasks?limit=50&client_id={far_client}",
        "tasks by state": "tasks?limit=50&state=running",
        "tasks by host, many": "tasks?limit=50&host=api-7.example.com",
        "tasks by host, none": "tasks?limit=50&host=nobody.example.com",
        "tasks by label": "tasks?limit=50&label=order-7",
        "tasks by status": "tasks?limit=50&status=404",
        "tasks by age": "tasks?limit=50&min_age=86400",
        "tasks of the deepest by label": f"tasks?limit=50&client_id={DEEP}&label=order-996",
        "a task by its id, queued": f"tasks?limit=50&task_id={held}",
        "a task by its id, dead": f"tasks?limit=50&task_id={record}",
        "a task": f"tasks/{held}?client_id={DEEP}",
        "why it waits": f"tasks/{held}/explain?client_id={DEEP}",
        "dead letters": "dead?limit=50",
        "dead letters by status": "dead?limit=50&status=404",
        "jobs": "jobs",
        "usage, an hour": "usage",
        "usage, a day by minutes": "usage?from=2024-01-01T00:00:00Z",
        "usage of a client": f"usage?client_id={BROKEN % 1}",
        "upgrade candidates": "upgrade-candidates",
        "replicas": "replicas",
        "Redis": "redis",
        "audit log": "audit?limit=50",
        "tiers": "tiers",
    }
    made = {"overview": get("/admin/overview")} | {name: get(f"/admin/{path}") for name, path in lists.items()}
    made["tasks, far"] = far("/admin/tasks?limit=500")
    made["tasks of the deepest, far"] = far(f"/admin/tasks?limit=500&client_id={DEEP}&order=oldest")
    made["dead letters, far"] = far("/admin/dead?limit=100")
    made["a job that counts 90,000"] = counted_job
    made["server-sent events, first two"] = events
    made["metrics"] = get("/metrics")
    return made


class Operators:
    """A run against one gateway."""

    def __init__(self, server: Valkey, session: aiohttp.ClientSession, beside: Beside) -> None:
        self._server = server
        self._session = session
        self._beside = beside
        self.lines: list[Line] = []

    async def line(self, name: str, call: Callable[[], Awaitable[Any]], times: int = _CALLS) -> None:
        """Measure it."""
        took, commands, lags = [], [], []
        self._beside.enqueues.clear()
        end = perf_counter() + _LIMIT
        for _ in range(times):
            self._beside.probes.clear()
            self._server.call("SLOWLOG", "RESET")
            began = perf_counter()
            async with asyncio.timeout(_LIMIT):
                await call()
            took.append((perf_counter() - began) * 1000)
            await asyncio.sleep(0.1)  # whatever the probe waited for is over
            commands.append(max((row[2] / 1000 for row in self._server.call("SLOWLOG", "GET", 1000)), default=0.0))
            lags.append(max(self._beside.probes, default=0.0))
            if perf_counter() > end:
                break
        middle = statistics.median
        enqueues = _p99(self._beside.enqueues)
        self.lines.append(Line(name, middle(took), max(took), middle(commands), middle(lags), enqueues))


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else 0.0


def table(lines: list[Line]) -> str:
    """As Markdown."""
    head = "|  | p50 ms | longest ms | Redis held up ms | loop held up ms | enqueue p99 ms |"
    rows = [f"| {line.name} | " + " | ".join(f"{value:.1f}" for value in line.figures) + " |" for line in lines]
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *rows])


@contextlib.asynccontextmanager
async def furnished(
    server: Valkey, many: Crowd, target: str, tell: Callable[[str], None]
) -> AsyncIterator[tuple[Process, int]]:
    """The gateway, with all of it there."""
    tell(f"filling: {many.clients:,} clients, {many.tasks:,} tasks")
    crowd.settle(server, many)
    port = free_port()
    command = gateway(server.url, port, target, role="api")
    with started("gateway", command.argv, command.env) as process:
        listening(process, port)
        await crowd.fill(port, many, target)
    crowd.pause(server, many)
    command = gateway(server.url, port, target)
    with started("gateway", command.argv, {**command.env, "MAX_IN_FLIGHT": "1000"}) as process:
        listening(process, port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await crowd.break_and_hang(session, many, target)
            tell("waiting until the figures of all clients were looked at")
            await _settled(session, many)
        yield process, port


async def _settled(session: aiohttp.ClientSession, many: Crowd) -> None:
    """Until the snapshot has been round."""
    end = perf_counter() + _SETTLE_SECONDS + many.clients / 100
    while True:
        told = await get("/admin/overview")(session)
        totals = told["totals"]
        if totals["in_flight"] >= _whole(many.hanging) and totals["dead"] >= _whole(many.dead):
            return
        if perf_counter() > end:
            raise BenchError(f"the overview shows {totals} after {_SETTLE_SECONDS:g} s")
        await asyncio.sleep(1)


def _whole(count: int) -> int:
    return count // crowd.FEW * crowd.FEW


async def measured(many: Crowd, tell: Callable[[str], None]) -> list[Line]:
    """The whole run."""
    with valkey(0) as server:
        server.call("CONFIG", "SET", "slowlog-log-slower-than", _SLOW_MICROS, "slowlog-max-len", 1000)
        async with crowd.target() as target, furnished(server, many, target, tell) as (_, port):
            timeout = aiohttp.ClientTimeout(total=_LIMIT)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session:
                beside = Beside(session, target)
                run = Operators(server, session, beside)
                async with beside.going_on():
                    await asyncio.sleep(2)
                    await run.line("nothing, for a second", lambda: asyncio.sleep(1))
                    for name, call in (await calls(session, many)).items():
                        tell(name)
                        async with asyncio.timeout(_LIMIT):
                            await call(session)  # a cursor is looked up once
                        await run.line(name, lambda call=call: call(session))  # type: ignore[misc]
                    async for name, view in pages(f"http://127.0.0.1:{port}", DEEP):
                        tell(name)
                        await run.line(name, view, 3)
                return run.lines


def run(*, quick: bool, tell: Callable[[str], None]) -> str:
    """The table of a run."""
    return table(asyncio.run(measured(QUICK if quick else Crowd(), tell)))
