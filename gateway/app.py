"""`create_app`: the chains, the routes and what they share, in one place. `serve`: everything that runs around it, in
the order in which it starts and stops."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from gateway import metrics
from gateway.addresses import redis_hosts
from gateway.admin import client_keys as admin_client_keys
from gateway.admin import clients as admin_clients
from gateway.admin import dashboard as admin_dashboard
from gateway.admin import dead as admin_dead
from gateway.admin import events as admin_events
from gateway.admin import flow as admin_flow
from gateway.admin import jobs as admin_jobs
from gateway.admin import journal as admin_journal
from gateway.admin import overview as admin_overview
from gateway.admin import redis as admin_redis
from gateway.admin import replicas as admin_replicas
from gateway.admin import session as admin_session
from gateway.admin import signing as admin_signing
from gateway.admin import tasks as admin_tasks
from gateway.admin import tiers as admin_tiers
from gateway.admin import usage as admin_usage
from gateway.api import health
from gateway.api.decoding import Decoding
from gateway.api.express import Express
from gateway.api.routes import client_routes
from gateway.api.task_rules import Rules
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.sender import HttpSender
from gateway.dispatch.traced import TracedSender
from gateway.dispatch.upkeep import Upkeep
from gateway.exposure import exposures
from gateway.files import share_files
from gateway.keys import AppKeys
from gateway.listeners import Listener, listen
from gateway.middleware.chains import ADMIN, app_chain
from gateway.middleware.contracts import Dispatching, TargetCheck
from gateway.middleware.guesses import Guesses
from gateway.middleware.keyring import Keyring
from gateway.middleware.security_headers import security_headers
from gateway.neighbours import Neighbours
from gateway.openapi.routes import ROUTES as DOCUMENTATION
from gateway.presence import presence
from gateway.reloading import hear_hangup, reloading
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.counting import counting
from gateway.store.embedded import EmbeddedValkey, warn_if_redis_elsewhere
from gateway.store.gauges import keep_gauges
from gateway.tracing.setup import tracing
from gateway.workers import heartbeat

if TYPE_CHECKING:
    from gateway.tracing.spans import Spans

log = structlog.get_logger()

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


def create_app(
    settings: Settings,
    store: Store,
    dispatcher: Dispatching | None,
    guard: TargetCheck,
    spans: "Spans | None" = None,
) -> web.Application:
    """The public listener: probes and metrics; the clients' API unless this process only dispatches; `/admin` unless it
    has a listener of its own. ``spans``: what tells of its requests, where traces are exported."""
    app = _with_parts(web.Application(middlewares=app_chain(spans)), settings, store, dispatcher, guard)
    app.on_response_prepare.append(security_headers)
    app.add_routes(health.ROUTES)
    if settings.role != "dispatcher":
        app[AppKeys.CLIENT_GUESSES] = guesses = Guesses(settings.client_guesses_per_min, store.wrong_keys.count)
        app.add_routes(client_routes(settings))
        # Logs of every request and spans are the chain's to write.
        if spans is None and settings.log_level != "debug":
            decode = Decoding(Rules(settings)).enqueue
            app[AppKeys.EXPRESS] = lambda limits: Express(
                settings, store, dispatcher, guard, limits, decode=decode, guesses=guesses
            )
        app.add_routes(DOCUMENTATION)
        if settings.admin_port is None:
            _add_admin(app, settings, store, dispatcher, guard)
    return app


def create_admin_app(
    settings: Settings, store: Store, dispatcher: Dispatching | None, guard: TargetCheck
) -> web.Application:
    """The listener of `ADMIN_PORT`: `/admin`; with `--admin-only` also probes and metrics."""
    app = _with_parts(web.Application(middlewares=app_chain(None)), settings, store, dispatcher, guard)
    app.on_response_prepare.append(security_headers)
    if settings.admin_only:
        app.add_routes(health.ROUTES)
    app.add_routes(DOCUMENTATION)
    _add_admin(app, settings, store, dispatcher, guard)
    return app


def _add_admin(
    app: web.Application,
    settings: Settings,
    store: Store,
    dispatcher: Dispatching | None,
    guard: TargetCheck,
) -> None:
    # An application of its own, so that its guards also stand before paths that do not exist.
    app[AppKeys.KEYRING] = keyring = Keyring(settings, store.wrong_keys.count)
    admin = _with_parts(web.Application(middlewares=ADMIN(settings, keyring)), settings, store, dispatcher, guard)
    admin[AppKeys.KEYRING] = keyring
    admin.add_routes(admin_clients.ROUTES)
    admin.add_routes(admin_client_keys.ROUTES)
    admin.add_routes(admin_flow.ROUTES)
    admin.add_routes(admin_signing.ROUTES)
    admin.add_routes(admin_dead.ROUTES)
    admin.add_routes(admin_replicas.ROUTES)
    admin.add_routes(admin_redis.ROUTES)
    admin.add_routes(admin_tasks.ROUTES)
    admin.add_routes(admin_journal.ROUTES)
    admin.add_routes(admin_jobs.ROUTES)
    admin.add_routes(admin_tiers.ROUTES)
    admin.add_routes(admin_usage.ROUTES)
    admin.add_routes(admin_overview.ROUTES)
    admin.add_routes(admin_session.ROUTES)
    admin.add_routes(admin_events.ROUTES)
    admin.add_routes(admin_dashboard.ROUTES)
    admin_events.set_up(admin)
    admin.on_response_prepare.append(admin_session.keep_session)
    app.add_subapp("/admin", admin)


def _with_parts(
    app: web.Application,
    settings: Settings,
    store: Store,
    dispatcher: Dispatching | None,
    guard: TargetCheck,
) -> web.Application:
    app[AppKeys.SETTINGS] = settings
    app[AppKeys.STORE] = store
    app[AppKeys.DISPATCHER] = dispatcher
    app[AppKeys.GUARD] = guard
    return app


async def serve(settings: Settings) -> None:
    """Run everything until SIGTERM or SIGINT. Raises `EmbeddedError`, and OSError where a port can't be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hear_hangup(lambda: None)  # until there is something to read again
    folder = os.environ.get(_MULTIPROCESS)
    metrics.configure(settings.metrics_max_clients, Path(folder) if folder else None)
    for opened in exposures(settings):
        log.warning(opened.event, message=opened.message)
    # Beats until the very end: the parent must not take a drain for a freeze.
    beat = asyncio.create_task(heartbeat())
    try:
        async with running(settings) as urls:
            role = "admin" if settings.admin_only else settings.role
            # `/admin` is on the last of them, wherever it is.
            pages = {} if role == "dispatcher" else {"dashboard": f"{urls[-1]}/admin/ui"}
            log.info("listening", url=urls[0], urls=urls, role=role, **pages)
            _spare_the_collector()
            await stop.wait()
            log.info("stopping")
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
    log.info("stopped")


