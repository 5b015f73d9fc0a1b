"""Settling a run: waits until nothing moves, then holds what was accepted against what was delivered."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from conftest import until
from processes import GENEROUS
from redis.exceptions import RedisError

from gateway.errors import StoreUnavailable
from gateway.store.stored import Record

from .run import METERED, METERED_LIMIT, Run
from .target import Call, most_open, seconds_over

_decode = msgspec.msgpack.Decoder(Record).decode


@dataclass
class Accounts:
    """What came of a run; `problems` says what does not hold."""

    accepted: int = 0
    delivered: int = 0
    dead: int = 0
    lost: list[str] = field(default_factory=list)  # the first of them
    lost_count: int = 0
    early: int = 0
    dead_expected: int | None = None
    extras: int = 0
    extras_allowed: int = 0
    starved: int = 0  # of the extras: those that gateways lost to which nothing was done
    unknown: int = 0
    unknown_made: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    most_open: dict[str, int] = field(default_factory=dict)
    over_limit: list[str] = field(default_factory=list)
    exempt: int = 0
    most_in_a_window: int = 0
    left: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> list[str]:
        found = [f"lost: {entry}" for entry in self.lost] + self.over_limit + self.errors
        if self.delivered + self.dead != self.accepted:
            found.append(f"accepted {self.accepted}, delivered {self.delivered}, dead {self.dead}")
        if self.dead_expected not in (None, self.dead):
            found.append(f"{self.dead} are dead, {self.dead_expected} should be")
        if self.early:
            found.append(f"{self.early} started before their time")
        if self.extras - self.starved > self.extras_allowed:
            found.append(
                f"{self.extras} calls were repeated, {self.extras_allowed} were cut down, {self.starved} were starved"
            )
        if self.most_in_a_window > METERED_LIMIT:
            found.append(f"{self.most_in_a_window} admitted within 60 s, {METERED_LIMIT} allowed")
        found += [f"{what} left: {count}" for what, count in self.left.items() if count]
        return found


async def settle(run: Run) -> Accounts:
    """Wait until all is still, then count."""
    left: dict[str, float] = {}

    async def still() -> bool:
        left.clear()
        try:
            left.update(await _left(run))
        except (RedisError, OSError):  # some of it is not back yet
            left["Redis"] = 1
        return not any(left.values())

    with contextlib.suppress(AssertionError):  # what is left is in the accounts
        await until(still, GENEROUS * run.plan.scale)
    accounts = Accounts(left=left, extras_allowed=run.extras_allowed, notes=run.notes)
    accounts.dead_expected = run.dead_expected
    accounts.refused = run.load.refused
    accounts.errors = sorted(run.load.errors) + await _violations(run)
    await _count_tasks(run, accounts)
    _count_open(run, accounts)
    accounts.seconds = round(time.time() - run.started, 1)
    return accounts


async def _left(run: Run) -> dict[str, float]:
    found: dict[str, float] = {"pending": await run.pending(), "open calls": run.target.open}
    async with run.redis() as client:
        for name in run.limits:
            found["scheduled"] = found.get("scheduled", 0) + await client.zcard(run.key(f"scheduled:{name}", name))
            found["returned"] = found.get("returned", 0) + await client.zcard(run.key(f"returned:{name}", name))
            found["waiting"] = found.get("waiting", 0) + await run.depth(client, name)
        for key in await client.keys("stream:*"):
            found["entries"] = found.get("entries", 0) + await client.xlen(key)
    for gateway in run.gateways:
        if gateway.process.poll() is None:
            page = str((await gateway.call("GET", "/metrics"))[1])
            values = [line.split()[1] for line in page.splitlines() if line.startswith("gateway_in_flight ")]
            found["lanes"] = found.get("lanes", 0) + (float(values[0]) if values else 1)
    return found


async def _violations(run: Run) -> list[str]:
    """What the gateways' audits found meanwhile, those of killed ones included, and what an audit of all finds now."""
    told = [
        line
        for log in sorted(run.folder.glob("gateway-*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if "invariant_violated" in line
    ]
    with contextlib.suppress(StoreUnavailable):  # then what is left says so
        async with run.store() as store:
            async for client, found in store.audit.everything(mend=False):
                told += [f"{client}: {each.kind}: {each.detail}" for each in found]
    return told


async def _count_tasks(run: Run, accounts: Accounts) -> None:
    records = await _records(run)
    calls: dict[str, list[Call]] = {}
    for call in run.target.calls:
        calls.setdefault(call.task_id, []).append(call)
    for marker, (task_id, client) in run.load.accepted.items():
        accounts.accepted += 1
        record = records.get(task_id)
        answered = any(call.answered for call in calls.get(task_id, ()))
        if record is not None and record.state == "S" and answered:
            accounts.delivered += 1
        elif record is not None and record.state == "D":
            accounts.dead += 1
        else:
            accounts.lost_count += 1
            state = "gone" if record is None else record.state
            if accounts.lost_count <= 10:
                accounts.lost.append(f"{client} {marker} {task_id} is {state}, answered: {answered}")
    made = {call.marker for call in run.target.calls}
    accounts.unknown = len(run.load.unknown)
    accounts.unknown_made = len(run.load.unknown & made)
    given_up = _given_up(run)
    for task_id, its_calls in calls.items():
        record = records.get(task_id)
        outcomes = 0 if record is None else record.attempts
        extras = max(0, len(its_calls) - outcomes)
        accounts.extras += extras
        accounts.starved += extras if task_id in given_up else 0
        due = run.load.not_before.get(its_calls[0].marker, 0)
        accounts.early += min(call.start for call in its_calls) < due
    # Redis has stamped each admission, also those whose answer got lost.
    admitted = sorted(record.created / 1000 for record in records.values() if record.client == METERED)
    accounts.most_in_a_window = max((sum(at <= other < at + 60 for other in admitted) for at in admitted), default=0)


def _given_up(run: Run) -> set[str]:
    """Tasks whose claims a gateway lost to which nothing was done, as it says itself: on a machine that gives it too
    little time it can't renew, and ends its calls before others repeat them."""
    logs = [run.folder / f"gateway-{number}.log" for number in run.bystanders]
    lines = (line for log in logs for line in log.read_text(errors="replace").splitlines())
    lost = ('"lease_lost"', '"task_not_owned"')
    return {
        str(json.loads(line)["task"]) for line in lines if line.startswith("{") and any(map(line.__contains__, lost))
    }


async def _records(run: Run) -> dict[str, Record]:
    found: dict[str, Record] = {}
    async with run.redis() as client:
        keys = await client.keys("task:*")
        for start in range(0, len(keys), 500):
            chunk = keys[start : start + 500]
            for key, packed in zip(chunk, await client.mget(chunk), strict=True):
                if packed is not None:
                    found[key.decode().removeprefix("task:").partition("{")[0]] = _decode(packed)
    return found


def _count_open(run: Run, accounts: Accounts) -> None:
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in run.limits}
    for call in run.target.calls:
        end = call.end or time.time()
        for frozen in run.frozen:
            if call.port in frozen.ports and call.start < frozen.resumed + 1 and end > frozen.lapsed:
                end = max(call.start, frozen.lapsed)
                accounts.exempt += 1
        spans[call.client].append((call.start, end))
    for name, limit in run.limits.items():
        accounts.most_open[name] = most_open(spans[name])
        if accounts.most_open[name] > limit:
            most, seconds = accounts.most_open[name], seconds_over(spans[name], limit)
            accounts.over_limit.append(
                f"{name}: {most} calls open at once, {limit} allowed, for {seconds:.6f} s in all"
            )


async def settled(run: Run) -> Accounts:
    """`settle`, not forever: a process that hangs must not hang the accounts."""
    return await asyncio.wait_for(settle(run), 3 * GENEROUS * run.plan.scale)
