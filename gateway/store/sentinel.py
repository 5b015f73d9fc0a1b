"""A primary that Sentinels watch over: asked for at each connection, not believed before it says so itself, and left
when they name another."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.addresses import sentinel_parts
from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.batching import MultiplexedLink
from gateway.store.connection import MakeLink, arguments, ask, connect, hang_up
from gateway.store.link import Dial, describe

log = structlog.get_logger()

Address = tuple[str, int]

_ASK_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 1.0
# What a Sentinel publishes when a replica was made the primary (https://redis.io/docs/latest/operate/oss_and_stack/
# management/sentinel/#pubsub-messages): the leader of the failover says the first, all of them the second.
_SWITCHES: Final = ("+promoted-slave", "+switch-master")
_FAILURES: Final = (RedisError, StoreUnavailable, OSError, TimeoutError)


class RedisSentinel:
    """The primary of one service."""

    sharded = False

    def __init__(self, settings: Settings, url: str) -> None:
        parts = sentinel_parts(url)
        self._service = parts.service
        self._sentinels = parts.sentinels
        self._arguments = arguments(settings, parts.server_url)
        self._asking = {**self._arguments, "db": 0, "username": None, "password": settings.redis_sentinel_password}
        self._found: set[Address] = set()
        self._links: list[MultiplexedLink] = []

    def link(self, make: MakeLink) -> MultiplexedLink:
        """A link to whichever server is the primary when it connects."""
        made = make(self._dial)
        self._links.append(made)
        return made

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """The primary has all keys and channels."""
        return [(self._dial, list(keys))]

    def nodes(self) -> list[Address]:
        """The Sentinels, and every primary and replica they have named so far."""
        return [*self._sentinels, *self._found]

    async def servers(self) -> list[tuple[str, Dial]]:
        """The primary of the moment."""
        return [(self._service, self._dial)]

    async def watch(self) -> None:
        """Leave a primary as soon as one Sentinel names another. In an ordered failover the old one takes writes for up
        to ten seconds more, and what it takes then is lost."""
        await asyncio.gather(*map(self._hear, self._sentinels))

    async def _hear(self, sentinel: Address) -> None:
        while True:
            try:
                connection = await connect(self._at(sentinel))
                try:
                    await self._listen(connection)
                finally:
                    await hang_up(connection)
            except _FAILURES as error:
                log.debug("sentinel_not_heard", sentinel=f"{sentinel[0]}:{sentinel[1]}", error=describe(error))
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _learn_replicas(self, connection: AbstractConnection) -> None:
        await connection.send_command("SENTINEL", "REPLICAS", self._service)
        with contextlib.suppress(RedisError):  # it may not allow this, and all but `nodes` works without
            replicas = await connection.read_response(timeout=_QUIET_SECONDS)
            self._found |= {_place(flat) for flat in replicas or ()}

    async def _listen(self, connection: AbstractConnection) -> None:
        await self._learn_replicas(connection)
        await connection.send_command("SUBSCRIBE", *_SWITCHES)
        asked = False
        while True:
            message = await connection.read_response(timeout=_QUIET_SECONDS)
            if message is None:
                if asked:
                    raise TimeoutError("the Sentinel does not answer")
                asked = True
                await connection.send_command("PING")
                continue
            asked = False
            if message[0] == b"message" and self._service in message[2].decode().split():
                for link in self._links:
                    link.retire("the Sentinels named another primary")

    async def _dial(self) -> AbstractConnection:
        answers = await asyncio.gather(*map(self._ask, self._sentinels), return_exceptions=True)
        # The latest failover first: a Sentinel that was cut off may still name the old primary.
        named = sorted({answer for answer in answers if isinstance(answer, tuple)}, reverse=True)
        problem: BaseException | None = next((each for each in answers if isinstance(each, BaseException)), None)
        if not named and problem is None:
            msg = f"No Sentinel knows a primary named {self._service!r}: check the service in REDIS_URL."
            raise StoreUnavailable(msg)
        for address in dict.fromkeys(address for _, address in named):
            try:
                return await self._primary(address)
            except _FAILURES as error:
                problem = error
        assert problem is not None
        raise problem

    def _at(self, sentinel: Address) -> dict[str, Any]:
        return {**self._asking, "host": sentinel[0], "port": sentinel[1]}

    async def _ask(self, sentinel: Address) -> tuple[int, Address] | None:
        """Which failover, by its epoch, made whom the primary."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                found, fields = await ask(
                    self._at(sentinel),
                    ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
                    ("SENTINEL", "MASTERS"),
                )
        except StoreUnavailable as error:  # the settings are wrong, and its text speaks of the server's
            msg = (
                f"The Sentinel at {sentinel[0]}:{sentinel[1]} refuses: check REDIS_SENTINEL_PASSWORD. ({error.message})"
            )
            raise StoreUnavailable(msg) from error.__cause__
        if found is None:
            return None
        states = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in fields)
        epoch = next((int(state[b"config-epoch"]) for state in states if state[b"name"].decode() == self._service), 0)
        return epoch, (found[0].decode(), int(found[1]))

    async def _primary(self, address: Address) -> AbstractConnection:
        self._found.add(address)
        connection = await connect({**self._arguments, "host": address[0], "port": address[1]})
        try:
            await connection.send_command("ROLE")
            role = await connection.read_response()
            if role[0] != b"master":
                msg = f"The Sentinels name {address[0]}:{address[1]}, which is a replica; nothing was stored."
                raise StoreUnavailable(msg)
        except BaseException:
            await hang_up(connection)
            raise
        return connection


def _place(flat: list[bytes]) -> Address:
    """Where a server is, of which a Sentinel tells all it knows."""
    state = dict(zip(flat[::2], flat[1::2], strict=True))
    return state[b"ip"].decode(), int(state[b"port"])
