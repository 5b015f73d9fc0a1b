"""How the Redis server is: what it says of itself, and how long it took to say so."""

from collections.abc import Mapping
from time import perf_counter
from typing import Literal

import msgspec

from gateway.store.scripts import Runner


class ServerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What INFO says; on a Cluster that of one node. ``latency`` in seconds, for the round trip that asked;
    ``memory_max`` of 0 is no bound. ``persistence``: `rdb` where a snapshot has been saved since its start;
    ``persistence_ok``: the last write to disk worked, or there was none."""

    server: str
    version: str
    latency: float
    memory_used: int
    memory_max: int
    persistence: Literal["aof", "rdb", "none"]
    persistence_ok: bool
    role: str
    connected_replicas: int


async def server_health(runner: Runner) -> ServerHealth:
    """Ask; raises StoreUnavailable where it does not answer."""
    started = perf_counter()
    text = await runner.command("INFO", tries=3)
    return read_health(read_info(text), perf_counter() - started)


def read_info(text: bytes) -> dict[str, str]:
    """What INFO says, by name."""
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def read_health(info: Mapping[str, str], latency: float) -> ServerHealth:
    """What of it tells how the server is."""
    aof = info.get("aof_enabled") == "1"
    # Valkey names the Redis version it is compatible with, and its own beside it.
    return ServerHealth(
        server="valkey" if "valkey_version" in info else "redis",
        version=info.get("valkey_version") or info.get("redis_version", "unknown"),
        latency=latency,
        memory_used=int(info.get("used_memory", 0)),
        memory_max=int(info.get("maxmemory", 0)),
        persistence="aof" if aof else "rdb" if int(info.get("rdb_saves", 0)) else "none",
        persistence_ok=info.get("aof_last_write_status", "ok") == "ok" and info.get("rdb_last_bgsave_status") == "ok",
        role=info.get("role", "unknown"),
        connected_replicas=int(info.get("connected_slaves", 0)),
    )
