"""One run: a Redis, gateways, a target, what may be done to them. Its load is in `load`, the accounts in `accounts`."""

import asyncio
import contextlib
import resource
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio as redis
from conftest import until
from processes import GENEROUS, Process, Server
from topologies import Cluster, Sentinels

from gateway.settings import Settings
from gateway.store import Store, open_store

from .backends import BACKENDS, Backend, OnCluster, OnSentinels, Single
from .proxy import Network
from .target import Target

# Beside every fault: a client whose window is small enough to be reached, and one whose calls outlast their leases.
METERED, METERED_LIMIT = "metered", 15
PATIENT = "patient"
_INSIDE = Path(__file__).parent / "inside"
# The accounts look at every record.
_UNBOUNDED = dict.fromkeys(("MAX_RESULTS_PER_CLIENT", "MAX_DEAD_PER_CLIENT", "MAX_QUEUED_PER_CLIENT"), "100000000")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much load, and how the gateways are set. ``tasks`` at least; it goes on until the fault is over.

    ``lease`` in seconds; ``call_ms`` is how long a call to the target takes, but for ``patient`` tasks of a client of
    their own, whose calls take longer than a lease; ``batch`` tasks go in one request. ``topology``: one of `BACKENDS`.
    ``proxied``: each gateway reaches Redis through a `Network` of its own.
    """

    tasks: int = 300
    per_second: float = 150
    batch: int = 1
    clients: int = 3
    concurrent: int = 4
    call_ms: int = 40
    patient: int = 4
    lease: float = 3
    gateways: int = 2
    scale: float = 1
    topology: str = "single"
    proxied: bool = False
    settings: dict[str, str] = field(default_factory=dict)


@dataclass
class Frozen:
    """Calls that a stopped process can't abort, by their connections: past ``lapsed`` they count apart."""

    ports: set[int]
    lapsed: float
    resumed: float


class Load:
    """What was asked for and what was answered. A marker is the task's number, in its path."""

    def __init__(self) -> None:
        self.sent = 0
        self.accepted: dict[int, tuple[str, str]] = {}  # marker: task id, client
        self.not_before: dict[int, float] = {}
        self.unknown: set[int] = set()  # no answer, or one that leaves open whether the task exists
        self.refused: dict[int, int] = {}  # by status
        self.errors: set[str] = set()

    def answered(self, marker: int, client: str, status: int, item: Any) -> None:
        if status == 201:
            self.accepted[marker] = item["task_id"], client
        elif status in (0, 503):
            self.unknown.add(marker)
            self.refused[status] = self.refused.get(status, 0) + 1
        else:
            self.refused[status] = self.refused.get(status, 0) + 1
            if status != 429:
                self.errors.add(f"{status}: {item}")


