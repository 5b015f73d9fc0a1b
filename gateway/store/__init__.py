"""The only way to Redis: `open_store` gives a `Store`, whose parts are the clients, tasks, claims and windows."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

import structlog
from msgspec import UNSET

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.models import RateLimit
from gateway.settings import Settings
from gateway.store.admission import Admissions
from gateway.store.audit import Audit
from gateway.store.batching import MultiplexedLink
from gateway.store.claims import Claims
from gateway.store.client_keys import ClientKeys
from gateway.store.clients import Clients
from gateway.store.cluster import RedisCluster
from gateway.store.connection import Deployment, SingleRedis, too_old
from gateway.store.doorbell import Doorbell
from gateway.store.durability import confirmation
from gateway.store.figures import Figured
from gateway.store.health import ServerHealth, server_health
from gateway.store.jobs import Jobs
from gateway.store.journal import Journal
from gateway.store.keyspace import PARTITIONS_ON_CLUSTER, Keyspace
from gateway.store.link import CommandError, Confirmation, Dial, Link
from gateway.store.listing import Listing
from gateway.store.payload import Payloads
from gateway.store.replicas import Replicas
from gateway.store.scripts import Runner
from gateway.store.sealing import Sealer
from gateway.store.sentinel import RedisSentinel
from gateway.store.servers import Servers, look_at
from gateway.store.sessions import Sessions
from gateway.store.signing import SigningSecrets
from gateway.store.steering import Steering
from gateway.store.tasks import Tasks
from gateway.store.tiers import Price, Tiers
from gateway.store.usage import Usages
from gateway.store.windows import Windows
from gateway.store.working import JobWorker
from gateway.store.wrong_keys import WrongKeys

__all__ = ["Store", "open_store"]

log = structlog.get_logger()


class Store:
    """What the gateway keeps, over two links. Its parts raise StoreUnavailable where Redis is away."""

    def __init__(self, settings: Settings, redis: Deployment, keyspace: Keyspace) -> None:
        self._redis = redis
        self._links: list[Link] = []
        self._refreshing: set[asyncio.Task[None]] = set()
        self.tiers = Tiers(settings, keyspace)
        # Dispatching has a link of its own, so that a burst of enqueues does not stand before a finish.
        self._front, api = self._runner("requests", settings, keyspace)
        self._back, dispatch = self._runner("dispatch", settings, keyspace)
        self._api = api
        self.tiers.attach(api)
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
        self.clients = Clients(api, settings, self.tiers)
        self.client_keys = ClientKeys(api)
        self.signing = SigningSecrets(api, Sealer(settings.task_encryption_keys))
        payloads = Payloads(settings.task_encryption_keys)
        self.tasks = Tasks(api, Admissions(api, self.clients, settings, payloads, self.consumer), payloads)
        self.listing = Listing(api, payloads)
        self.steering = Steering(api, self.listing)
        self.replicas = Replicas(api)
        self.journal = Journal(api)
        self.jobs = Jobs(api)
        self.job_worker = JobWorker(self.jobs, self.listing, self.steering, self.journal, self.consumer)
        self.sessions = Sessions(api)
        self.wrong_keys = WrongKeys(api)
        self.windows = Windows(api, settings.window_algorithm)
        self.doorbell = Doorbell(redis.homes, keyspace.bells, sharded=redis.sharded, on_change=self._forget)
        self.claims = Claims(dispatch, self.consumer, self.doorbell, payloads)
        self.audit = Audit(dispatch)
        self.usages = Usages(api)
        self.figured = Figured(api, self.clients, self.windows, self.usages, settings)

    def _forget(self, client_id: str | None) -> None:
        self.clients.forget(client_id)
        self.client_keys.forget(client_id)
        self.signing.forget(client_id)
        if client_id is None:  # the tiers, too
            task = asyncio.create_task(self._refresh_tiers())
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    async def set_tier(self, name: str, limit: RateLimit | None, price: Price = UNSET) -> None:
        """Store a tier, or (None) no longer; the next request of this process goes by it, and soon those of others.
        ``price``: unset, it keeps the one it has; None: it has none."""
        await self.tiers.store(name, limit, price)
        self.clients.forget()

    async def _refresh_tiers(self) -> None:
        try:
            if await self.tiers.refresh():
                self.clients.forget()
        except StoreUnavailable as error:
            log.debug("tiers_not_read", error=error.message)

    def _runner(self, name: str, settings: Settings, keyspace: Keyspace) -> tuple[Link, Runner]:
        """A link, and what runs scripts over it; with DURABILITY also the link of those that wait."""

        def make(dial: Dial, ending: Confirmation | None = None) -> MultiplexedLink:
            called = name if ending is None else f"{name}_confirmed"
            return MultiplexedLink(called, dial, settings.redis_timeout, ending)

        link, confirmed = self._redis.link(make), None
        self._links.append(link)
        if (ending := confirmation(settings)) is not None:
            confirmed = self._redis.link(lambda dial: make(dial, ending))
            self._links.append(confirmed)
        return link, Runner(link, keyspace, self.tiers, settings.redis_timeout, confirmed)

    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of every server that is not in the settings, as far as they are known by now."""
        return self._redis.nodes()

    async def health(self) -> ServerHealth:
        """How the server is; raises StoreUnavailable where it does not answer."""
        return await server_health(self._api)

    async def servers(self) -> Servers:
        """Each server that has the data; raises StoreUnavailable where it is not known which those are."""
        return await look_at(self._redis)

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers and takes writes."""
        await self._api.ping()

    async def close(self) -> None:
        """Close the links; what is unanswered fails."""
        refreshing = tuple(self._refreshing)
        for task in refreshing:
            task.cancel()
        await asyncio.gather(*refreshing, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links))

    @property
    def connections(self) -> int:
        """How many connections each server gets, the doorbell's included."""
        return len(self._links) + 1

    async def greet(self) -> None:
        """Look at the server once: too old is said, a policy that may evict work is said."""
        try:
            text = await self._front.execute("INFO", "server")
            info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
            if (complaint := too_old(info)) is not None:
                log.error("redis_too_old", error=complaint)
            policy = (await self._front.execute("CONFIG", "GET", "maxmemory-policy"))[1].decode()
            if policy != "noeviction":
                log.warning(
                    "redis_may_evict",
                    maxmemory_policy=policy,
                    hint="set maxmemory-policy to noeviction, or accepted tasks may vanish",
                )
        except (CommandError, StoreUnavailable, IndexError, AttributeError) as error:
            log.warning("redis_not_inspected", error=str(error))


@asynccontextmanager
async def open_store(settings: Settings, url: str) -> AsyncIterator[Store]:
    """The store on the Redis at ``url``; opens also where it does not answer, and keeps trying."""
    keyspace = Keyspace(settings.key_prefix, PARTITIONS_ON_CLUSTER if settings.redis_cluster else 1)
    redis: Deployment
    if settings.redis_cluster:
        redis = RedisCluster(settings, url, keyspace)
    else:
        redis = RedisSentinel(settings, url) if "+sentinel:" in url else SingleRedis(settings, url)
    store = Store(settings, redis, keyspace)
    metrics.set_pool(store.connections, settings.redis_pool_size)
    listening = asyncio.create_task(store.doorbell.run())
    greeting = asyncio.create_task(store.greet())
    watching = asyncio.create_task(redis.watch())
    tiers = asyncio.create_task(store.tiers.keep())
    try:
        yield store
    finally:
        tasks = (listening, greeting, watching, tiers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
