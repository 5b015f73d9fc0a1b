"""The store against a model: whatever order things happen in, the real server decides what the model does."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from model import (
    DEFAULT_LIMIT,
    LEASE,
    MAX_DELIVERIES,
    SETTINGS,
    TICK,
    Server,
)
from model_steps import CLIENTS, Steps

from gateway.models import (
    Client,
    RateLimit,
)
from gateway.settings import Settings
from gateway.store import open_store

STEPS_AN_EXAMPLE = 60
STEPS = int(os.environ.get("MODEL_STEPS", "6000"))
CONSUMERS = 2

clients = st.sampled_from(CLIENTS)
consumers = st.integers(0, CONSUMERS - 1)
picks = st.integers(0, 1000)
requests = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(("default", "critical", "low", "one-too-many")),
        "delay": st.sampled_from((0, 0, 0, 0, 0, 1, 2, 5)),
        "absolute": st.booleans(),
        "bound": st.sampled_from((0, 0, 0, 0, 1, 2, 6)),
        "cost": st.sampled_from((1, 1, 1, 3)),
        "limit": st.sampled_from((12, 40, 100)),
        "expires": st.sampled_from((None, None, None, None, None, 0, 1, 4)),
        "key": st.sampled_from((None, None, None, None, "k1", "k2")),
        "fingerprint": st.sampled_from((b"one", b"one", b"two")),
    }
)


class Machine(Steps):
    """Rules do one thing to the store and to the model and compare the answers; invariants compare what is left."""

    # --- admission --------------------------------------------------------------------------------

    @rule(name=clients, wanted=st.lists(requests, min_size=1, max_size=5))
    def admit(self, name: str, wanted: list[dict[str, Any]]) -> None:
        """Each request of a batch is decided as the model decides it, in order."""
        self.admit_all(name, wanted, None)

    @rule(name=clients, request=requests, want=st.integers(0, 4))
    def admit_and_claim(self, name: str, request: dict[str, Any], want: int) -> None:
        """A task that is admitted by itself is claimed in the same step, and what waited before it goes first."""
        self.admit_all(name, [request], want)

    # --- claims -----------------------------------------------------------------------------------

    @rule(name=clients, consumer=consumers, want=st.integers(1, 6))
    def claim(self, name: str, consumer: int, want: int) -> None:
        """A claim starts what may start and nothing else, in order, and leaves nothing that it could have started."""
        self.claim_for(name, consumer, want)

    @rule(
        name=clients,
        consumer=consumers,
        live=st.sampled_from((True, True, False)),
        at=picks,
        verdict=st.sampled_from(("succeeded", "retry", "retry", "dead")),
        delay=st.sampled_from((1, 1, 3)),
        want=st.integers(0, 3),
    )
    def finish(self, *, name: str, consumer: int, live: bool, at: int, verdict: str, delay: int, want: int) -> None:
        """Only the present claim of a task can end it; a late or repeated finish changes nothing."""
        self.present(name, consumer)
        claim = self.pick(live, at)
        if claim is not None:
            self.finish_claim(claim, verdict, delay, want)

    @rule(name=clients, consumer=consumers, at=picks)
    def repeat_a_finish(self, name: str, consumer: int, at: int) -> None:
        """A finish whose reply was lost is repeated after the task has come round to the same process again."""
        self.present(name, consumer)
        claim = self.pick(True, at)
        if claim is None:
            return
        self.finish_claim(claim, "retry", 1, 0)
        self.advance(1)
        self.promote(claim.consumer)
        # The retry waits behind the others of its queue.
        while claim.task.state == "queued":
            for other in [other for other in self.claims if other.live]:
                self.finish_claim(other, "succeeded", 0, 0)
            self.claim_for(claim.held.client_id, claim.consumer, 6)
        self.finish_claim(claim, "retry", 1, 0)

    @rule(name=clients, consumer=consumers, times=st.integers(1, MAX_DELIVERIES))
    def die(self, name: str, consumer: int, times: int) -> None:
        """Whoever has claims dies with them, perhaps again and again."""
        for _ in range(times):
            self.present(name, consumer)
            self.advance(LEASE)
            self.reclaim(name, consumer)
            self.claim_for(name, consumer, 2)

    @rule(name=clients, consumer=consumers, keep=picks)
    def renew(self, name: str, consumer: int, keep: int) -> None:
        """A renewal keeps what is its owner's, and tells what is not."""
        self.present(name, consumer)
        own = [claim for n, claim in enumerate(self.claims[-12:]) if claim.consumer == consumer and keep >> n & 1]
        self.server.hold()
        # One task may appear under several claims of one owner; each is asked for by itself.
        for claim in own:
            lost = self.server.run(self.server.stores[consumer].claims.renew([claim.held]))
            assert bool(lost) == (not claim.live)
            if claim.live:
                claim.leased = self.now

    @rule(name=clients, consumer=consumers)
    def reclaim(self, name: str, consumer: int) -> None:
        """Exactly what was not renewed for a lease is taken back, or buried where it happened too often."""
        self.present(name, consumer)
        self.server.hold()
        lapsed = [claim for claim in self.claims if claim.live and self.now - claim.leased >= LEASE]
        assert self.server.run(self.server.stores[consumer].claims.reclaim_lapsed(100)) == len(lapsed)
        for claim in lapsed:
            claim.task.crashes += 1
            self.end(claim, "dead" if claim.task.crashes >= MAX_DELIVERIES else "queued")

    @rule(name=clients, consumer=consumers, live=st.sampled_from((True, True, False)), at=picks)
    def hand_back(self, name: str, consumer: int, live: bool, at: int) -> None:
        """A claim that is handed back waits at its old place, and nothing is counted."""
        self.present(name, consumer)
        claim = self.pick(live, at)
        if claim is None:
            return
        self.server.hold()
        self.server.run(self.server.stores[claim.consumer].claims.hand_back([claim.held]))
        if claim.live:
            self.end(claim, "queued")

    @rule(name=clients, consumer=consumers, known=picks)
    def recover(self, name: str, consumer: int, known: int) -> None:
        """What a lost reply brought is handed back; what its owner knows of stays."""
        self.present(name, consumer)
        own = [c for c in self.claims if c.live and c.consumer == consumer and c.held.client_id == name]
        kept = [claim for n, claim in enumerate(own) if known >> n & 1]
        self.server.hold()
        claims = self.server.stores[consumer].claims
        given = self.server.run(claims.hand_back_unknown(name, [claim.held for claim in kept]))
        lost = [claim for claim in own if claim not in kept]
        assert given == len(lost)
        for claim in lost:
            self.end(claim, "queued")

    # --- schedule, ends, settings, time -----------------------------------------------------------

    @rule(consumer=consumers)
    def promote(self, consumer: int) -> None:
        """Exactly what is due moves to its queue, the earlier due before the later."""
        self.server.hold()
        self.server.run(self.server.stores[consumer].claims.promote_due(100))
        batch = self.next_batch()
        for client in self.clients.values():
            for task in client.of("scheduled", "retrying"):
                if task.due <= self.now:
                    task.state, task.order, task.returned = "queued", (batch, task.due), False

    @precondition(lambda self: any(client.tasks for client in self.clients.values()))
    @rule(name=clients, at=picks)
    def cancel(self, name: str, at: int) -> None:
        """What waits is cancelled; what runs or has ended is not."""
        tasks = list(self.clients[name].tasks.values())
        if not tasks:
            return
        # Often a head, since others may wait behind it.
        tasks = (self.clients[name].heads() or tasks) if at % 2 else tasks
        task = tasks[-1 - at % len(tasks)]
        self.server.hold()
        answer = self.server.run(self.server.stores[0].tasks.cancel(name, task.task_id))
        assert answer is not None
        waits = task.state in ("queued", "scheduled", "retrying")
        assert answer[1] == waits
        if waits:
            task.state = "cancelled"
        assert answer[0].state.value == task.state
        assert answer[0].attempts == task.attempts + task.crashes + (task.state == "running")

    @rule(name=clients, limit=st.integers(1, 5))
    def set_limit(self, name: str, limit: int) -> None:
        """A new limit holds for the next start."""

        def change(client: Client | None) -> Client:
            new = client or self.server.stores[0].clients.new(name)
            return msgspec.structs.replace(new, rate_limit=RateLimit(limit, 100), source="client")

        self.server.run(self.server.stores[0].clients.update(name, change))
        self.clients[name].limit = limit

    @rule(name=clients, cancel_tasks=st.booleans())
    def delete(self, name: str, cancel_tasks: bool) -> None:
        """A deleted client's tasks go on under the default's limit, or all that wait are cancelled."""
        self.server.hold()
        client = self.clients[name]
        waiting = client.of("queued", "scheduled", "retrying")
        gone = self.server.run(self.server.stores[0].clients.delete(name, cancel_tasks=cancel_tasks))
        assert gone == (len(waiting) if cancel_tasks else 0)
        for task in waiting if cancel_tasks else ():
            task.state = "cancelled"
        client.limit = DEFAULT_LIMIT

    @rule(ticks=st.sampled_from((1, 1, 2, 3, 4, 9)))
    def advance(self, ticks: int) -> None:
        """Time passes."""
        self.server.hold()
        self.server.age(ticks * TICK)
        self.now += ticks

    @rule(consumer=consumers)
    def audit(self, consumer: int) -> None:
        """What the store says of a client agrees with itself, whatever happened."""
        assert not self.server.run(self.server.stores[consumer].audit.stretch(100)).violations


