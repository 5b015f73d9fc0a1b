"""`/admin/replicas`: the processes on this Redis."""

from aiohttp import web

from gateway.keys import AppKeys
from gateway.middleware.answers import json_answer, rfc3339


async def list_replicas(request: web.Request) -> web.StreamResponse:
    """200 with those that were seen within three of their beats."""
    replicas = await request.app[AppKeys.STORE].replicas.all()
    body = [
        {
            "name": replica.name,
            "version": replica.version,
            "role": replica.role,
            "started_at": rfc3339(replica.started_at),
            "seen_at": rfc3339(replica.seen_at),
            "in_flight": replica.in_flight,
            "max_in_flight": replica.max_in_flight,
        }
        for replica in replicas
    ]
    return json_answer({"replicas": body})


ROUTES = (web.get("/replicas", list_replicas),)
