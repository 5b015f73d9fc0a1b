"""Admitting tasks: one script decides and stores. Requests that come in together share its calls."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

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
    Unshown,
    Window,
)
from gateway.settings import Settings
from gateway.store.claimed import Claimed, read_claimed
from gateway.store.clients import Clients
from gateway.store.merging import Merger, Tell, at_once
from gateway.store.payload import Payloads
from gateway.store.records import as_text, entry_value, id_at, packed, unique_end
from gateway.store.scripts import Runner

_Args = tuple[str | bytes | int | float, ...]
_ROW: Final = 4
_CHUNK: Final = 50  # a thousand in one script call were measured to block Redis for 25-43 ms


class Places(Protocol):
    """Kept for what an admission may start: ``want`` in all, ``chances`` of which are for tasks on their last one."""

    @property
    def want(self) -> int: ...
    @property
    def chances(self) -> int: ...

    def fill(self, read: Callable[[], Claimed | None]) -> None:
        """``read`` tells what was started (None: nothing was looked for); it raises StoreUnavailable."""


class Claimer(Protocol):
    """Who claims what this process admits."""

    def places(self, client_id: str) -> Places | None:
        """Those that tasks of the client may have, if they are to be claimed with the admission that is sent now."""


class _Wanted(Unshown, frozen=True):
    """One task on its way: what the script is told of it, the end of its id, its fingerprint, whether its client is
    new, and who in this process claims it."""

    told: bytes
    unique: str
    fingerprint: bytes
    create: bool
    claimer: Claimer | None


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
_FAILED: Final = -1
_ADMITTED: Final = 1
_CONFLICT: Final = 3
_SCHEDULED: Final = 0


class Admissions:
    """The way in for tasks."""

    def __init__(self, runner: Runner, clients: Clients, settings: Settings, payloads: Payloads, consumer: str) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._clients = clients
        self._payloads = payloads
        self._consumer = consumer
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

    async def admit(self, client_id: str, spec: TaskSpec, *, create: bool, claimer: Claimer | None = None) -> Admission:
        """Decide and store in one step. ``create``: the client is unknown; ``claimer``: who in this process will claim
        it, so that the others need not be told."""
        return await self._merger.submit(client_id, self._wanted(client_id, spec, create, claimer))

    def submit(
        self, client_id: str, spec: TaskSpec, tell: Tell[Admission], *, create: bool, claimer: Claimer | None
    ) -> None:
        """The same, for who does not wait: ``tell`` is told what the store says."""
        self._merger.hand_in(client_id, self._wanted(client_id, spec, create, claimer), tell)

    async def admit_many(
        self, client_id: str, specs: Sequence[TaskSpec], *, create: bool
    ) -> list[Admission | StoreUnavailable]:
        """Decide and store each, in order, in chunks; if Redis fails midway, the rest are what it failed with."""
        results: list[Admission | StoreUnavailable] = []
        partition = self._keyspace.partition(client_id)
        for start in range(0, len(specs), _CHUNK):
            chunk = [self._wanted(client_id, spec, create, None) for spec in specs[start : start + _CHUNK]]
            try:
                results += await self._carry_out(partition, {client_id: chunk})
            except StoreUnavailable as error:
                results += [error] * (len(specs) - len(results))
                break
        return results

    def _wanted(self, client_id: str, spec: TaskSpec, create: bool, claimer: Claimer | None) -> _Wanted:
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
        return _Wanted(told + as_text(value), unique, spec.fingerprint, create, claimer)

    def _carry_out(
        self, partition: int, wanted: dict[str, list[_Wanted]]
    ) -> Awaitable[list[Admission | StoreUnavailable]]:
        """What became of each; asked of Redis before this returns."""
        args = (*self._args, self._told(wanted))
        places = self._places(wanted)
        if places is None:
            return self._admitted(wanted, self._runner.run_for_many("admit", partition, *args))
        args += self._consumer, places.want, places.chances
        return self._claimed_too(wanted, places, self._runner.run_for_many("admit_and_claim", partition, *args))

    async def _admitted(
        self, wanted: dict[str, list[_Wanted]], reply: Awaitable[list[Any]]
    ) -> list[Admission | StoreUnavailable]:
        return self._results(wanted, await reply, claimed=False)

    async def _claimed_too(
        self, wanted: dict[str, list[_Wanted]], places: Places, told: Awaitable[list[Any]]
    ) -> list[Admission | StoreUnavailable]:
        try:
            *reply, started = await told
        except BaseException as error:
            places.fill(partial(_lost, error))
            raise
        [client_id] = wanted
        places.fill(partial(self._started, client_id, started, int(reply[0]) // 1000))
        return self._results(wanted, reply, claimed=bool(started))

    def _told(self, wanted: dict[str, list[_Wanted]]) -> bytes:
        told: list[bytes] = []
        for client_id, ones in wanted.items():
            create, quiet = False, True
            for one in ones:
                create, quiet = create or one.create, quiet and one.claimer is not None
            new = self._clients.encoded(self._clients.new(client_id)).decode() if create else ""
            told.append(packed(client_id, len(ones), new, int(quiet)))
            told += [one.told for one in ones]
        return b"".join(told)

    def _results(
        self, wanted: dict[str, list[_Wanted]], reply: list[Any], *, claimed: bool
    ) -> list[Admission | StoreUnavailable]:
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
                    results.append(Admitted(task_id, window, created, code == _SCHEDULED, claimed))
                    created = False  # the first that was admitted made it
                elif code == _FAILED:
                    results.append(self._runner.failed("admit", client_id, detail))
                elif code == _CONFLICT:
                    results.append(self._conflict(window, detail.decode(), one.fingerprint))
                else:
                    results.append(_REFUSALS[code](window, detail))
        return results

    def _places(self, wanted: dict[str, list[_Wanted]]) -> Places | None:
        """A task that travels alone is claimed by what admits it, so its call need not wait for another round trip.
        Under load claims share one; and what waits for replicas (DURABILITY) may not start before they have it."""
        if len(wanted) > 1 or self._runner.durable:
            return None
        [(client_id, [one, *more])] = wanted.items()
        return None if one.claimer is None or more else one.claimer.places(client_id)

    def _started(self, client_id: str, brought: list[Any] | bytes, now: int) -> Claimed | None:
        if isinstance(brought, bytes):
            raise self._runner.failed("claim", client_id, brought)
        return read_claimed(client_id, brought, now, self._payloads.ready) if brought else None

    def _conflict(self, window: Window, detail: str, fingerprint: bytes) -> Admission:
        """What a used key means: the script tells fingerprints apart that were made with different keys, or none."""
        task_id, _, stored = detail.partition(" ")
        if self._payloads.same(stored, fingerprint):
            return Duplicate(task_id=task_id, window=window)
        return KeyConflict(task_id=task_id, window=window)


def _lost(error: BaseException) -> None:
    """What is known of a claim where the call that it went with failed: nothing, or that it started nothing."""
    if not isinstance(error, StoreUnavailable):
        raise StoreUnavailable("The gateway failed; see its log.", unknown=True)
    if error.unknown:
        raise error
