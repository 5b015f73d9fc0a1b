"""The Redis of a run: one server, a Cluster, or a primary under Sentinels."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import redis.asyncio as redis
from deployments import AllPrimaries
from processes import Server
from redis_servers import Server as Node
from topologies import Cluster, Sentinels

from gateway.store.keyspace import PARTITIONS_ON_CLUSTER, Keyspace

# Each write is in a file before it is answered, so that a process that is killed loses nothing by itself.
_KEPT = ("--appendonly", "yes", "--appendfsync", "always")


class Backend(Protocol):
    """What a run needs of its Redis."""

    keyspace: Keyspace

    async def start(self) -> None: ...

    def ports(self) -> list[int]:
        """Where its servers listen, all that a gateway may talk to."""

    def primaries(self) -> Sequence[Server | Node]:
        """The servers that take writes, as long as none of them was ever replaced."""

    def environment(self, number: int) -> dict[str, str]:
        """What the gateway of this number is told of it."""

    def redis(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """A client of all of it."""

    async def stop(self) -> None: ...


class Single:
    """One Valkey with an AOF."""

    keyspace = Keyspace("", 1)

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder)

    async def start(self) -> None:
        await self.server.start()

    def ports(self) -> list[int]:
        return [self.server.port]

    def primaries(self) -> list[Server]:
        return [self.server]

    def environment(self, number: int) -> dict[str, str]:
        return {"REDIS_URL": self.server.url}

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Any]:
        async with redis.Redis.from_url(self.server.url) as client:
            yield client

    async def stop(self) -> None:
        self.server.kill()


class OnCluster:
    """Three primaries with a replica each."""

    keyspace = Keyspace("", PARTITIONS_ON_CLUSTER)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    async def start(self) -> None:
        self._cluster = await asyncio.to_thread(Cluster, self._folder, *_KEPT)

    def ports(self) -> list[int]:
        return [node.port for node in self.cluster.nodes]

    def primaries(self) -> list[Node]:
        return self.cluster.nodes[:3]

    def environment(self, number: int) -> dict[str, str]:
        return {"REDIS_URL": self.cluster.nodes[number % 3].url, "REDIS_CLUSTER": "true"}

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Any]:
        node = next(node for node in self.cluster.nodes if node.running)
        async with AllPrimaries("127.0.0.1", node.port) as client:
            yield client

    async def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.kill()


class OnSentinels:
    """A primary with two replicas, and three Sentinels."""

    keyspace = Keyspace("", 1)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sentinels: Sentinels | None = None

    @property
    def sentinels(self) -> Sentinels:
        assert self._sentinels is not None
        return self._sentinels

    async def start(self) -> None:
        self._sentinels = await asyncio.to_thread(Sentinels, self._folder, *_KEPT)

    def ports(self) -> list[int]:
        return [server.port for server in (*self.sentinels.servers, *self.sentinels.sentinels)]

    def primaries(self) -> list[Node]:
        return self.sentinels.servers[:1]

    def environment(self, number: int) -> dict[str, str]:
        return {"REDIS_URL": self.sentinels.url}

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Any]:
        async with redis.Redis.from_url(self.sentinels.primary().url) as client:
            yield client

    async def stop(self) -> None:
        if self._sentinels is not None:
            self._sentinels.kill()


BACKENDS: dict[str, type[Single] | type[OnCluster] | type[OnSentinels]] = {
    "single": Single,
    "cluster": OnCluster,
    "sentinel": OnSentinels,
}