def _spare_the_collector() -> None:
    """What the start made lives as long as the process and need not be looked at again and again; and a request makes
    hundreds of objects that die without the collector, which at its default of 700 took a tenth of all CPU under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[list[str]]:
    """The whole gateway while the context is open; the value are the URLs it listens on.

    Started from the store outward and stopped the other way round: first the dispatcher drains (it needs the sender and
    the store) while the listeners still answer, so that a balancer sees `/readyz` fail before its requests do, and
    callers lose nothing meanwhile; then the listeners close and open requests end (they need the store), then the store
    goes, and last the embedded Valkey.
    """
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            server = await stack.enter_async_context(
                EmbeddedValkey(settings.gateway_data_dir, settings.embedded_redis_port)
            )
            url = server.url
            log.info("embedded_redis", cli=server.cli)
            await warn_if_redis_elsewhere(own_port=settings.embedded_redis_port)
        store = await stack.enter_async_context(open_store(settings, url))
        spans = await stack.enter_async_context(tracing(store.consumer))
        await stack.enter_async_context(counting(store.usages))
        gauges = asyncio.create_task(keep_gauges(store))
        stack.callback(gauges.cancel)
        jobs = asyncio.create_task(store.job_worker.run())
        stack.callback(jobs.cancel)
        neighbours = Neighbours()
        guard = EgressGuard(
            settings.outbound_allow,
            settings.outbound_allow_private,
            settings.upstream_url,
            redis_hosts(url),
            lambda: [*store.nodes(), *neighbours.listeners()],
            deny=settings.outbound_deny,
        )
        if settings.embedded_redis_port is not None:  # also in a worker, whose parent runs the server
            guard.add_own("localhost", settings.embedded_redis_port)
        dispatcher: Dispatcher | None = None
        dispatches = settings.role in {"all", "dispatcher"} and not settings.admin_only
        files = share_files(settings.max_in_flight if dispatches else 0)
        if dispatches:
            dispatcher = await _make_dispatcher(stack, settings, store, guard, spans, calls=files.calls)
        listeners = []
        if not settings.admin_only:
            app = create_app(settings, store, dispatcher, guard, spans)
            listeners.append(Listener(app, settings.port, admin=False))
        if settings.admin_port is not None and settings.role != "dispatcher":
            app = create_admin_app(settings, store, dispatcher, guard)
            listeners.append(Listener(app, settings.admin_port, admin=True))
        for listener in listeners:
            listener.app[AppKeys.CONNECTIONS] = files.connections
        bound: list[tuple[str, int]] = []

        def own(host: str, port: int) -> None:
            guard.add_own(host, port)
            bound.append((host, port))

        urls, watched = await listen(stack, settings, listeners, own)
        await stack.enter_async_context(reloading(watched))
        if dispatcher is not None:
            await stack.enter_async_context(dispatcher)
        await stack.enter_async_context(
            presence(store, settings, dispatcher, bound, None if dispatcher is None else neighbours)
        )
        yield urls


async def _make_dispatcher(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    store: Store,
    guard: EgressGuard,
    spans: "Spans | None",
    *,
    calls: int,
) -> Dispatcher:
    sender = await stack.enter_async_context(
        HttpSender(guard, calls, settings.outbound_proxy, keys=store.signing.keys, hosts=store.clients.allowed_hosts)
    )
    upkeep = await stack.enter_async_context(Upkeep(store.claims, store.audit, settings.lease_seconds))
    return Dispatcher(
        store.claims,
        sender if spans is None else TracedSender(sender, spans),
        max_in_flight=calls,
        lease_seconds=settings.lease_seconds,
        drain_seconds=settings.drain_seconds,
        on_due=upkeep.due,
    )
