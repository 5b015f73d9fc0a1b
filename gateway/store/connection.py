"""Makes the ways to Redis from the settings: links for commands, a client for the doorbell."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from redis.asyncio import cluster as redis_cluster
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.batching import CommandError, Dial, Link, MultiplexedLink
from gateway.store.refusals import advice

MINIMUM = {"redis": (7, 0), "valkey": (7, 2)}


def _arguments(settings: Settings, url: str) -> dict[str, Any]:
    """What redis-py's connection classes take, from the URL and the settings."""
    return {
        **parse_url(url),
        # The multiplexed link reads replies in order, which RESP3's pushes would upset.
        "protocol": 2,
        # With one, redis-py sends under asyncio.wait_for, which on Python 3.11 may swallow a cancellation (gh-86296).
        # The deadlines are those of `connect`, of the link and of the doorbell.
        "socket_timeout": None,
        "socket_connect_timeout": settings.redis_connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        # Names the library to the server with two more commands, which a minimal ACL would have to allow.
        "driver_info": None,
    }


async def connect(arguments: dict[str, Any]) -> AbstractConnection:
    """A connection that is set up; raises StoreUnavailable saying what to mend where the settings are wrong."""
    kind = arguments.get("connection_class", Connection)
    given = {name: value for name, value in arguments.items() if name != "connection_class"}
    connection: AbstractConnection = kind(**{"client_name": "gateway", **given})
    try:
        async with asyncio.timeout(arguments["socket_connect_timeout"]):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException as error:
        await connection.disconnect(nowait=True)
        if (mend := advice(error)) is not None:
            raise StoreUnavailable(mend) from error
        raise
    return connection


class Deployment(Protocol):
    """Where Redis is and how it is reached: one server, or several of which some are asked for some keys."""

    sharded: bool

    def link(self) -> Link:
        """A link of its own; connects when it is first used."""

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """How to reach the servers that have these keys and channels."""

    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of every server that is not in the settings, as far as they are known by now."""


class SingleRedis:
    """One Redis at a fixed address."""

    sharded = False

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._arguments = _arguments(settings, url)

    def link(self) -> MultiplexedLink:
        """A link; connects when it is first used."""
        return MultiplexedLink(self._dial, self._settings.redis_timeout)

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """Who has these keys and channels."""
        return [(self._dial, list(keys))]

    def nodes(self) -> list[tuple[str, int]]:
        """None: the settings name it."""
        return []

    async def _dial(self) -> AbstractConnection:
        return await connect(self._arguments)


class RedisCluster:
    """A Cluster, by one of its nodes."""

    sharded = False

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._links: list[ClusterLink] = []
        self._arguments = _arguments(settings, url)

    def link(self) -> "ClusterLink":
        """A link to all nodes."""
        self._links.append(ClusterLink(self._settings, self._url))
        return self._links[-1]

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """Any node hears what is published on another."""
        return [(lambda: connect(self._arguments), list(keys))]

    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of every node, as far as they are known by now."""
        return [address for link in self._links for address in link.nodes()]


class ClusterLink:
    """A link to a Cluster: redis-py finds the node and follows MOVED, ASK and TRYAGAIN, which say that nothing ran."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._cluster = redis_cluster.RedisCluster.from_url(
            url,
            socket_connect_timeout=settings.redis_connect_timeout,
            socket_timeout=settings.redis_timeout,
            max_connections=settings.redis_pool_size,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Send the command to the node that has its keys; keyless ones go to any."""
        try:
            return await self._cluster.execute_command(*command, NEVER_DECODE=True)
        except NoScriptError as error:
            msg = "NOSCRIPT"
            raise CommandError(msg) from error
        except ResponseError as error:
            raise CommandError(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            message = "The Redis Cluster did not answer; it is not known whether the request was carried out."
            raise StoreUnavailable(message, unknown=True) from error

    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of every node, as far as they are known by now."""
        return [(str(node.host), int(node.port)) for node in self._cluster.get_nodes()]

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys that match, on all primaries."""
        async for key in self._cluster.scan_iter(match=pattern, count=1000):
            yield key

    async def close(self) -> None:
        """Close the connections to all nodes."""
        await self._cluster.aclose()


def too_old(info: dict[str, str]) -> str | None:
    """What is wrong with the server's version, from its INFO; None where it will do."""
    kind = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{kind}_version", "0.0")
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) >= MINIMUM[kind]:
        return None
    return f"{kind.capitalize()} {version} is too old: the gateway needs Redis 7.0 or Valkey 7.2 at least."
