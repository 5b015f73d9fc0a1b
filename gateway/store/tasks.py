"""Admitting, looking at and cancelling tasks: what the API does with them. Claiming is in `claims`."""

from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import StoreUnavailable
from gateway.models import (
    Admission,
    Admitted,
    Duplicate,
    GatewayFull,
    KeyConflict,
    QueueFull,
    RateLimited,
    Standing,
    TaskDetail,
    TaskSpec,
    TaskView,
    TooManyClients,
    TooManyQueues,
    Window,
)
from gateway.settings import Settings
from gateway.store.clients import Clients
from gateway.store.records import detail, fixed_fields, new_task_id, view
from gateway.store.scripts import Runner

EXPLAINED: Final = 100  # tasks that an explanation counts or names at most
CHUNK: Final = 50  # a thousand in one script call were measured to block Redis for 25-43 ms


def _outcome(task_id: str, row: list[Any], now: float, *, created: bool) -> Admission:
    code, used, reset, detail = row
    window = Window(used=used, reset=reset, now=now)
    match code:
        case 1:
            return Admitted(task_id=task_id, window=window, created=created, scheduled=detail == b"scheduled")
        case 2:
            return Duplicate(task_id=detail.decode(), window=window)
        case 3:
            return KeyConflict(task_id=detail.decode(), window=window)
        case 4:
            return RateLimited(window=window, retry_after=int(float(detail)))
        case 5:
            return QueueFull(window=window, what="tasks")
        case 6:
            return QueueFull(window=window, what="bytes")
        case 7:
            return TooManyQueues(window=window)
        case 9:
            return GatewayFull(window=window, what="tasks")
        case 10:
            return GatewayFull(window=window, what="bytes")
    return TooManyClients(window=window)


class Tasks:
    """The tasks of clients, as their API sees them."""

    def __init__(self, runner: Runner, clients: Clients, settings: Settings) -> None:
        self._runner = runner
        self._clients = clients
        self._algorithm = settings.window_algorithm
        self._limits = (
            runner.keyspace.share(settings.max_clients),
            settings.max_queued_per_client,
            settings.max_queued_bytes_per_client,
            settings.max_queues_per_client,
            runner.keyspace.share(settings.max_queued, settings.max_queued_per_client),
            runner.keyspace.share(settings.max_queued_bytes, settings.max_queued_bytes_per_client),
        )
        self._idempotency_ttl = settings.idempotency_ttl

    async def admit(self, client_id: str, spec: TaskSpec, *, create: bool, local: bool = False) -> Admission:
        """Decide and store in one step. ``create``: the client is unknown; ``local``: this process will claim it."""
        return (await self._admit(client_id, (spec,), create=create, local=local))[0]

    async def admit_many(
        self, client_id: str, specs: Sequence[TaskSpec], *, create: bool
    ) -> list[Admission | StoreUnavailable]:
        """Decide and store each, in order, in chunks; if Redis fails midway, the rest are what it failed with."""
        results: list[Admission | StoreUnavailable] = []
        for start in range(0, len(specs), CHUNK):
            try:
                results += await self._admit(client_id, specs[start : start + CHUNK], create=create, local=False)
            except StoreUnavailable as error:
                results += [error] * (len(specs) - len(results))
                break
        return results

    async def _admit(self, client_id: str, specs: Sequence[TaskSpec], *, create: bool, local: bool) -> list[Admission]:
        keyspace = self._runner.keyspace
        keys: list[str] = []
        ids: list[str] = []
        args: list[str | bytes | int | float] = []
        for spec in specs:
            task_id = new_task_id()
            fixed, size = fixed_fields(client_id, spec)
            ids.append(task_id)
            keys.append(keyspace.task(client_id, task_id))
            if spec.idempotency_key is not None:
                keys.append(keyspace.idempotency(client_id, spec.idempotency_key))
            args += (
                task_id,
                spec.queue,
                spec.requests_per_min,
                spec.cost,
                size,
                int(spec.delay * 1000),
                spec.run_at,
                spec.bound,
                0 if spec.idempotency_key is None else 1,
                spec.fingerprint.hex(),
                fixed,
            )
        new_client = self._clients.encoded(self._clients.new(client_id)) if create else b""
        reply = await self._runner.run(
            "admit",
            client_id,
            self._algorithm,
            new_client,
            *self._limits,
            int(local),
            self._idempotency_ttl,
            *args,
            keys=keys,
        )
        now = int(reply[0]) / 1_000_000
        created = bool(reply[1])
        results = []
        for task_id, row in zip(ids, reply[2:], strict=True):
            results.append(_outcome(task_id, row, now, created=created and row[0] == 1))
            created = created and row[0] != 1  # the first that was admitted made it
        return results

    async def view(self, client_id: str, task_id: str) -> TaskView | None:
        """The client's task as it stands, None where it has no such task."""
        reply = await self._runner.run("status", client_id, task_id)
        return view(task_id, reply[1], running=bool(reply[0])) if reply else None

    async def detail(self, client_id: str, task_id: str) -> TaskDetail | None:
        """The same with all that operators may see."""
        reply = await self._runner.run("status", client_id, task_id)
        return detail(task_id, reply[1], running=bool(reply[0])) if reply else None

    async def explain(self, client_id: str, task_id: str) -> Standing | None:
        """Where the task stands and what stands before it, None where the client has no such task."""
        reply = await self._runner.run("explain", client_id, task_id, EXPLAINED)
        if not reply:
            return None
        running, packed, paused, in_flight, bound, ahead, *holders = reply
        return Standing(
            view=view(task_id, packed, running=bool(running)),
            paused=bool(paused),
            in_flight=in_flight,
            bound=bound,
            ahead=ahead,
            holders=[name.decode() for name in holders],
        )

    async def cancel(self, client_id: str, task_id: str) -> tuple[TaskView, bool] | None:
        """Cancel what waits. The flag says whether it was cancelled now; False: it runs or has ended."""
        reply = await self._runner.run("cancel", client_id, task_id)
        if not reply:
            return None
        cancelled, running, packed = reply
        return view(task_id, packed, running=bool(running)), bool(cancelled)
