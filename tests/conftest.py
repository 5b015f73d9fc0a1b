"""What tests share: a real Valkey, a whole gateway in this process, and a target that records what it receives."""

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web
from deployments import deployment, redis_server, session_cluster, session_sentinels, session_tls
from links import line, new_link
from redis_servers import valkey_server
from served import server, start
from stores import key, opened, raw, store
from waiting import DEADLINE, until

from gateway import metrics
from gateway.app import create_app
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.sender import HttpSender
from gateway.dispatch.traced import TracedSender
from gateway.dispatch.upkeep import Upkeep
from gateway.middleware.listening import Runner
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.tracing.spans import Spans

# Fixtures, and what tests wait with.
__all__ = [
    "DEADLINE",
    "deployment",
    "key",
    "line",
    "new_link",
    "opened",
    "raw",
    "redis_server",
    "server",
    "session_cluster",
    "session_sentinels",
    "session_tls",
    "start",
    "store",
    "until",
]

# A shell that runs us in the background has SIGINT ignored, which processes hand down; tests stop theirs by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ADMIN_KEY = "test-key"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What tests the sender or the link to Redis itself runs on both loops: on uvloop, where the gateway runs, events
    come in another order."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if {"HttpSender", "batching"} & vars(getattr(item, "module", pytest)).keys():
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey of this test session, on a Unix socket."""
    # Not tmp_path: a socket's path must stay below 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    path = folder / "valkey.sock"
    server = subprocess.Popen(
        [valkey_server(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                break
            assert time.monotonic() < end, "Valkey did not start"
            assert server.poll() is None, "Valkey ended at its start"
            time.sleep(0.01)
        yield f"unix://{path}"
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


@pytest.fixture
def store_url(valkey: str) -> str:
    """The same, emptied for this test."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(valkey.removeprefix("unix://"))
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64).startswith(b"+OK")
    return valkey


@dataclass
class Gateway:
    """A gateway in this process."""

    url: str
    client: aiohttp.ClientSession
    store: Store
    settings: Settings
    guard: EgressGuard
    app: web.Application
    dispatcher: Dispatcher | None
    runner: web.AppRunner

    async def enqueue(self, body: Any, **kwargs: Any) -> tuple[int, Any, Any]:
        """Status, JSON and headers of `POST /v1/enqueue`."""
        return await self.call("POST", "/v1/enqueue", json=body, **kwargs)

    async def call(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any, Any]:
        """Status, JSON (None where there is no body) and headers of any call."""
        async with self.client.request(method, path, **kwargs) as answer:
            raw = await answer.read()
            return answer.status, (await answer.json() if raw else None), answer.headers

    async def admin(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any, Any]:
        """The same with the admin key."""
        return await self.call(method, path, headers={"X-Admin-Key": ADMIN_KEY}, **kwargs)


GatewayFactory = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def gateway(store_url: str) -> AsyncIterator[GatewayFactory]:
    """`await gateway(**settings)` starts one; settings are texts, under their environment names in any case.
    ``dispatch=False`` leaves its dispatcher out, so that tasks stay where they are; ``spans`` tell of it."""
    metrics.configure(1000, None)
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, dispatch: bool = True, spans: Spans | None = None, **overrides: str) -> Gateway:
            env = {
                "REDIS_URL": store_url,
                "ADMIN_API_KEY": ADMIN_KEY,
                "OUTBOUND_ALLOW": "127.0.0.1",
                "LEASE_SECONDS": "5",
                "DRAIN_SECONDS": "1",
            }
            env.update({name.upper(): value for name, value in overrides.items()})
            settings = Settings.load({name: value for name, value in env.items() if value})
            store = await stack.enter_async_context(open_store(settings, settings.redis_url or store_url))
            guard = EgressGuard(
                settings.outbound_allow,
                settings.outbound_allow_private,
                settings.upstream_url,
                deny=settings.outbound_deny,
            )
            dispatcher = None
            if dispatch:
                sender = await stack.enter_async_context(
                    HttpSender(
                        guard, settings.max_in_flight, keys=store.signing.keys, hosts=store.clients.allowed_hosts
                    )
                )
                upkeep = await stack.enter_async_context(Upkeep(store.claims, store.audit, settings.lease_seconds))
                dispatcher = await stack.enter_async_context(
                    Dispatcher(
                        store.claims,
                        sender if spans is None else TracedSender(sender, spans),
                        max_in_flight=settings.max_in_flight,
                        lease_seconds=settings.lease_seconds,
                        drain_seconds=settings.drain_seconds,
                        on_due=upkeep.due,
                    )
                )
            app = create_app(settings, store, dispatcher, guard, spans)
            runner = Runner(app, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            client = await stack.enter_async_context(aiohttp.ClientSession(url))
            return Gateway(url, client, store, settings, guard, app, dispatcher, runner)

        yield start


@dataclass
class Target:
    """A server that records its calls. ``statuses`` and ``delays`` say by path how it answers (200, at once),
    ``answer_headers`` and ``bodies`` with what."""

    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[str, int | list[int]] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    answer_headers: dict[str, dict[str, str]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    open: int = 0
    max_open: int = 0

    def hold(self, path: str) -> asyncio.Event:
        """Calls of this path get no answer until the event is set."""
        self.held[path] = asyncio.Event()
        return self.held[path]

    async def _handle(self, request: web.Request) -> web.Response:
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        call: dict[str, Any] = {
            "method": request.method,
            "path": request.path_qs,
            "headers": dict(request.headers),
            "body": await request.read(),
            "start": time.monotonic(),
            "end": None,
        }
        self.calls.append(call)
        try:
            if delay := self.delays.get(request.path):
                await asyncio.sleep(delay)
            if request.path in self.held:
                await self.held[request.path].wait()
        finally:
            self.open -= 1
            call["end"] = time.monotonic()
        status = self.statuses.get(request.path, 200)
        if isinstance(status, list):
            status = status.pop(0) if len(status) > 1 else status[0]
        body = self.bodies.get(request.path, b"seen")
        return web.Response(status=status, body=body, headers=self.answer_headers.get(request.path))

    async def received(self, count: int, seconds: float = DEADLINE) -> list[dict[str, Any]]:
        """The calls, once there are ``count`` of them."""
        await until(lambda: len(self.calls) >= count, seconds)
        return self.calls


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    """A recording target on a port of its own."""
    made = Target()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made._handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def a_client() -> str:
    """A client id that no other test uses."""
    return f"client-{secrets.token_hex(4)}"
