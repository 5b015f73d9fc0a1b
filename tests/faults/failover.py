"""The faults of several servers: primaries that die, primaries that hand over, slots that move."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import redis
from conftest import until
from processes import GENEROUS
from redis.crc import key_slot
from redis_servers import Server

from .catalogue import Faults
from .run import Run

RESUME_SECONDS = 10.0  # from the promotion until writes are taken again: what is promised
# What a primary had answered this shortly before it died may not have reached its replica: the ends of these calls.
_UNREPLICATED = 0.2
_CLIENT = "client-0"
FAILOVERS = Faults()
_DURABLE = {"DURABILITY": "wait", "DURABILITY_TIMEOUT": "0.5"}


@FAILOVERS.enter(topology="sentinel", settings=_DURABLE)
async def sentinel_failover(run: Run) -> None:
    """SIGKILL of the primary that the Sentinels watch; they promote a replica."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    await _primary_killed(run, old, lambda: _followed(run, old))
    await run.until_delivered(0.8)


@FAILOVERS.enter(topology="sentinel", settings=_DURABLE)
async def sentinel_primary_paused(run: Run) -> None:
    """The primary answers nothing until long after another has taken over, then everything, as if nothing had been."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    await _primary_paused(run, old, lambda: _followed(run, old), others=True)
    await run.until_delivered(0.8)


@FAILOVERS.enter(topology="sentinel", settings=_DURABLE)
async def sentinel_disk_full(run: Run) -> None:
    """No room for the primary's files: it refuses every write, a Sentinel's PING too, and another takes over."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    run.extras_allowed += await run.pending() + _just_ended(run)
    await run.disks(full=True)
    await until(lambda: _followed(run, old), GENEROUS)
    await _resumed(run)
    await run.disks(full=False)
    if not old.running:  # a replica that can't write ends
        await asyncio.to_thread(old.start)
    await run.until_delivered(0.8)


@FAILOVERS.enter(topology="sentinel", settings=_DURABLE)
async def replicas_behind(run: Run) -> None:
    """The primary goes on alone for a while, its replicas frozen, and dies: one that knows nothing of it takes over."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    others = [server for server in run.sentinels.servers if server is not old]
    for replica in others:
        replica.signal(signal.SIGSTOP)
    run.extras_allowed += await run.pending()
    await asyncio.sleep(1.5 * run.plan.lease)  # the fault itself
    old.kill()
    for replica in others:
        replica.signal(signal.SIGCONT)
    await until(lambda: _followed(run, old), GENEROUS)
    await asyncio.to_thread(old.start)
    await run.until_delivered(0.8)


@FAILOVERS.enter(topology="cluster", settings=_DURABLE)
async def cluster_failover(run: Run) -> None:
    """SIGKILL of the primary of some clients' partitions; its replica takes over."""
    await run.until_delivered(0.3)
    old = run.cluster.owner(_slot_of(run))
    replica = run.cluster.nodes[run.cluster.nodes.index(old) + 3]
    await _primary_killed(run, old, lambda: _role(replica) == "master", back=True)
    await run.until_delivered(0.8)


@FAILOVERS.enter(topology="cluster", settings=_DURABLE)
async def cluster_primary_paused(run: Run) -> None:
    """A primary answers nothing until long after its replica has taken over, then everything."""
    await run.until_delivered(0.3)
    old = run.cluster.owner(_slot_of(run))
    replica = run.cluster.nodes[run.cluster.nodes.index(old) + 3]
    await _primary_paused(run, old, lambda: _role(replica) == "master")
    await run.until_delivered(0.8)


@FAILOVERS.enter(topology="cluster")
async def cluster_resharded(run: Run) -> None:
    """A slot moves to another primary key by key and back, while the clients in it are served."""
    slot = _slot_of(run)
    for share in (0.3, 0.6):
        await run.until_delivered(share)
        source = run.cluster.owner(slot)
        to = next(node for node in run.cluster.nodes[:3] if node is not source)
        run.notes["keys moved"] = run.notes.get("keys moved", 0) + await asyncio.to_thread(
            _move_slot, run, slot, source, to
        )
    await run.until_delivered(0.9)


