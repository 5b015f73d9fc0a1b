"""Loads the Lua scripts, one file each with shared parts from `lib/`; runs them by hash, sends them where missing."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

import msgspec
import orjson
import structlog

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.models import RateLimit
from gateway.settings import Settings
from gateway.store.keyspace import Keyspace
from gateway.store.link import CommandError, Link
from gateway.store.refusals import unavailable

log = structlog.get_logger()

T = TypeVar("T")
Args = tuple[str | bytes | int | float, ...]

_CONFIRMED: Final = {"admit", "claim"}  # what DURABILITY holds back until others have it
_OPERATIONS: Final = {"admit_and_claim": "admit"}  # in metrics and logs, where that is not the script's name
_INCLUDE: Final = re.compile(r"^-- @include (\w+)$", re.MULTILINE)


class Script:
    """A script's source, its parts included, and its SHA-1."""

    def __init__(self, name: str) -> None:
        folder = resources.files(__package__)

        def whole(text: str) -> str:
            return _INCLUDE.sub(lambda part: whole((folder / "lib" / f"{part[1]}.lua").read_text()), text)

        self.name = name
        self.source = whole((folder / f"{name}.lua").read_text())
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@lru_cache
def script(name: str) -> Script:
    """The script of that file name, read once."""
    return Script(name)


class Policy(Protocol):
    """The settings scripts decide by, as lib/scope.lua unpacks them; ``packed`` is empty until they are known."""

    packed: bytes

    async def load(self) -> bytes:
        """Come to know them; raises StoreUnavailable."""


def pack_policy(settings: Settings, tiers: Mapping[str, RateLimit]) -> bytes:
    """The settings and the tiers as one packed array."""
    limits = {name: limit.max_concurrent for name, limit in tiers.items()}
    return msgspec.msgpack.encode(
        [
            settings.result_ttl,
            settings.max_results_per_client,
            settings.dead_ttl,
            settings.max_dead_per_client,
            settings.max_deliveries,
            int(settings.lease_seconds * 1000),
            orjson.dumps(limits).decode(),
            orjson.dumps(settings.queue_weights).decode(),
        ]
    )


