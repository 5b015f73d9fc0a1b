"""The load of a run: what is asked for, by whom, and how fast."""

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any

from conftest import until
from processes import GENEROUS

from .run import METERED, PATIENT, Run


async def drive(run: Run, fault: Coroutine[Any, Any, None]) -> None:
    """Load while the fault happens, to its end."""
    asking = _Asking(run)
    async with asyncio.TaskGroup() as group:
        offers = [group.create_task(asking.offer()) for _ in range(8)]
        await fault
        await until(lambda: run.load.sent >= run.plan.tasks, GENEROUS * run.plan.scale)
        asking.ended = True
        await asyncio.gather(*offers)


class _Asking:
    """Asks whichever gateway serves, each client at random but always the same way."""

    def __init__(self, run: Run) -> None:
        self.ended = False
        self._run = run
        self._plan = run.plan
        self._load = run.load
        self._random = random.Random(1)
        self._patient_left = run.plan.patient

    async def offer(self) -> None:
        """One of those who ask, until told that it has ended."""
        plan, load = self._plan, self._load
        began, first = time.monotonic(), load.sent
        while not self.ended:
            ahead = (load.sent - first) / plan.per_second - (time.monotonic() - began)
            if ahead > 0 or not self._run.serving:
                await asyncio.sleep(max(ahead, 0.01))
                continue
            markers = range(load.sent, load.sent + plan.batch)
            load.sent += plan.batch
            await self._enqueue(self._next_client(), markers)

    def _next_client(self) -> str:
        if self._patient_left > 0 and self._random.random() < 0.2:
            self._patient_left -= self._plan.batch
            return PATIENT
        if self._random.random() < 0.1 / self._plan.batch:
            return METERED
        return f"client-{self._random.randrange(self._plan.clients)}"

    async def _enqueue(self, client: str, markers: range) -> None:
        call_ms = int(1250 * self._plan.lease) if client == PATIENT else self._plan.call_ms
        bodies = [self._body(marker, call_ms) for marker in markers]
        gateway = self._run.gateways[self._random.choice(sorted(self._run.serving))]
        if self._plan.batch == 1:
            path, body = "/v1/enqueue", {"client_id": client, **bodies[0]}
        else:
            path, body = "/v1/enqueue/batch", {"client_id": client, "tasks": bodies}
        status, answer = await gateway.call("POST", path, body)
        items = [(status, answer)] * len(markers)
        if self._plan.batch > 1 and status in (201, 207):
            items = [(item["status"], item) for item in answer["results"]]
        for marker, (item_status, item) in zip(markers, items, strict=True):
            self._load.answered(marker, client, item_status, item)

    def _body(self, marker: int, call_ms: int) -> dict[str, Any]:
        kind = self._run.kinds[marker % len(self._run.kinds)]
        body: dict[str, Any] = {"task": {"url": f"{self._run.target.url}/{kind}/{call_ms}/{marker}"}}
        if marker % 10 == 9:
            body["delay"] = 0.5
            self._load.not_before[marker] = time.time() + 0.5
        if kind != "ok":
            body |= {"timeout": 1, "max_retry": 1}
        return body