@pytest.fixture
def server(valkey: str) -> Iterator[Server]:
    """The session's Valkey with a store for each consumer, on a loop of the test's own."""
    loop = asyncio.new_event_loop()
    raw = redis.Redis.from_url(valkey)
    stack = AsyncExitStack()
    made = [open_store(Settings.load(SETTINGS), valkey) for _ in range(CONSUMERS)]
    stores = [loop.run_until_complete(stack.enter_async_context(store)) for store in made]
    yield Server(loop, raw, stores)
    loop.run_until_complete(stack.aclose())
    loop.close()
    raw.close()


@pytest.mark.timeout(120 + STEPS / 20)
def test_the_store_does_what_the_model_does(server: Server) -> None:
    """Thousands of random steps (MODEL_STEPS: more), each answer and each state compared."""
    Machine.steps = 0
    factory: Callable[[], Machine] = lambda: Machine(server)  # noqa: E731 - hypothesis wants a factory without arguments
    run_state_machine_as_test(
        factory,
        settings=settings(
            max_examples=-(-STEPS // STEPS_AN_EXAMPLE),
            stateful_step_count=STEPS_AN_EXAMPLE,
            deadline=None,
            database=None,
            # The same steps each time, so that `make test` can't fail by luck; the long runs look further.
            derandomize="MODEL_STEPS" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Machine.steps >= min(STEPS, 5000)
