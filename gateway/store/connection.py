"""Makes the ways to Redis from the settings: links for commands, a client for the doorbell."""

from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.batching import CommandError, MultiplexedLink

MINIMUM = {"redis": (7, 0), "valkey": (7, 2)}


def _connection(settings: Settings, url: str) -> AbstractConnection:
    arguments: dict[str, Any] = dict(parse_url(url))
    kind = arguments.pop("connection_class", Connection)
    made: AbstractConnection = kind(
        **arguments,
        protocol=2,
        socket_timeout=settings.redis_timeout,
        socket_connect_timeout=settings.redis_connect_timeout,
        retry=Retry(NoBackoff(), 0),
        client_name="gateway",
    )
    return made


def multiplexed(settings: Settings, url: str) -> MultiplexedLink:
    """A link to one Redis; connects when it is first used."""
    return MultiplexedLink(lambda: _connection(settings, url), settings.redis_timeout)


def subscriber(settings: Settings, url: str) -> redis.Redis:
    """A client for the doorbell; its read may wait for ever."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=settings.redis_connect_timeout,
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
        client_name="gateway-doorbell",
    )


class ClusterLink:
    """A link to a Cluster: redis-py finds the node and follows MOVED, ASK and TRYAGAIN, which say that nothing ran."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._cluster = RedisCluster.from_url(
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
    return f"{kind} {version} is too old: the gateway needs Redis 7.0 or Valkey 7.2 at least."
