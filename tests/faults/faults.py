"""The faults: each a plan and what is done while its load runs. ``leases`` of a fault are those of its plan."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conftest import until
from processes import GENEROUS

from .accounts import Accounts, settled
from .failover import followed, just_ended, move_slot, primary_killed, primary_paused, resumed, role, slot_of
from .load import drive
from .run import Plan, Run, ports_of, running
from .target import Call


@dataclass(frozen=True)
class Fault:
    """``do`` applies it; it returns once the fault is over."""

    name: str
    do: Callable[[Run], Awaitable[None]]
    plan: Plan = field(default_factory=Plan)


FAULTS: dict[str, Fault] = {}
# What is the same wherever Redis keeps its data; faults of one kind of Redis say so in their plans.
EVERYWHERE = (
    "gateways_killed_and_terminated",
    "gateway_frozen",
    "gateway_starved",
    "gateway_cut_off",
    "replies_dropped",
    "redis_out_of_memory",
    "redis_disk_full",
    "targets_misbehave",
    "clocks_an_hour_off",
    "few_open_files",
    "poison",
)


def fault(**plan: Any) -> Callable[[Callable[[Run], Awaitable[None]]], Callable[[Run], Awaitable[None]]]:
    """Enter a function into the list, with what its plan has of its own."""

    def enter(do: Callable[[Run], Awaitable[None]]) -> Callable[[Run], Awaitable[None]]:
        FAULTS[do.__name__] = Fault(do.__name__, do, Plan(**plan))
        return do

    return enter


@fault()
async def gateways_killed_and_terminated(run: Run) -> None:
    """SIGKILL at a quarter, SIGTERM at a half, SIGKILL at three quarters; each comes back."""
    await run.until_delivered(0.25)
    await run.kill(0)
    await run.restart(0)
    await run.until_delivered(0.5)
    await run.terminate(1)
    await run.restart(1)
    await run.until_delivered(0.75)
    await run.kill(0)
    await run.restart(0)


@fault()
async def gateway_frozen(run: Run) -> None:
    """SIGSTOP for two leases, then SIGCONT."""
    await run.until_delivered(0.25)
    await run.freeze(0, 2)


@fault()
async def gateway_starved(run: Run) -> None:
    """Too little time for one gateway, again and again, as a throttled container has it: it sleeps through the moment
    to renew, and is back just when its leases end."""
    await run.until_delivered(0.25)
    for _ in range(2):
        await run.freeze(0, 0.9)
        await asyncio.sleep(run.plan.lease / 4)  # the fault itself


@fault(proxied=True)
async def gateway_cut_off(run: Run) -> None:
    """One gateway hears nothing of Redis for two leases; what it had sent arrives late."""
    await run.until_delivered(0.25)
    # More may be claimed by a request that was on its way: such a claim is made, its call is not.
    run.bystanders = set(range(run.plan.gateways)) - {0}
    run.networks[0].hold()
    run.extras_allowed += await run.pending(run.gateways[0])
    await asyncio.sleep(2 * run.plan.lease)  # the fault itself
    run.networks[0].release()


@fault(proxied=True)
async def replies_dropped(run: Run) -> None:
    """Every twentieth reply of Redis to either gateway is lost, and the connection with it."""
    for network in run.networks:
        network.drop(every=20)
    await run.until_delivered(0.9)
    for network in run.networks:
        network.drop(every=0)
    run.notes["replies dropped"] = sum(network.dropped for network in run.networks)


@fault()
async def redis_killed(run: Run) -> None:
    """SIGKILL of Redis, and its restart from the AOF after longer than a lease."""
    await run.until_delivered(0.3)
    run.extras_allowed += await run.pending()
    run.server.kill()
    await asyncio.sleep(1.5 * run.plan.lease)  # the fault itself
    await run.server.start()
    await run.until_delivered(0.6)
    run.extras_allowed += await run.pending()
    run.server.kill()
    await run.server.start()


@fault()
async def redis_paused(run: Run) -> None:
    """Redis answers nothing for longer than a lease, then everything."""
    await run.until_delivered(0.3)
    run.extras_allowed += await run.pending()
    run.server.signal(signal.SIGSTOP)
    await asyncio.sleep(run.pause)  # the fault itself
    run.server.signal(signal.SIGCONT)


@fault()
async def redis_out_of_memory(run: Run) -> None:
    """No room for new tasks: they are refused, what is there is worked off, and with room all goes on."""
    await run.until_delivered(0.3)
    before = len(run.load.unknown)
    await run.memory(1_000_000)
    await until(lambda: len(run.load.unknown) > before + 10, GENEROUS)
    # All that is due is worked off, although memory is full.
    await until(lambda: _worked_off(run), GENEROUS)
    await run.memory(0)


@fault()
async def redis_disk_full(run: Run) -> None:
    """No room for Redis's files: it refuses every write. No call starts meanwhile, and with room all goes on."""
    await run.until_delivered(0.3)
    before = len(run.load.unknown)
    await run.disks(full=True)
    await until(lambda: len(run.load.unknown) > before + 10, GENEROUS)
    run.extras_allowed += await run.pending()
    started = len(run.target.calls)
    await asyncio.sleep(1.5 * run.plan.lease)  # the fault itself
    assert len(run.target.calls) == started
    await run.disks(full=False)


