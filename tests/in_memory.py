"""A dispatcher over a store that is a few dictionaries, and a sender that holds its calls until told."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence

import msgspec

from gateway.dispatch.dispatcher import Dispatcher
from gateway.errors import StoreUnavailable
from gateway.models import Attempt, ClaimedTask, Outcome, Verdict


class Claimed(msgspec.Struct, frozen=True):
    tasks: list[ClaimedTask]
    limit: int
    more: bool
    in_flight: int


class Finished(msgspec.Struct, frozen=True):
    owned: bool
    claimed: Claimed | None


class Memory:
    """Claims kept in dictionaries: what waits, what is held, what ended."""

    def __init__(self, waiting: dict[str, int], limit: int = 100) -> None:
        self.limit = limit
        self.waiting = {client: deque(make(client, n) for n in range(count)) for client, count in waiting.items()}
        self.held: dict[str, dict[str, ClaimedTask]] = {client: {} for client in waiting}
        self.ended: list[ClaimedTask] = []
        self.returned: list[ClaimedTask] = []
        self.retries: list[float | None] = []
        self.finish_failures = 0
        self.renewable = True

    async def ready(self, limit: int) -> Sequence[str]:
        return [client for client, tasks in self.waiting.items() if tasks][:limit]

    def take(self, client: str, want: int, chances: int = 0) -> Claimed:
        held, waiting = self.held[client], self.waiting[client]
        tasks = []
        while waiting and len(tasks) < want and len(held) < self.limit:
            if waiting[0].suspect and chances == 0:
                break
            chances -= waiting[0].suspect
            tasks.append(waiting.popleft())
            held[tasks[-1].entry] = tasks[-1]
        return Claimed(tasks, self.limit, bool(waiting), len(held))

    async def claim(self, client_id: str, want: int, chances: int) -> Claimed:
        await asyncio.sleep(0)
        return self.take(client_id, want, chances)

    async def finish(self, task: ClaimedTask, outcome: Outcome, *, retry_in: float | None, want: int = 0) -> Finished:
        await asyncio.sleep(0)
        if self.finish_failures:
            self.finish_failures -= 1
            raise StoreUnavailable("away")
        self.held[task.client_id].pop(task.entry)
        self.ended.append(task)
        self.retries.append(retry_in)
        return Finished(True, self.take(task.client_id, want) if want else None)

    async def renew(self, tasks: Sequence[ClaimedTask]) -> Sequence[ClaimedTask]:
        if not self.renewable:
            raise StoreUnavailable("away")
        return []

    async def hand_back(self, tasks: Sequence[ClaimedTask]) -> None:
        self.returned += tasks

    async def hand_back_unknown(self, client_id: str, known: Collection[ClaimedTask]) -> int:
        return 0

    async def listen(self, on_ready: Callable[[str], None], on_due: Callable[[], None]) -> None:
        await asyncio.Event().wait()


class Calls:
    """A sender that counts open calls and holds them until told."""

    def __init__(self, verdict: Verdict = Verdict.DELIVERED) -> None:
        self.verdict = verdict
        self.open: list[ClaimedTask] = []
        self.peak = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        self.open.append(task)
        self.peak = max(self.peak, len(self.open))
        try:
            await self.go.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open.remove(task)
        attempt = Attempt(status=500, error=None, started_at=0, duration_ms=1, body="")
        return Outcome(verdict=self.verdict, attempt=attempt, reason="http 500")


def make(client: str, number: int) -> ClaimedTask:
    return ClaimedTask(
        task_id=f"{client}-{number}",
        client_id=client,
        queue="default",
        entry=f"{number}-0",
        fence=1,
        attempt=1,
        failures=number % 2,
        max_retry=1,
        timeout=60,
        method="POST",
        url="http://target/",
        headers={},
        body=None,
        due_at=0,
        claimed_at=0,
    )


def dispatcher(claims: Memory, calls: Calls, size: int = 20, lease: float = 30, drain: float = 5) -> Dispatcher:
    return Dispatcher(claims, calls, max_in_flight=size, lease_seconds=lease, drain_seconds=drain)
