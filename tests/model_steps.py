"""What the steps of `test_model.py` are made of: one thing done to the store and the model, the answers compared."""

import time
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant
from model import (
    ENDED,
    KEY_TTL,
    MAX_QUEUED,
    MAX_QUEUES,
    STATES,
    TICK,
    Claim,
    ClientModel,
    Server,
    Task,
    seconds,
)
from stores import Taker

from gateway import models
from gateway.models import (
    Admission,
    Admitted,
    Attempt,
    Duplicate,
    KeyConflict,
    Outcome,
    QueueFull,
    RateLimited,
    TaskSpec,
    TooManyQueues,
    Verdict,
)
from gateway.store.claimed import Claimed

CLIENTS = ("alpha", "beta")


class Steps(RuleBasedStateMachine):
    """The state of one example, the steps that rules share, and what must hold after each rule."""

    steps = 0

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        server.reset()
        self.now = 0
        self.batches = 0
        self.clients = {name: ClientModel() for name in CLIENTS}
        self.claims: list[Claim] = []

    def admit_all(self, name: str, wanted: list[dict[str, Any]], want: int | None) -> None:
        """``want``: how many tasks the process that admits starts in the same step; None: it claims none itself."""
        self.server.hold()
        specs = [self.spec(request) for request in wanted]
        tasks = self.server.stores[0].tasks
        claimer = None if want is None else Taker(want)
        if len(specs) == 1:
            answers = [self.server.run(tasks.admit(name, specs[0], create=True, claimer=claimer))]
        else:
            answers = self.server.run(tasks.admit_many(name, specs, create=True))
        for request, answer in zip(wanted, answers, strict=True):
            assert not isinstance(answer, Exception)
            self.decide(self.clients[name], request, answer)
            if claimer is not None and claimer.claimed is not None:
                assert isinstance(answer, Admitted)
                assert answer.claimed
                self.started(name, 0, claimer.want, claimer.claimed)

    def spec(self, request: dict[str, Any]) -> TaskSpec:
        now = int(time.time() * 1000)
        delayed = seconds(request["delay"]) if request["delay"] else 0
        absolute = request["absolute"] and delayed > 0
        # As the API does it: moments are the caller's, Redis's clock judges them.
        task = models.Task(
            queue=request["queue"],
            method="POST",
            url="http://target/",
            headers={},
            body=b"x",
            delay=0 if absolute else delayed,
            run_at=now + delayed * 1000 if absolute else 0,
            expires_at=0 if request["expires"] is None else now + seconds(request["expires"]) * 1000,
            cost=request["cost"],
            idempotency_key=request["key"],
        )
        return TaskSpec(
            task,
            requests_per_min=request["limit"],
            bound=request["bound"],
            fingerprint=request["fingerprint"],
        )

    def decide(self, client: ClientModel, request: dict[str, Any], answer: Admission) -> None:
        cost, limit, key, fingerprint = request["cost"], request["limit"], request["key"], request["fingerprint"]
        before = client.keys.get(key)
        if key is not None and before is not None and self.now - before[2] < KEY_TTL:
            assert isinstance(answer, Duplicate if before[1] == fingerprint else KeyConflict), answer
            assert answer.task_id == before[0]
        elif request["queue"] not in client.queues and len(client.queues) >= MAX_QUEUES:
            assert isinstance(answer, TooManyQueues), answer
        elif client.used(self.now) + cost > limit:
            assert isinstance(answer, RateLimited), answer
            frees = 61 - client.frees(self.now, cost, limit) * TICK
            assert max(1, frees - 2) <= answer.retry_after <= frees + 1
        elif len(client.tasks) - len(client.of(*ENDED)) >= MAX_QUEUED:
            assert isinstance(answer, QueueFull), answer
        else:
            assert isinstance(answer, Admitted), answer
            self.accept(client, request, answer)
        assert answer.window.used == client.used(self.now)

    def accept(self, client: ClientModel, request: dict[str, Any], answer: Admitted) -> None:
        expires = None if request["expires"] is None else self.now + request["expires"]
        task = Task(answer.task_id, request["queue"], request["bound"], expires, "queued")
        if request["delay"]:
            task.state, task.due = "scheduled", self.now + request["delay"]
        else:
            task.order = self.next_batch(), 0
        assert answer.scheduled == (task.state == "scheduled")
        assert task.task_id not in client.tasks
        client.tasks[task.task_id] = task
        client.queues.add(task.queue)
        client.admitted.append((self.now, request["cost"]))
        if request["key"] is not None:
            client.keys[request["key"]] = task.task_id, request["fingerprint"], self.now

    def next_batch(self) -> int:
        self.batches += 1
        return self.batches

    def claim_for(self, name: str, consumer: int, want: int) -> None:
        self.supply(name)
        self.server.hold()
        self.started(name, consumer, want, self.server.run(self.server.stores[consumer].claims.claim(name, want)))

    def supply(self, name: str) -> None:
        """Keep work about: hypothesis leaves whole rules out of an example, and most of the rest would find nothing."""
        if len(self.clients[name].of("queued")) < 3:
            plain = {"delay": 0, "absolute": False, "cost": 1, "limit": 100, "key": None, "fingerprint": b""}
            # One with a bound of its own, one that has to start soon.
            kinds = (("default", 0, 1), ("critical", 0, None), ("default", 4, None), ("critical", 0, None))
            wanted = [{"queue": queue, "bound": bound, "expires": expires, **plain} for queue, bound, expires in kinds]
            self.admit_all(name, wanted, None)

    def present(self, name: str, consumer: int) -> None:
        """Keep claims about, for the same reason."""
        if not any(claim.live for claim in self.claims):
            self.claim_for(name, consumer, 3)

    def started(self, name: str, consumer: int, want: int, answer: Claimed, *, spared: bool = False) -> None:
        client = self.clients[name]
        assert len(answer.tasks) <= want
        assert answer.limit == client.limit
        self.bury_expired(name)
        for held in answer.tasks:
            task = client.tasks[held.task_id]
            assert task.state == "queued", task
            assert not task.expired(self.now), task
            assert client.fits(task), f"{len(client.of('running'))} are open already"
            assert task in client.heads(spared=spared), "it overtook another of its queue"
            assert held.attempt == task.attempts + task.crashes + 1
            assert held.failures == task.attempts
            task.state = "running"
            task.claim = Claim(task, held, consumer, self.now)
            self.claims.append(task.claim)
        assert answer.in_flight == len(client.of("running"))
        if len(answer.tasks) < want:
            assert not client.startable(spared=spared), "something could have started"

    def bury_expired(self, name: str) -> None:
        """Which of the expired tasks a claim comes past is its own affair; that only expired ones end so is not."""
        client = self.clients[name]
        late = {f"task:{task.task_id}".encode(): task for task in client.of("queued") if task.expired(self.now)}
        for key, record in self.server.records(list(late)):
            if record.state == "D":
                assert record.reason == "expired"
                late[key].state = "dead"

    def pick(self, live: bool, at: int) -> Claim | None:
        """One of the claims; of those that are over, rather one whose task runs again under a later claim."""
        found = [claim for claim in self.claims if claim.live == live]
        if not live:
            found = [claim for claim in found if claim.task.claim] or found
        return found[-1 - at % len(found)] if found else None

    def finish_claim(self, claim: Claim, verdict: str, delay: int, want: int) -> None:
        self.server.hold()
        attempt = Attempt(status=500, error=None, started_at=0, duration_ms=1, body=None)
        kind = Verdict.DELIVERED if verdict == "succeeded" else Verdict.RETRY
        outcome = Outcome(verdict=kind, attempt=attempt, reason="http 500")
        retry_in = seconds(delay) if verdict == "retry" else None
        store = self.server.stores[claim.consumer].claims
        answer = self.server.run(store.finish(claim.held, outcome, retry_in=retry_in, want=want))
        assert answer.owned == claim.live
        if not claim.live:
            return
        task = claim.task
        self.end(claim, {"retry": "retrying"}.get(verdict, verdict))
        task.attempts += 1
        task.due = self.now + delay
        if want:
            assert answer.claimed is not None
            self.started(claim.held.client_id, claim.consumer, want, answer.claimed, spared=True)

    def end(self, claim: Claim, state: str) -> None:
        claim.live = False
        claim.task.claim = None
        claim.task.state = state
        claim.task.returned = state == "queued"

    # --- what must hold after every step ----------------------------------------------------------

    @invariant()
    def figures_agree(self) -> None:
        """In flight, queued, scheduled, dead and the window are the model's."""
        type(self).steps += 1
        self.server.hold()
        for name, client in self.clients.items():
            usage = self.server.run(self.server.stores[0].windows.usage(name))
            assert (usage.in_flight, usage.queued, usage.scheduled, usage.dead, usage.window.used) == (
                len(client.of("running")),
                len(client.of("queued")),
                len(client.of("scheduled", "retrying")),
                len(client.of("dead")),
                client.used(self.now),
            )

    @invariant()
    def records_agree(self) -> None:
        """Every accepted task is kept, in the model's state and with its counts."""
        for client in self.clients.values():
            tasks = {f"task:{task.task_id}".encode(): task for task in client.tasks.values()}
            found = dict(self.server.records(list(tasks)))
            for key, task in tasks.items():
                if key in found:
                    record = found[key]
                    told = record.state, record.attempts, record.crashes
                else:  # it is its stream entry
                    told = "q", 0, 0
                assert told == (STATES[task.state], task.attempts, task.crashes), task

    @invariant()
    def streams_agree(self) -> None:
        """What waits or runs is in a stream, and nothing else is."""
        for name, client in self.clients.items():
            keys = self.server.raw.keys(f"stream:{name}:*")
            assert sum(self.server.raw.xlen(key) for key in keys) == len(client.of("queued", "running"))

    @invariant()
    def nobody_is_stranded(self) -> None:
        """A client with something that may start now is where dispatchers look."""
        ready = {name.decode() for name in self.server.raw.zrange("ready", 0, -1)}
        for name, client in self.clients.items():
            if client.startable():
                assert name in ready