async def _worked_off(run: Run) -> bool:
    async with run.redis() as client:
        return not any([await run.depth(client, name) for name in run.limits])


@fault(clients=3, concurrent=8, per_second=60, tasks=120, patient=0)
async def targets_misbehave(run: Run) -> None:
    """Targets that hang, drip, reset, answer a gigabyte or no HTTP, redirect in a loop, beside one that works."""
    run.kinds = ("ok", "hang", "ok", "drip", "ok", "reset", "ok", "huge", "ok", "garbage", "ok", "loop", "ok")
    await until(lambda: run.load.sent >= run.plan.tasks, GENEROUS * run.plan.scale)
    expected = {m for m in run.load.accepted if run.kinds[m % len(run.kinds)] == "ok"}
    await until(lambda: expected <= run.target.answered, GENEROUS * run.plan.scale)


@fault()
async def clocks_an_hour_off(run: Run) -> None:
    """One gateway's clock is an hour ahead, the other's an hour back."""
    for number, offset in enumerate(("3600", "-3600")):
        await run.terminate(number)
        await run.restart(number, CLOCK_OFFSET=offset)
        async with run.session.get(run.gateways[number].url + "/v1/rate-limit?client_id=metered") as answer:
            run.notes[f"gateway {number}"] = answer.headers.get("Date", "")
    await run.until_delivered(0.9)


@fault(gateways=1, clients=1, concurrent=100, call_ms=500, per_second=150)
async def few_open_files(run: Run) -> None:
    """A process that may have 128 files open, with room for a hundred calls at once."""
    await run.terminate(0)
    run.gateways[0] = await run.launch(0, files=128).ready()
    run.serving = {0}
    await run.until_delivered(0.9)
    assert "max_in_flight_lowered" in run.gateways[0].log()


@fault(tasks=100, per_second=50, patient=8)
async def poison(run: Run) -> None:
    """A task that kills the process that calls it, again and again, is buried with the reason; the others go on, those
    too that were open there each time."""
    marker = -1
    run.dead_expected = 1
    body = {"client_id": "client-0", "task": {"url": f"{run.target.url}/hang/0/{marker}"}}
    status, answer = await run.gateways[0].call("POST", "/v1/enqueue", body)
    assert status == 201, answer
    run.load.accepted[marker] = answer["task_id"], "client-0"
    for deaths in range(1, 4):
        await until(lambda: len(_calls_of(run, marker)) == deaths, GENEROUS)  # noqa: B023 - awaited within the turn
        port = _calls_of(run, marker)[-1].port
        killer = next(n for n, gateway in enumerate(run.gateways) if port in ports_of(gateway.process.pid))
        await run.kill(killer)
        await run.restart(killer)
    where = f"/v1/tasks/{answer['task_id']}?client_id=client-0"

    async def buried() -> bool:
        view = (await run.gateways[0].call("GET", where))[1]
        return (view["state"], view["reason"]) == ("dead", "no outcome after 3 deliveries")

    await until(buried, GENEROUS)
    assert len(_calls_of(run, marker)) == 3


