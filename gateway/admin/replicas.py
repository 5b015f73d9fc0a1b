"""`/admin/replicas`: the processes on this Redis."""

from typing import Any

from aiohttp import web

from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, rfc3339
from gateway.store.replicas import Replica


async def list_replicas(request: web.Request) -> web.StreamResponse:
    """200 with those that were seen within three of their beats."""
    replicas = await request.app[AppKeys.STORE].replicas.all()
    return json_answer({"replicas": [replica_body(replica) for replica in replicas]})


def replica_body(replica: Replica) -> dict[str, Any]:
    """A process as the API shows it."""
    return {
        "name": replica.name,
        "version": replica.version,
        "role": replica.role,
        "started_at": rfc3339(replica.started_at),
        "uptime": max(0, replica.seen_at - replica.started_at) // 1000,
        "seen_at": rfc3339(replica.seen_at),
        "in_flight": replica.in_flight,
        "max_in_flight": replica.max_in_flight,
        "lanes": replica.lanes,
    }


ROUTES = (web.get("/replicas", list_replicas),)
