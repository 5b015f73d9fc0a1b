"""`gateway check`: would the gateway start with these settings, and can its Redis be used? It asks Redis by
itself, once: the service keeps trying, where this has to say what is wrong."""

import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import redis
import typer
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from gateway import redaction
from gateway.cli.output import FAILED, Json
from gateway.cli.serve import with_settings_flags
from gateway.exposure import exposures
from gateway.settings import Settings, SettingsError
from gateway.store.embedded import EmbeddedError, find_binary

OLDEST = {"redis": (7, 0), "valkey": (7, 2)}


class Finding(NamedTuple):
    """One thing that was looked at, and what is to be done where it is not ok."""

    name: str
    level: Literal["ok", "warning", "wrong"]
    message: str


@with_settings_flags
def check(flags: dict[str, str], as_json: Json = False) -> None:
    """Say whether the gateway could start, or what is wrong. It looks at the settings, then at their Redis."""
    findings = list(examine(flags))
    ok = all(finding.level != "wrong" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": ok, "checks": [finding._asdict() for finding in findings]}))
    else:
        for finding in findings:
            line = f"{finding.level:8} {finding.name}: {finding.message}"
            typer.echo(line, err=finding.level != "ok")
    if not ok:
        raise typer.Exit(FAILED)


def examine(flags: dict[str, str]) -> Iterator[Finding]:
    """Look at the settings, then at their Redis as far as it lets itself be looked at."""
    try:
        settings = Settings.load(os.environ, flags, terminal=sys.stderr.isatty())
    except SettingsError as problem:
        yield from (Finding("settings", "wrong", mistake) for mistake in problem.mistakes)
        return
    redaction.protect(settings.secrets)
    yield Finding("settings", "ok", "valid")
    yield from (Finding("settings", "warning", warning) for warning in settings.warnings)
    yield from (Finding("exposure", "warning", opened.message) for opened in exposures(settings))
    if settings.redis_url is None:
        yield _embedded(settings)
        return
    try:
        yield from _redis(settings, settings.redis_url)
    except (RedisError, RedisClusterException, OSError) as problem:
        yield Finding("redis", "wrong", f"{settings.redis_shown}: {redaction.scrub(_explained(problem))}")


def _embedded(settings: Settings) -> Finding:
    try:
        binary = find_binary()
    except EmbeddedError as problem:
        return Finding("redis", "wrong", f"no REDIS_URL: {problem}")
    folder = settings.gateway_data_dir
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        advice = f"GATEWAY_DATA_DIR ({folder}) can't be written; set it to a folder that can, or set REDIS_URL"
        return Finding("redis", "wrong", f"no REDIS_URL: {advice}")
    return Finding("redis", "ok", f"no REDIS_URL: would start an embedded Valkey ({binary}) in {folder}")


def _redis(settings: Settings, url: str) -> Iterator[Finding]:
    timeouts: dict[str, Any] = {
        "socket_connect_timeout": settings.redis_connect_timeout,
        "socket_timeout": settings.redis_timeout,
    }
    with redis.Redis.from_url(url, **timeouts) as node:
        info: dict[str, Any] = node.info()
    yield _version(info)
    topology = _topology(info, cluster=settings.redis_cluster)
    yield topology
    yield _policy(info)
    if topology.level != "ok":
        return
    kind: Any = redis.RedisCluster if settings.redis_cluster else redis.Redis
    with kind.from_url(url, **timeouts) as client:
        # The key may be any: it is gone by the next line, and expires where that line is not reached.
        key = f"{settings.key_prefix}gateway-check:{os.getpid()}"
        client.set(key, "1", px=1000)
        client.delete(key)
    yield Finding("writes", "ok", f"{settings.redis_shown} can be written")


def _version(info: dict[str, Any]) -> Finding:
    kind = "valkey" if "valkey_version" in info else "redis"
    text = str(info.get(f"{kind}_version", "0"))
    version = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    shown = f"{kind.capitalize()} {text}"
    if version < OLDEST[kind]:
        return Finding("version", "wrong", f"{shown} is too old: Redis 7.0 or Valkey 7.2 at least")
    return Finding("version", "ok", shown)


def _policy(info: dict[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        advice = "with full memory tasks would be lost; type: redis-cli CONFIG SET maxmemory-policy noeviction"
        return Finding("maxmemory-policy", "wrong", f"{policy}: {advice}")
    return Finding("maxmemory-policy", "ok", "noeviction")


def _topology(info: dict[str, Any], *, cluster: bool) -> Finding:
    is_cluster = bool(info.get("cluster_enabled"))
    if is_cluster != cluster:
        return Finding(
            "cluster",
            "wrong",
            f"REDIS_CLUSTER is {str(cluster).lower()}; set it to {str(is_cluster).lower()}",
        )
    return Finding("cluster", "ok", "a Cluster" if cluster else "a single Redis")


def _explained(problem: Exception) -> str:
    if isinstance(problem, AuthenticationError):
        return "the password or user is refused; set REDIS_PASSWORD (for REDIS_ADDR), or that in REDIS_URL"
    if isinstance(problem, NoPermissionError):
        return f"the user may not do it: {problem}"
    if isinstance(problem, ReadOnlyError):
        return "this is a read-only replica; set REDIS_URL to the primary"
    if isinstance(problem, redis.ConnectionError | redis.TimeoutError | OSError):
        return f"does not answer ({problem}); start it, or set REDIS_URL to where it is"
    return f"refuses: {problem}"