_DURABLE = {"DURABILITY": "wait", "DURABILITY_TIMEOUT": "0.5"}


@fault(topology="sentinel", settings=_DURABLE)
async def sentinel_failover(run: Run) -> None:
    """SIGKILL of the primary that the Sentinels watch; they promote a replica."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    await primary_killed(run, old, lambda: followed(run, old))
    await run.until_delivered(0.8)


@fault(topology="sentinel", settings=_DURABLE)
async def sentinel_primary_paused(run: Run) -> None:
    """The primary answers nothing until long after another has taken over, then everything, as if nothing had been."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    await primary_paused(run, old, lambda: followed(run, old), others=True)
    await run.until_delivered(0.8)


@fault(topology="sentinel", settings=_DURABLE)
async def sentinel_disk_full(run: Run) -> None:
    """No room for the primary's files: it refuses every write, a Sentinel's PING too, and another takes over."""
    await run.until_delivered(0.3)
    old = run.sentinels.primary()
    run.extras_allowed += await run.pending() + just_ended(run)
    await run.disks(full=True)
    await until(lambda: followed(run, old), GENEROUS)
    await resumed(run)
    await run.disks(full=False)
    if not old.running:  # a replica that can't write ends
        await asyncio.to_thread(old.start)
    await run.until_delivered(0.8)


@fault(topology="sentinel", settings=_DURABLE)
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
    await until(lambda: followed(run, old), GENEROUS)
    await asyncio.to_thread(old.start)
    await run.until_delivered(0.8)


@fault(topology="cluster", settings=_DURABLE)
async def cluster_failover(run: Run) -> None:
    """SIGKILL of the primary of some clients' partitions; its replica takes over."""
    await run.until_delivered(0.3)
    old = run.cluster.owner(slot_of(run))
    replica = run.cluster.nodes[run.cluster.nodes.index(old) + 3]
    await primary_killed(run, old, lambda: role(replica) == "master", back=True)
    await run.until_delivered(0.8)


@fault(topology="cluster", settings=_DURABLE)
async def cluster_primary_paused(run: Run) -> None:
    """A primary answers nothing until long after its replica has taken over, then everything."""
    await run.until_delivered(0.3)
    old = run.cluster.owner(slot_of(run))
    replica = run.cluster.nodes[run.cluster.nodes.index(old) + 3]
    await primary_paused(run, old, lambda: role(replica) == "master")
    await run.until_delivered(0.8)


@fault(topology="cluster")
async def cluster_resharded(run: Run) -> None:
    """A slot moves to another primary key by key and back, while the clients in it are served."""
    slot = slot_of(run)
    for share in (0.3, 0.6):
        await run.until_delivered(share)
        source = run.cluster.owner(slot)
        to = next(node for node in run.cluster.nodes[:3] if node is not source)
        run.notes["keys moved"] = run.notes.get("keys moved", 0) + await asyncio.to_thread(
            move_slot, run, slot, source, to
        )
    await run.until_delivered(0.9)


def _calls_of(run: Run, marker: int) -> list[Call]:
    return [call for call in run.target.calls if call.marker == marker]


def over_topologies() -> list[tuple[str, str]]:
    """Each fault with each topology it applies to."""
    own = [(name, one.plan.topology) for name, one in FAULTS.items()]
    elsewhere = [(name, topology) for topology in ("cluster", "sentinel") for name in EVERYWHERE]
    # Sentinels promote another instead of a primary whose disk is full: `sentinel_disk_full`.
    return own + [each for each in elsewhere if each != ("redis_disk_full", "sentinel")]


async def suffer(one: Fault, folder: Path, scale: float = 1, **plan: Any) -> Accounts:
    """A whole run with this fault; its accounts."""
    async with running(folder, replace(one.plan, scale=scale, **plan)) as run:
        await drive(run, _as_coroutine(one, run))
        return await settled(run)


async def _as_coroutine(one: Fault, run: Run) -> None:
    await one.do(run)
