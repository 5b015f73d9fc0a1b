"""The ways Redis can be deployed, each once a session, for what must hold over all of them."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis as plain
import redis.asyncio as redis
from certificates import Authority
from redis_servers import Server, binaries, server
from topologies import Cluster, Sentinels, cluster, sentinels

from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.keyspace import PARTITIONS_ON_CLUSTER, Keyspace

# For tests that are not about time: on a busy machine a handshake takes seconds.
UNHURRIED = {"REDIS_TIMEOUT": "30", "REDIS_CONNECT_TIMEOUT": "30"}


class AllPrimaries(redis.RedisCluster):
    """A client of a Cluster whose KEYS and MGET look everywhere."""

    async def keys(self, pattern: str = "*", **_: Any) -> Any:
        return await super().keys(pattern, target_nodes=self.PRIMARIES)

    async def mget(self, keys: Any, *_: Any) -> Any:
        return await self.mget_nonatomic(keys)


@dataclass
class Deployment:
    """A deployment that is up and empty, and what the gateway needs to be told of it."""

    url: str
    environment: dict[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    sentinels: Sentinels | None = None
    authority: Authority | None = None

    @property
    def keyspace(self) -> Keyspace:
        return Keyspace("", PARTITIONS_ON_CLUSTER if self.cluster else 1)

    def settings(self, **environment: str) -> Settings:
        return Settings.load({"REDIS_URL": self.url, **self.environment, **environment})

    def store(self, **environment: str) -> contextlib.AbstractAsyncContextManager[Store]:
        """A store on it; settings by environment name."""
        return open_store(self.settings(**environment), self.url)

    def key(self, name: str, client_id: str = "acme") -> str:
        """A key of the client, with what a Cluster has it carry."""
        return f"{name}{self.keyspace.tag(self.keyspace.partition(client_id))}"

    @asynccontextmanager
    async def raw(self, *, decode: bool = True) -> AsyncIterator[Any]:
        """A client that knows nothing of the gateway; it reads texts, or bytes."""
        if self.cluster:
            node = self.cluster.nodes[0]
            async with AllPrimaries("127.0.0.1", node.port, decode_responses=decode) as clustered:
                yield clustered
            return
        at = self.sentinels.primary().url if self.sentinels else self.url
        shown = self.authority.shown if self.authority else {}
        async with redis.Redis.from_url(at, decode_responses=decode, **shown) as client:
            yield client


@pytest.fixture(params=sorted(binaries()), scope="module")
def redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Valkey, then a Redis."""
    with server(binary=binaries()[request.param]) as made:
        yield made


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[Cluster]:
    """A Cluster of this test session."""
    with cluster() as made:
        yield made


@pytest.fixture(scope="session")
def session_sentinels() -> Iterator[Sentinels]:
    """A primary under Sentinels of this test session."""
    with sentinels() as made:
        yield made


@pytest.fixture(scope="session")
def session_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Authority]]:
    """A Redis of this test session that speaks TLS alone, and who signed its certificate and ours."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    with server(tls=authority) as made:
        yield made, authority


_TLS = pytest.param(
    "tls",
    marks=pytest.mark.skipif(
        "redis" not in binaries(), reason="no Redis is installed, and the embedded Valkey has no TLS"
    ),
)


@pytest.fixture(params=["standalone", "cluster", "sentinel", _TLS])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Each deployment in turn, emptied for this test."""
    if request.param == "cluster":
        made: Cluster = request.getfixturevalue("session_cluster")
        made.flush()
        return Deployment(made.url, {"REDIS_CLUSTER": "true"}, cluster=made)
    if request.param == "sentinel":
        watched: Sentinels = request.getfixturevalue("session_sentinels")
        with watched.primary().client() as client:
            client.flushall()
        return Deployment(watched.url, sentinels=watched)
    if request.param == "tls":
        secure, authority = request.getfixturevalue("session_tls")
        with secure.client() as client:
            client.flushall()
        return Deployment(secure.url, authority.environment, authority=authority)
    url: str = request.getfixturevalue("valkey")
    with plain.Redis.from_url(url) as client:
        client.flushall()
    return Deployment(url)


standalone = pytest.mark.parametrize("deployment", ["standalone"], indirect=True)