async def _primary_killed(run: Run, primary: Server, promoted: Callable[[], bool], *, back: bool = False) -> None:
    """SIGKILL of a primary; from the promotion of its replica on, writes are taken again. ``back``: it comes back
    meanwhile, where nobody else is left who could confirm them."""
    run.extras_allowed += await run.pending() + _just_ended(run)
    primary.kill()
    await until(promoted, GENEROUS)
    if back:
        await asyncio.to_thread(primary.start)
    await _resumed(run)
    if not back:
        await asyncio.to_thread(primary.start)


async def _primary_paused(run: Run, primary: Server, promoted: Callable[[], bool], *, others: bool = False) -> None:
    """SIGSTOP of a primary, and SIGCONT once its replica has taken over and more than a lease has gone by: it knows
    nothing of that yet, and carries out what had reached its sockets. ``others``: the new one has a replica left, and
    need not wait for this one."""
    run.extras_allowed += await run.pending() + _just_ended(run)
    primary.signal(signal.SIGSTOP)
    ends = time.monotonic() + run.pause
    await until(promoted, GENEROUS)
    if others:
        await _resumed(run)
    await asyncio.sleep(ends - time.monotonic())  # the fault itself
    primary.signal(signal.SIGCONT)
    if not others:
        await _resumed(run)


async def _resumed(run: Run) -> None:
    """Wait until writes are taken again, as soon after a promotion as is promised."""
    since = time.monotonic()
    await until(lambda: _accepted(run), GENEROUS)
    run.notes["seconds from promotion to a 201"] = took = round(time.monotonic() - since, 1)
    assert took <= RESUME_SECONDS, took


def _followed(run: Run, old: Server) -> bool:
    """Whether the Sentinels have another primary than this one, and it knows."""
    new = run.sentinels.primary()
    return new is not old and _role(new) == "master"


def _just_ended(run: Run) -> int:
    """Calls whose ends the replicas may not know of."""
    return sum(call.end is not None and call.end > time.time() - _UNREPLICATED for call in run.target.calls)


async def _accepted(run: Run) -> bool:
    """Whether a task of the client that had its home there is accepted: one for later, which no account counts.
    By its key it is one, however often a 503 leaves open whether it was stored."""
    body = {"client_id": _CLIENT, "delay": 3600, "idempotency_key": "probe", "task": {"url": run.target.url}}
    status, answer = await run.gateways[0].call("POST", "/v1/enqueue", body)
    if status not in (200, 201):
        return False
    where = f"/v1/tasks/{answer['task_id']}?client_id={_CLIENT}"

    async def cancelled() -> bool:
        return await run.gateways[0].call("DELETE", where) and (await _state(run, where)) == "cancelled"

    await until(cancelled, GENEROUS)
    return True


async def _state(run: Run, where: str) -> Any:
    answer = (await run.gateways[0].call("GET", where))[1]
    return answer.get("state") if isinstance(answer, dict) else None


def _slot_of(run: Run) -> int:
    """The slot that all keys of one client of the load are in."""
    return key_slot(run.key("", _CLIENT).encode())


def _role(server: Server) -> str:
    """What the server says it is; nothing where it does not answer."""
    with contextlib.suppress(redis.RedisError, OSError), server.client() as client:
        return str(client.role()[0])
    return ""


def _move_slot(run: Run, slot: int, source: Server, to: Server) -> int:
    """Move a slot key by key, as every Redis since 3.0 does it; returns how many keys went."""
    moved = 0
    with source.client() as old, to.client() as new:
        old_id, new_id = old.execute_command("CLUSTER MYID"), new.execute_command("CLUSTER MYID")
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            old.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        for node in (to, source, *run.cluster.nodes):
            with contextlib.suppress(redis.RedisError), node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)
    return moved