class Runner:
    """Runs scripts for clients over one link."""

    def __init__(
        self, link: Link, keyspace: Keyspace, policy: Policy, timeout: float, confirmed: Link | None = None
    ) -> None:
        self.link = link
        self._confirmed = confirmed or link
        self.keyspace = keyspace
        self._policy = policy
        self._timeout = timeout

    @property
    def patience(self) -> float:
        """Seconds after which a call is one that Redis does not answer, rather than one that failed."""
        return self._timeout / 2

    @property
    def durable(self) -> bool:
        """Whether what adds or starts a task waits for replicas or disks (DURABILITY)."""
        return self._confirmed is not self.link

    async def run(self, name: str, client_id: str, *args: str | bytes | int | float) -> Any:
        """The reply of a script of one client; raises StoreUnavailable where Redis did not do it or nobody knows."""
        return await self._begin(name, self.keyspace.partition(client_id), client_id, args)

    def run_for_many(self, name: str, partition: int, *args: str | bytes | int | float) -> Awaitable[Any]:
        """The reply of a script that serves any clients of the partition; otherwise as `run`. The call is on its way
        before this returns, where the link can do that."""
        return self._begin(name, partition, "", args)

    def _begin(self, name: str, partition: int, client_id: str, args: Args) -> Awaitable[Any]:
        if not self._policy.packed:
            return self._begin_later(name, partition, client_id, args)
        return self._begin_now(name, partition, client_id, self._policy.packed, args)

    async def _begin_later(self, name: str, partition: int, client_id: str, args: Args) -> Any:
        return await self._begin_now(name, partition, client_id, await self._policy.load(), args)

    def _begin_now(self, name: str, partition: int, client_id: str, policy: bytes, args: Args) -> Awaitable[Any]:
        names, heads = self.keyspace.scope(partition)
        names += self.keyspace.guard(partition)
        link = self._confirmed if name in _CONFIRMED else self.link
        started = perf_counter()
        called = self._call(link, name, len(names), *names, *heads, client_id, policy, *args)
        return self._replied(_OPERATIONS.get(name, name), called, started)

    @staticmethod
    async def _replied(operation: str, called: Awaitable[Any], started: float) -> Any:
        try:
            return await called
        except CommandError as error:
            metrics.redis_error(operation)
            log.error("redis_error", redis_operation=operation, error=str(error))
            raise unavailable(error) or StoreUnavailable("Redis refused the request; see the log.") from error
        finally:
            metrics.redis_call(operation, perf_counter() - started)

    @staticmethod
    def failed(name: str, client_id: str, error: bytes) -> StoreUnavailable:
        """What one client of a script for many is told, whose keys could not be read or written as they are."""
        metrics.redis_error(name)
        log.error("redis_error", redis_operation=name, client=client_id, error=error.decode(errors="replace"))
        return StoreUnavailable("Redis refused the request; see the log.", unknown=True)

    async def over_partitions(self, ask: Callable[[int], Awaitable[T]], *, all_of_them: bool = False) -> list[T]:
        """What ``ask`` answers for each partition, asked at once. Those out of reach are left out, so that one lost
        node does not stop the rest; raises StoreUnavailable where none is in reach, or with ``all_of_them`` where one
        is not."""
        if self.keyspace.partitions == 1:
            return [await ask(0)]
        answers = await asyncio.gather(*map(ask, range(self.keyspace.partitions)), return_exceptions=True)
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        for answer in answers:
            if isinstance(answer, BaseException) and (
                all_of_them or not found or not isinstance(answer, StoreUnavailable)
            ):
                raise answer
        return found

    async def run_alone(self, name: str, keys: Sequence[str], *args: str | bytes | int | float) -> Any:
        """The reply of a script that is no client's, which gets these keys and arguments alone."""
        try:
            return await self._call(self.link, name, len(keys), *keys, *args)
        except CommandError as error:
            metrics.redis_error(name)
            log.error("redis_error", redis_operation=name, error=str(error))
            raise unavailable(error) or StoreUnavailable("Redis refused the request; see the log.") from error

    async def now(self) -> int:
        """Redis's clock, in Unix ms; on a Cluster that of any of its nodes."""
        seconds, micros = await self.command("TIME", tries=3)
        return int(seconds) * 1000 + int(micros) // 1000

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers and takes writes (a full memory aside, which drains)."""
        try:
            await self._call(self.link, "ping", 0)
        except CommandError as error:
            raise unavailable(error) or StoreUnavailable("Redis refuses a script; see the log.") from error

    @staticmethod
    def _call(link: Link, name: str, *tail: str | bytes | int | float) -> Awaitable[Any]:
        """Run by hash; a server that does not know the script (new, restarted, SCRIPT FLUSH) gets it sent."""
        wanted = script(name)
        begun = link.begin("EVALSHA", wanted.sha, *tail)

        async def reply() -> Any:
            try:
                return await begun
            except CommandError as error:
                if error.code != "NOSCRIPT":
                    raise
                return await link.execute("EVAL", wanted.source, *tail)

        return reply()

    async def command(self, *command: str | bytes | int | float, tries: int = 1) -> Any:
        """The reply of one plain command; reads say how often they may be tried, within one REDIS_TIMEOUT in all."""
        operation = str(command[0]).lower()
        started = perf_counter()
        try:
            while True:
                tries -= 1
                try:
                    return await self.link.execute(*command)
                except StoreUnavailable:
                    # A frozen Redis would let the second try wait as long as the first, and the caller with it.
                    if tries <= 0 or perf_counter() - started > self._timeout / 2:
                        raise
        except CommandError as error:
            metrics.redis_error(operation)
            log.error("redis_error", redis_operation=operation, error=str(error))
            raise unavailable(error) or StoreUnavailable("Redis refused the request; see the log.") from error
        finally:
            metrics.redis_call(operation, perf_counter() - started)
