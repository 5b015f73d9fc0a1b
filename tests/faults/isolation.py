"""One client's backlog at a hanging target beside another's task a second: what the second one waits."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import until
from processes import GENEROUS

from .run import Plan, Run, running

QUIET = "quiet"


@dataclass
class Waits:
    """Seconds from sending a request to the start of its call, by the target's clock, sorted."""

    seconds: list[float]

    def p(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * share))]


async def fill(run: Run, names: list[str], limit: int, count: int) -> None:
    """So many tasks at a hanging target for each of these clients, all queued, as many open as may be."""
    for name in names:
        fields = {"client_id": name, "rate_limit": {"max_concurrent": limit, "requests_per_min": 10_000_000}}
        assert (await run.gateways[0].call("PUT", "/admin/clients/set", fields))[0] == 200
        run.limits[name] = limit
        task = {"task": {"url": f"{run.target.url}/hang/0/-1"}}
        for start in range(0, count, 500):
            body = {"client_id": name, "tasks": [task] * min(500, count - start)}
            assert (await run.gateways[0].call("POST", "/v1/enqueue/batch", body))[0] == 201


async def ask(run: Run, samples: int, interval: float) -> Waits:
    """A task every ``interval`` of the quiet client; returns once each has been answered."""
    first = run.load.sent
    sent: dict[int, float] = {}
    begin = time.monotonic()
    for number in range(samples):
        await asyncio.sleep(max(0.0, begin + number * interval - time.monotonic()))
        marker = first + number
        sent[marker] = time.time()
        body = {"client_id": QUIET, "task": {"url": f"{run.target.url}/ok/0/{marker}"}}
        status, answer = await run.gateways[0].call("POST", "/v1/enqueue", body)
        assert status == 201, answer
    run.load.sent += samples
    await until(lambda: sent.keys() <= run.target.answered, GENEROUS)
    return Waits(sorted(call.start - sent[call.marker] for call in run.target.calls if call.marker in sent))


async def beside(
    folder: Path, *, backlog: int, samples: int, interval: float, at_cap: bool, in_flight: int = 200
) -> tuple[Waits, Waits]:
    """What the quiet client waits alone, then beside one deep backlog or beside five clients that fill the process."""
    # A lease far longer than the run's pauses: nothing here is about leases.
    plan = Plan(gateways=1, clients=0, lease=30, settings={"MAX_IN_FLIGHT": str(in_flight)})
    async with running(folder, plan) as run:
        quiet = {"client_id": QUIET, "rate_limit": {"max_concurrent": 5, "requests_per_min": 100_000}}
        assert (await run.gateways[0].call("PUT", "/admin/clients/set", quiet))[0] == 200
        await ask(run, 10, 0.01)  # connections, caches, the interpreter
        alone = await ask(run, samples, interval)
        names = [f"stuck-{number}" for number in range(5 if at_cap else 1)]
        limit = in_flight if at_cap else in_flight // 4
        await fill(run, names, limit, backlog // len(names))
        filled = in_flight - in_flight // 10 if at_cap else limit
        await until(lambda: run.target.open >= filled, GENEROUS)
        crowded = await ask(run, samples, interval)
        # All the while the others' calls hung: room was never made for the quiet one by their ending.
        assert run.target.open >= filled
        return alone, crowded
