"""The only way to Redis: `open_store` gives a `Store`, whose parts are the clients, tasks, claims and windows."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.audit import Audit
from gateway.store.batching import CommandError
from gateway.store.claims import Claims
from gateway.store.clients import Clients
from gateway.store.connection import Deployment, RedisCluster, SingleRedis, too_old
from gateway.store.doorbell import Doorbell
from gateway.store.keyspace import PARTITIONS_ON_CLUSTER, Keyspace
from gateway.store.scripts import Runner, pack_policy
from gateway.store.tasks import Tasks
from gateway.store.windows import Windows

__all__ = ["Store", "open_store"]

log = structlog.get_logger()


class Store:
    """What the gateway keeps, over two links. Its parts raise StoreUnavailable where Redis is away."""

    def __init__(self, settings: Settings, redis: Deployment) -> None:
        keyspace = Keyspace(settings.key_prefix, PARTITIONS_ON_CLUSTER if settings.redis_cluster else 1)
        policy = pack_policy(settings, keyspace)
        self._redis = redis
        # Dispatching has a link of its own, so that a burst of enqueues does not stand before a finish.
        self._front, self._back = redis.link(), redis.link()
        self._api = Runner(self._front, keyspace, policy, settings.redis_timeout)
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
        self.clients = Clients(self._api, settings)
        self.tasks = Tasks(self._api, self.clients, settings)
        self.windows = Windows(self._api, settings.window_algorithm)
        self.doorbell = Doorbell(redis.homes, keyspace.bells, sharded=redis.sharded, on_change=self.clients.forget)
        dispatch = Runner(self._back, keyspace, policy, settings.redis_timeout)
        self.claims = Claims(dispatch, self.consumer, self.doorbell)
        self.audit = Audit(dispatch)

    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of every server that is not in the settings, as far as they are known by now."""
        return self._redis.nodes()

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers and takes writes."""
        await self._api.ping()

    async def close(self) -> None:
        """Close the links; what is unanswered fails."""
        await asyncio.gather(self._front.close(), self._back.close())

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
    store = Store(settings, RedisCluster(settings, url) if settings.redis_cluster else SingleRedis(settings, url))
    metrics.set_pool(3, settings.redis_pool_size)
    listening = asyncio.create_task(store.doorbell.run())
    greeting = asyncio.create_task(store.greet())
    try:
        yield store
    finally:
        for task in (listening, greeting):
            task.cancel()
        await asyncio.gather(listening, greeting, return_exceptions=True)
        await store.close()
