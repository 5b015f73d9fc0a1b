"""The faults of gateways, targets and one Redis; those of several servers are in `failover`. ``leases`` of a fault are
those of its plan."""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from conftest import until
from processes import GENEROUS

from .accounts import Accounts, settled
from .catalogue import Fault, Faults
from .failover import FAILOVERS
from .load import drive
from .run import Run, ports_of, running
from .target import Call

_FAULTS = Faults()
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


@_FAULTS.enter()
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


@_FAULTS.enter()
async def gateway_frozen(run: Run) -> None:
    """SIGSTOP for two leases, then SIGCONT."""
    await run.until_delivered(0.25)
    await run.freeze(0, 2)


@_FAULTS.enter()
async def gateway_starved(run: Run) -> None:
    """Too little time for one gateway, again and again, as a throttled container has it: it sleeps through the moment
    to renew, and is back just when its leases end."""
    await run.until_delivered(0.25)
    for _ in range(2):
        await run.freeze(0, 0.9)
        await asyncio.sleep(run.plan.lease / 4)  # the fault itself


@_FAULTS.enter(proxied=True)
async def gateway_cut_off(run: Run) -> None:
    """One gateway hears nothing of Redis for two leases; what it had sent arrives late."""
    await run.until_delivered(0.25)
    # More may be claimed by a request that was on its way: such a claim is made, its call is not.
    run.bystanders = set(range(run.plan.gateways)) - {0}
    run.networks[0].hold()
    run.extras_allowed += await run.pending(run.gateways[0])
    await asyncio.sleep(2 * run.plan.lease)  # the fault itself
    run.networks[0].release()


@_FAULTS.enter(proxied=True)
async def replies_dropped(run: Run) -> None:
    """Every twentieth reply of Redis to either gateway is lost, and the connection with it."""
    for network in run.networks:
        network.drop(every=20)
    await run.until_delivered(0.9)
    for network in run.networks:
        network.drop(every=0)
    run.notes["replies dropped"] = sum(network.dropped for network in run.networks)


@_FAULTS.enter()
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


@_FAULTS.enter()
async def redis_paused(run: Run) -> None:
    """Redis answers nothing for longer than a lease, then everything."""
    await run.until_delivered(0.3)
    run.extras_allowed += await run.pending()
    run.server.signal(signal.SIGSTOP)
    await asyncio.sleep(run.pause)  # the fault itself
    run.server.signal(signal.SIGCONT)


@_FAULTS.enter()
async def redis_out_of_memory(run: Run) -> None:
    """No room for new tasks: they are refused, what is there is worked off, and with room all goes on."""
    await run.until_delivered(0.3)
    before = len(run.load.unknown)
    await run.memory(1_000_000)
    await until(lambda: len(run.load.unknown) > before + 10, GENEROUS)
    # All that is due is worked off, although memory is full.
    await until(lambda: _worked_off(run), GENEROUS)
    await run.memory(0)


@_FAULTS.enter()
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


@_FAULTS.enter(clients=3, concurrent=8, per_second=60, tasks=120, patient=0)
async def targets_misbehave(run: Run) -> None:
    """Targets that hang, drip, reset, answer a gigabyte or no HTTP, redirect in a loop, beside one that works."""
    run.kinds = ("ok", "hang", "ok", "drip", "ok", "reset", "ok", "huge", "ok", "garbage", "ok", "loop", "ok")
    await until(lambda: run.load.sent >= run.plan.tasks, GENEROUS * run.plan.scale)
    expected = {m for m in run.load.accepted if run.kinds[m % len(run.kinds)] == "ok"}
    await until(lambda: expected <= run.target.answered, GENEROUS * run.plan.scale)


@_FAULTS.enter()
async def clocks_an_hour_off(run: Run) -> None:
    """One gateway's clock is an hour ahead, the other's an hour back."""
    for number, offset in enumerate(("3600", "-3600")):
        await run.terminate(number)
        await run.restart(number, CLOCK_OFFSET=offset)
        async with run.session.get(run.gateways[number].url + "/v1/rate-limit?client_id=metered") as answer:
            run.notes[f"gateway {number}"] = answer.headers.get("Date", "")
    await run.until_delivered(0.9)


@_FAULTS.enter(gateways=1, clients=1, concurrent=100, call_ms=500, per_second=150)
async def few_open_files(run: Run) -> None:
    """A process that may have 128 files open, with room for a hundred calls at once."""
    await run.terminate(0)
    run.gateways[0] = await run.launch(0, files=128).ready()
    run.serving = {0}
    await run.until_delivered(0.9)
    assert "max_in_flight_lowered" in run.gateways[0].log()


@_FAULTS.enter(tasks=100, per_second=50, patient=8)
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


def _calls_of(run: Run, marker: int) -> list[Call]:
    return [call for call in run.target.calls if call.marker == marker]


FAULTS: dict[str, Fault] = {**_FAULTS, **FAILOVERS}


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
