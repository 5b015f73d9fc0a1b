"""`/admin/redis`: each server that has the data, as it says itself."""

from typing import Any

from aiohttp import web

from gateway.errors import StoreUnavailable
from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, rfc3339
from gateway.middleware.reading import query
from gateway.settings import Settings
from gateway.store.health import ServerHealth
from gateway.store.servers import Server


async def show_redis(request: web.Request) -> web.StreamResponse:
    """200 with those that answer; 503 where none does."""
    query(request, "", ())
    servers = await request.app[AppKeys.STORE].servers()
    if not servers.found:
        raise StoreUnavailable("No Redis server answers.")
    body = {
        "topology": _topology(request.app[AppKeys.SETTINGS]),
        "nodes": [_body(server) for server in servers.found],
        "unreachable": servers.unreachable,
    }
    return json_answer(body)


def _topology(settings: Settings) -> str:
    if settings.redis_url is None:
        return "embedded"
    if settings.redis_cluster:
        return "cluster"
    return "sentinel" if "+sentinel:" in settings.redis_url else "single"


def health_body(health: ServerHealth) -> dict[str, Any]:
    """How a server is, as the API shows it."""
    return {
        "ok": health.persistence_ok,
        "server": health.server,
        "version": health.version,
        "latency_ms": round(health.latency * 1000, 2),
        "memory_used_bytes": health.memory_used,
        "memory_max_bytes": health.memory_max,
        "persistence": health.persistence,
        "persistence_ok": health.persistence_ok,
        "role": health.role,
        "connected_replicas": health.connected_replicas,
    }


def _body(server: Server) -> dict[str, Any]:
    return {
        "address": server.address,
        **health_body(server.health),
        "uptime": server.uptime,
        "connections": server.connections,
        "commands_per_second": server.commands_per_second,
        "keys": server.keys,
        "memory_peak_bytes": server.memory_peak,
        "memory_policy": server.memory_policy,
        "fragmentation": server.fragmentation,
        "last_save": rfc3339(server.last_save * 1000) if server.last_save else None,
        "loading": server.loading,
        "replicas": [
            {"address": follower.address, "state": follower.state, "lag": follower.lag} for follower in server.followers
        ],
    }


ROUTES = (web.get("/redis", show_redis),)
