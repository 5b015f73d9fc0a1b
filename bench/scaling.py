"""The scenarios of the gateway alone: E many clients and a long backlog, F idle, G several workers."""

import contextlib
import time
from collections.abc import Callable

from bench import contestants, payload
from bench.contestants import GATEWAY, Command
from bench.load import bodies_file, fill, spread, wrk
from bench.processes import free_port
from bench.scenarios import CONNECTIONS, ENQUEUE, Extent, Figures, Spent, drained, running
from bench.target import Target
from bench.valkey import valkey

ACTIVE = 1000
_SETTLE_SECONDS = 3.0
_DRAIN_SECONDS = 4.0


def whole_task(
    target: Target,
    extent: Extent,
    *,
    known: int,
    backlog: int = 0,
    workers: int = 1,
    command: Callable[..., Command] = contestants.gateway,
) -> Figures:
    """CPU seconds for taking in a thousand tasks and for dispatching a thousand, Valkey included."""
    clients = spread(known, min(known, ACTIVE))
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(valkey(known))
        file = stack.enter_context(bodies_file(payload.single(client, payload.task(target.url)) for client in clients))
        port = free_port()
        taking = command(redis.url, port, target.url, role="api", workers=workers)
        with running(GATEWAY, taking, port) as server:
            if backlog:
                fill(port, clients, target.url, backlog)
            url = f"http://127.0.0.1:{port}{ENQUEUE}"
            wrk(url, file, CONNECTIONS, 1)
            before = Spent.now(server, redis)
            load = wrk(url, file, CONNECTIONS, extent.enqueue_seconds)
            taken = Spent.now(server, redis).per_thousand(before, load.requests)
        target.ask("reset")
        calling = command(redis.url, free_port(), target.url, role="dispatcher", workers=workers)
        with running(GATEWAY, calling) as dispatcher:
            # All of them measure the same number of tasks, of which the first 5 % are the warming up.
            sent = drained(dispatcher, redis, target, round(load.requests * 0.8), _DRAIN_SECONDS)
    return {
        "enqueue": sum(taken),
        "dispatch": sent["dispatch_cpu"] + sent["dispatch_redis_cpu"],
        "enqueue_rate": load.rate,
        "dispatch_rate": sent["dispatch_rate"],
    }


def _cost(figures: Figures, label: str) -> Figures:
    return {f"{label}_cpu": figures["enqueue"] + figures["dispatch"]}


def clients(target: Target, extent: Extent, known: int) -> Figures:
    """E: so many known clients, up to 1,000 of them active."""
    return _cost(whole_task(target, extent, known=known), f"known_{known}")


def backlog(target: Target, extent: Extent) -> Figures:
    """E: a long queue before the first measured task."""
    return _cost(whole_task(target, extent, known=ACTIVE, backlog=extent.backlog), "backlog")


def workers(target: Target, extent: Extent, number: int) -> Figures:
    """G: so many processes on one port."""
    seen = whole_task(target, extent, known=100, workers=number)
    rates = {
        f"workers_{number}_enqueue_rate": seen["enqueue_rate"],
        f"workers_{number}_dispatch_rate": seen["dispatch_rate"],
    }
    return _cost(seen, f"workers_{number}") | rates


def idle(target: Target, extent: Extent) -> Figures:
    """F: nothing to do, with as many known clients as E's most; CPU as a share of one core, resident MB."""
    with valkey(max(extent.known)) as redis:
        port = free_port()
        with running(GATEWAY, contestants.gateway(redis.url, port, target.url), port) as process:
            time.sleep(_SETTLE_SECONDS)
            before = Spent.now(process, redis)
            time.sleep(extent.idle_seconds)
            spent = Spent.now(process, redis)
            return {
                "idle_cpu": (spent.own - before.own) / extent.idle_seconds,
                "idle_redis_cpu": (spent.redis - before.redis) / extent.idle_seconds,
                "idle_mb": process.rss() / 1e6,
            }
