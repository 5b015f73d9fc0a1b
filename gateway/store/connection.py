"""Sets connections up from the settings, and reaches one Redis at a fixed address. Several: `cluster`, `sentinel`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.batching import MultiplexedLink
from gateway.store.link import Dial, Link
from gateway.store.refusals import advice
from gateway.store.tls import TlsConnection

MakeLink = Callable[[Dial], MultiplexedLink]

MINIMUM = {"redis": (7, 0), "valkey": (7, 2)}


def arguments(settings: Settings, url: str) -> dict[str, Any]:
    """What redis-py's connection classes take, from the URL and the settings; the URL's own options come first."""
    given: dict[str, Any] = dict(parse_url(url))
    if given.get("connection_class") is SSLConnection:
        files = {
            "ssl_ca_certs": settings.redis_tls_ca,
            "ssl_certfile": settings.redis_tls_cert,
            "ssl_keyfile": settings.redis_tls_key,
        }
        given = {name: str(file) for name, file in files.items() if file is not None} | given
        given["connection_class"] = TlsConnection
    return {
        **given,
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


async def connect(at: dict[str, Any]) -> AbstractConnection:
    """A connection that is set up; raises StoreUnavailable saying what to mend where the settings are wrong."""
    kind = at.get("connection_class", Connection)
    given = {name: value for name, value in at.items() if name != "connection_class"}
    connection: AbstractConnection = kind(**{"client_name": "gateway", **given})
    try:
        async with asyncio.timeout(at["socket_connect_timeout"]):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException as error:
        await hang_up(connection)
        if (mend := advice(error, tls=kind is TlsConnection)) is not None:
            raise StoreUnavailable(mend) from error
        raise
    return connection


async def hang_up(connection: AbstractConnection) -> None:
    """End a connection at once. In order, TLS takes a round trip, which a loop that ends would leave half done."""
    if (writer := connection._writer) is not None:  # noqa: SLF001 - there is no public way to abort
        writer.transport.abort()
    await connection.disconnect(nowait=True)


async def ask(at: dict[str, Any], *commands: Sequence[str | int]) -> list[Any]:
    """The replies of a few commands, over a connection for them alone; an error of Redis is raised."""
    connection = await connect(at)
    try:
        replies = []
        for command in commands:
            await connection.send_command(*command)
            replies.append(await connection.read_response())
        return replies
    finally:
        await hang_up(connection)


class Deployment(Protocol):
    """Where Redis is and how it is reached: one server, or several of which some are asked for some keys."""

    sharded: bool

    def link(self, make: MakeLink) -> Link:
        """A way to all of it, over connections of its own; connects when it is first used."""

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """How to reach the servers that have these keys and channels."""

    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of every server that is not in the settings, as far as they are known by now."""

    async def servers(self) -> list[tuple[str, Dial]]:
        """The servers that take writes, by what people call them, and how to reach each."""

    async def watch(self) -> None:
        """Keep up with changes that no error tells of, until cancelled."""


class SingleRedis:
    """One Redis at a fixed address."""

    sharded = False

    def __init__(self, settings: Settings, url: str) -> None:
        self._arguments = arguments(settings, url)

    def link(self, make: MakeLink) -> MultiplexedLink:
        """A link to the one server."""
        return make(self._dial)

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """The one server has all keys and channels."""
        return [(self._dial, list(keys))]

    def nodes(self) -> list[tuple[str, int]]:
        """None: the settings name it."""
        return []

    async def servers(self) -> list[tuple[str, Dial]]:
        """The one server."""
        at = self._arguments
        return [(str(at.get("path") or f"{at.get('host', 'localhost')}:{at.get('port', 6379)}"), self._dial)]

    async def watch(self) -> None:
        """Nothing changes."""

    async def _dial(self) -> AbstractConnection:
        return await connect(self._arguments)


def too_old(info: dict[str, str]) -> str | None:
    """What is wrong with the server's version, from its INFO; None where it will do."""
    kind = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{kind}_version", "0.0")
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) >= MINIMUM[kind]:
        return None
    return f"{kind.capitalize()} {version} is too old: the gateway needs Redis 7.0 or Valkey 7.2 at least."
