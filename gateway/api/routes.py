"""The routes of the clients' API, each with its chain."""

from aiohttp import web

from gateway.api import tasks
from gateway.api.batch import batch
from gateway.api.decoding import Decoding
from gateway.api.enqueue import enqueue
from gateway.api.explain import explain
from gateway.api.rate_limit import rate_limit
from gateway.api.task_rules import Rules
from gateway.middleware.chains import OWN, enqueue_chain, wrapped
from gateway.settings import Settings


def client_routes(settings: Settings) -> list[web.RouteDef]:
    """Everything below `/v1`."""
    decoding = Decoding(Rules(settings))
    return [
        web.post("/v1/enqueue", wrapped(enqueue, enqueue_chain(decoding.enqueue))),
        web.post("/v1/enqueue/batch", wrapped(batch, enqueue_chain(decoding.batch, batch=True))),
        web.get("/v1/tasks/{task_id}", wrapped(tasks.show, OWN)),
        web.delete("/v1/tasks/{task_id}", wrapped(tasks.cancel, OWN)),
        web.get("/v1/tasks/{task_id}/explain", wrapped(explain, OWN)),
        web.get("/v1/rate-limit", wrapped(rate_limit, OWN)),
    ]
