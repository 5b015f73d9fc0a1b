"""Each Redis server by itself: what it says of its memory, its disk and its replicas, and how fast it answers."""

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Final

import msgspec
from redis.exceptions import RedisError

from gateway.errors import StoreUnavailable
from gateway.store.connection import Deployment
from gateway.store.health import ServerHealth, read_health, read_info
from gateway.store.link import Dial

_SECONDS: Final = 2.0  # for a server to answer
_PINGS: Final = 3


class Follower(msgspec.Struct, frozen=True):
    """A replica, as its primary sees it; ``lag`` in seconds."""

    address: str
    state: str
    lag: int


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server. Sizes in bytes, times in seconds; ``last_save`` in Unix seconds. ``keys``: of all its databases."""

    address: str
    health: ServerHealth
    uptime: int
    connections: int
    commands_per_second: int
    keys: int
    memory_peak: int
    memory_policy: str
    fragmentation: float
    last_save: int
    loading: bool
    followers: list[Follower]


class Servers(msgspec.Struct, frozen=True):
    """Those that have the data, and which of them did not answer."""

    found: list[Server]
    unreachable: list[str]


async def look_at(deployment: Deployment) -> Servers:
    """Ask each over a connection of its own; raises StoreUnavailable where it is not known which there are."""
    try:
        async with asyncio.timeout(_SECONDS):
            places = await deployment.servers()
    except TimeoutError:
        raise StoreUnavailable("Redis does not say which servers there are.") from None
    answers = await asyncio.gather(*(_look(address, dial) for address, dial in places))
    found = [answer for answer in answers if answer is not None]
    gone = [address for (address, _), answer in zip(places, answers, strict=True) if answer is None]
    return Servers(found, gone)


async def _look(address: str, dial: Dial) -> Server | None:
    try:
        async with asyncio.timeout(_SECONDS):
            connection = await dial()
            try:
                await connection.send_command("INFO")
                text = await connection.read_response()
                trips = []
                for _ in range(_PINGS):
                    started = perf_counter()
                    await connection.send_command("PING")
                    await connection.read_response()
                    trips.append(perf_counter() - started)
            finally:
                await connection.disconnect(nowait=True)
    except (RedisError, StoreUnavailable, OSError, TimeoutError):
        return None
    return _read(address, read_info(text), sorted(trips)[_PINGS // 2])


def _read(address: str, info: Mapping[str, str], latency: float) -> Server:
    def number(name: str) -> int:
        return int(info.get(name, 0))

    databases = [_fields(value) for name, value in info.items() if name.startswith("db") and name[2:].isdecimal()]
    return Server(
        address=address,
        health=read_health(info, latency),
        uptime=number("uptime_in_seconds"),
        connections=number("connected_clients"),
        commands_per_second=number("instantaneous_ops_per_sec"),
        keys=sum(int(database.get("keys", 0)) for database in databases),
        memory_peak=number("used_memory_peak"),
        memory_policy=info.get("maxmemory_policy", "unknown"),
        fragmentation=float(info.get("mem_fragmentation_ratio", 0)),
        last_save=number("rdb_last_save_time"),
        loading=info.get("loading") == "1",
        followers=[_follower(info[f"slave{at}"]) for at in range(number("connected_slaves")) if f"slave{at}" in info],
    )


def _follower(text: str) -> Follower:
    fields = _fields(text)
    address = f"{fields.get('ip')}:{fields.get('port')}"
    return Follower(address, fields.get("state", "unknown"), int(fields.get("lag", 0)))


def _fields(text: str) -> dict[str, str]:
    """What `INFO` has as `keys=5,expires=1`."""
    return dict(part.split("=", 1) for part in text.strip().split(",") if "=" in part)