class Run:
    """Processes and load of one fault. ``extras_allowed`` grows with every call that a fault cut down."""

    def __init__(self, folder: Path, plan: Plan, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.plan = plan
        self.session = session
        (folder / "redis").mkdir(parents=True)
        self.sockets = tempfile.TemporaryDirectory(prefix="gw-")  # a socket's path must be short
        where = folder / "redis" if plan.topology == "single" else Path(self.sockets.name)
        self.backend: Backend = BACKENDS[plan.topology](where)
        self.target = Target()
        self.networks: list[Network] = []
        self.gateways: list[Process] = []
        self.serving: set[int] = set()
        self.load = Load()
        self.limits = {f"client-{n}": plan.concurrent for n in range(plan.clients)} | {
            METERED: 2,
            PATIENT: max(4, plan.patient // 6),
        }
        self.extras_allowed = 0
        self.dead_expected: int | None = None  # where the fault buries tasks and nothing else does
        self.frozen: list[Frozen] = []
        self.bystanders: set[int] = set()  # gateways to which nothing is done, where one thing is done to one of them
        self.kinds: tuple[str, ...] = ("ok",)
        self.notes: dict[str, Any] = {}
        self.started = time.time()

    # --- processes --------------------------------------------------------------------------------

    @property
    def server(self) -> Server:
        """The one Redis."""
        assert isinstance(self.backend, Single)
        return self.backend.server

    @property
    def cluster(self) -> Cluster:
        assert isinstance(self.backend, OnCluster)
        return self.backend.cluster

    @property
    def sentinels(self) -> Sentinels:
        assert isinstance(self.backend, OnSentinels)
        return self.backend.sentinels

    async def begin(self) -> None:
        await asyncio.gather(self.backend.start(), self.target.start())
        if self.plan.proxied:
            self.networks = [Network(self.backend.ports()) for _ in range(self.plan.gateways)]
            await asyncio.gather(*(network.start() for network in self.networks))
        self.gateways = [self.launch(number) for number in range(self.plan.gateways)]
        await asyncio.gather(*(gateway.ready() for gateway in self.gateways))
        self.serving = set(range(self.plan.gateways))
        for name, limit in self.limits.items():
            minute = METERED_LIMIT if name == METERED else 10_000_000
            fields = {"client_id": name, "rate_limit": {"max_concurrent": limit, "requests_per_min": minute}}
            status, answer = await self.gateways[0].call("PUT", "/admin/clients/set", fields)
            assert status == 200, answer

    def launch(self, number: int, *, files: int = 0, **more: str) -> Process:
        """A gateway."""
        env = {
            **self.backend.environment(number),
            "PYTHONPATH": str(_INSIDE),
            "DETOURS": self.networks[number].detours if self.networks else "",
            "REDIS_TIMEOUT": str(min(1.5, self.plan.lease / 4)),
            "LEASE_SECONDS": str(self.plan.lease),
            "DRAIN_SECONDS": str(max(5, 2 * self.plan.lease)),  # longer than the longest call
            **_UNBOUNDED,
        }
        log = self.folder / f"gateway-{number}.log"
        return Process(self.session, log, [], files=files, **(env | self.plan.settings | more))

    async def restart(self, number: int, **more: str) -> None:
        self.gateways[number] = await self.launch(number, **more).ready()
        self.serving.add(number)

    async def kill(self, number: int) -> None:
        """SIGKILL; what it had open then may be called once more."""
        await self.stop(number)
        self.extras_allowed += await self.pending(self.gateways[number])
        await self.gateways[number].end(signal.SIGKILL)

    async def terminate(self, number: int) -> None:
        """SIGTERM; a drain that is long enough repeats nothing."""
        self.serving.discard(number)
        assert await self.gateways[number].end(signal.SIGTERM) == 0

    async def stop(self, number: int) -> None:
        """SIGSTOP, and what it has sent to Redis is carried out."""
        self.serving.discard(number)
        self.gateways[number].process.send_signal(signal.SIGSTOP)
        async with self.redis() as client:
            for _ in range(3):  # each lets Redis, and a proxy in this process, read what lies in the sockets
                await client.ping()

    async def freeze(self, number: int, leases: float) -> None:
        """SIGSTOP for some leases, then SIGCONT: it can't abort its calls, which others repeat."""
        self.bystanders = set(range(self.plan.gateways)) - {number}
        stopped = time.time()
        await self.stop(number)
        process = self.gateways[number].process
        ports = ports_of(process.pid)
        self.extras_allowed += await self.pending(self.gateways[number])
        await asyncio.sleep(leases * self.plan.lease)  # the fault itself
        # Its last renewal was up to a third of a lease before the stop, or a little more; its leases count from there.
        self.frozen.append(Frozen(ports, stopped + self.plan.lease / 2, time.time()))
        process.send_signal(signal.SIGCONT)
        self.serving.add(number)

    # --- Redis ------------------------------------------------------------------------------------

    def redis(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """A client that knows nothing of the gateway."""
        return self.backend.redis()

    def store(self) -> contextlib.AbstractAsyncContextManager[Store]:
        """The gateway's own way to it, in this process; with its limits, since an audit also trims."""
        settings = Settings.load(self.backend.environment(0) | _UNBOUNDED)
        assert settings.redis_url is not None
        return open_store(settings, settings.redis_url)

    @property
    def pause(self) -> float:
        """How long a Redis is paused, in seconds: longer than a lease."""
        return 10 if self.plan.scale > 1 else 2 * self.plan.lease

    async def memory(self, most: int) -> None:
        """How many bytes each server of Redis may use; 0: as many as there are."""
        for port in self.backend.ports():
            async with redis.Redis(port=port) as client:
                with contextlib.suppress(redis.ResponseError):  # a Sentinel keeps nothing
                    await client.config_set("maxmemory", most)

    async def disks(self, *, full: bool) -> None:
        """No file of a primary may grow any further (as on a full disk), or all may again."""
        for server in self.backend.primaries():
            assert server.process is not None
            async with redis.Redis(port=server.port) as client:
                if full:  # where each write has to be on disk before its answer, a server that can't write ends
                    await client.config_set("appendfsync", "everysec")
                files = (server.folder / "appendonlydir").iterdir()
                most = max(file.stat().st_size for file in files) if full else resource.RLIM_INFINITY
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def key(self, name: str, client: str) -> str:
        """A key of the client, with what a Cluster has it carry."""
        keyspace = self.backend.keyspace
        return f"{name}{keyspace.tag(keyspace.partition(client))}"

    async def depth(self, client: Any, name: str) -> int:
        """How many tasks of a client have not ended."""
        return int(await client.hget(self.key(f"depth:{name}", name), "n") or 0)

    async def pending(self, gateway: Process | None = None) -> int:
        """What is claimed and not finished, by this process or by all."""
        total = 0
        async with self.redis() as client:
            for key in await client.keys("stream:*"):
                for group in await client.xinfo_groups(key):
                    for consumer in await client.xinfo_consumers(key, group["name"]):
                        pid = consumer["name"].decode().rsplit("-", 2)[1]
                        if gateway is None or pid == str(gateway.process.pid):
                            total += consumer["pending"]
        return total

    # --- its course -------------------------------------------------------------------------------

    async def until_delivered(self, share: float) -> None:
        """Until so much of the planned load was answered by the target."""
        await until(lambda: len(self.target.answered) >= share * self.plan.tasks, GENEROUS * self.plan.scale)

    async def end(self) -> None:
        for gateway in self.gateways:
            if gateway.process.poll() is None:
                gateway.process.send_signal(signal.SIGCONT)
                gateway.process.send_signal(signal.SIGKILL)
                gateway.process.wait()
        await self.backend.stop()
        for network in self.networks:
            await network.stop()
        await self.target.stop()
        self.sockets.cleanup()


@contextlib.asynccontextmanager
async def running(folder: Path, plan: Plan) -> AsyncIterator[Run]:
    """A run with its processes up; all of them are gone at the end."""
    timeout = aiohttp.ClientTimeout(20)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        run = Run(folder, plan, session)
        try:
            await run.begin()
            yield run
        finally:
            await run.end()


def ports_of(pid: int) -> set[int]:
    """The local ports of a process's TCP connections (Linux)."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        link = str(entry.readlink())
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rsplit(":")[1], 16) for row in rows if row[9] in inodes}
