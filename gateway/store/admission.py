"""Admitting tasks: one script decides and stores. Requests that come in together share its calls."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gateway.errors import StoreUnavailable
from gateway.models import (
    Admission,
    Admitted,
    Duplicate,
    GatewayFull,
    KeyConflict,
    QueueFull,
    RateLimited,
    TaskSpec,
    TooManyClients,
    TooManyQueues,
    Window,
)
from gateway.settings import Settings
from gateway.store.clients import Clients
from gateway.store.merging import Merger, Tell, at_once
from gateway.store.payload import Payloads
from gateway.store.records import as_text, entry_value, id_at, packed, unique_end
from gateway.store.scripts import Runner

_Args = tuple[str | bytes | int | float, ...]
_ROW: Final = 4
_CHUNK: Final = 50  # a thousand in one script call were measured to block Redis for 25-43 ms


class _Wanted(msgspec.Struct):
    """One task on its way: what the script is told of it, the end of its id, its fingerprint, and whether its client is
    new, and this process claims it."""

    told: bytes
    unique: str
    fingerprint: bytes
    create: bool
    local: bool


_REFUSALS: Final[dict[int, Callable[[Window, bytes], Admission]]] = {
    2: lambda window, detail: Duplicate(task_id=detail.decode(), window=window),
    4: lambda window, detail: RateLimited(window=window, retry_after=int(float(detail))),
    5: lambda window, _: QueueFull(window=window, what="tasks"),
    6: lambda window, _: QueueFull(window=window, what="bytes"),
    7: lambda window, _: TooManyQueues(window=window),
    8: lambda window, _: TooManyClients(window=window),
    9: lambda window, _: GatewayFull(window=window, what="tasks"),
    10: lambda window, _: GatewayFull(window=window, what="bytes"),
}
_ADMITTED: Final = 1
_CONFLICT: Final = 3
_SCHEDULED: Final = 0


class Admissions:
    """The way in for tasks."""

    def __init__(self, runner: Runner, clients: Clients, settings: Settings, payloads: Payloads) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._clients = clients
        self._payloads = payloads
        self._args: _Args = (
            settings.window_algorithm,
            runner.keyspace.share(settings.max_clients),
            settings.max_queued_per_client,
            settings.max_queued_bytes_per_client,
            settings.max_queues_per_client,
            runner.keyspace.share(settings.max_queued, settings.max_queued_per_client),
            runner.keyspace.share(settings.max_queued_bytes, settings.max_queued_bytes_per_client),
            settings.idempotency_ttl,
        )
        self._merger: Merger[_Wanted, Admission] = Merger(
            runner.keyspace.partition,
            self._carry_out,
            patience=runner.patience,
            at_once=at_once(confirmed=runner.durable),
        )

    async def admit(self, client_id: str, spec: TaskSpec, *, create: bool, local: bool = False) -> Admission:
        """Decide and store in one step. ``create``: the client is unknown; ``local``: this process will claim it."""
        return await self._merger.submit(client_id, self._wanted(client_id, spec, create, local))

    def submit(self, client_id: str, spec: TaskSpec, tell: Tell[Admission], *, create: bool, local: bool) -> None:
        """The same, for who does not wait: ``tell`` is told what the store says."""
        self._merger.hand_in(client_id, self._wanted(client_id, spec, create, local), tell)

    async def admit_many(
        self, client_id: str, specs: Sequence[TaskSpec], *, create: bool
    ) -> list[Admission | StoreUnavailable]:
        """Decide and store each, in order, in chunks; if Redis fails midway, the rest are what it failed with."""
        results: list[Admission | StoreUnavailable] = []
        partition = self._keyspace.partition(client_id)
        for start in range(0, len(specs), _CHUNK):
            chunk = [self._wanted(client_id, spec, create, local=False) for spec in specs[start : start + _CHUNK]]
            try:
                results += await self._carry_out(partition, {client_id: chunk})
            except StoreUnavailable as error:
                results += [error] * (len(specs) - len(results))
                break
        return results

    def _wanted(self, client_id: str, spec: TaskSpec, create: bool, local: bool) -> _Wanted:
        task, unique = spec.task, unique_end()
        value, size = entry_value(unique, spec, self._payloads.packed(client_id, unique, task))
        key = task.idempotency_key
        told = packed(
            task.queue,
            spec.requests_per_min,
            task.cost,
            size,
            int(task.delay * 1000),
            task.run_at,
            spec.bound,
            1 if task.expires_at else 0,
            "" if key is None else self._keyspace.idempotency(client_id, key),
            "" if key is None else self._payloads.fingerprint(spec.fingerprint),
        )
        return _Wanted(told + as_text(value), unique, spec.fingerprint, create, local)

    async def _carry_out(self, partition: int, wanted: dict[str, list[_Wanted]]) -> list[Admission | StoreUnavailable]:
        told: list[bytes] = []
        for client_id, ones in wanted.items():
            create, quiet = False, True
            for one in ones:
                create, quiet = create or one.create, quiet and one.local
            new = self._clients.encoded(self._clients.new(client_id)).decode() if create else ""
            told.append(packed(client_id, len(ones), new, int(quiet)))
            told += [one.told for one in ones]
        reply: list[Any] = await self._runner.run_for_many("admit", partition, *self._args, b"".join(told))
        now = int(reply[0]) / 1_000_000
        results: list[Admission | StoreUnavailable] = []
        at = 1
        for client_id, ones in wanted.items():
            made = reply[at]
            at += 1
            if isinstance(made, bytes):
                results += [self._runner.failed("admit", client_id, made)] * len(ones)
                continue
            created = bool(made)
            for one in ones:
                code, used, reset, detail = reply[at : at + _ROW]
                at += _ROW
                window = Window(used, reset, now)
                if code in {_ADMITTED, _SCHEDULED}:
                    place = detail.decode()
                    task_id = id_at(place, one.unique) if "-" in place else place
                    results.append(Admitted(task_id, window, created, code == _SCHEDULED))
                    created = False  # the first that was admitted made it
                elif code == _CONFLICT:
                    results.append(self._conflict(window, detail.decode(), one.fingerprint))
                else:
                    results.append(_REFUSALS[code](window, detail))
        return results

    def _conflict(self, window: Window, detail: str, fingerprint: bytes) -> Admission:
        """What a used key means: the script tells fingerprints apart that were made with different keys, or none."""
        task_id, _, stored = detail.partition(" ")
        if self._payloads.same(stored, fingerprint):
            return Duplicate(task_id=task_id, window=window)
        return KeyConflict(task_id=task_id, window=window)
