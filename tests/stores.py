"""Stores on every deployment of Redis, and the tasks that their tests put into them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec
import pytest
from deployments import Deployment
from waiting import until

from gateway.errors import StoreUnavailable
from gateway.models import (
    Admitted,
    Attempt,
    ClaimedTask,
    Client,
    Outcome,
    RateLimit,
    State,
    Task,
    TaskSpec,
    Verdict,
)
from gateway.store import Store
from gateway.store.claimed import Claimed
from gateway.store.gauges import show


def spec(**changes: Any) -> TaskSpec:
    fields: dict[str, Any] = {
        "queue": "default",
        "method": "POST",
        "url": "http://target/hook",
        "headers": {"X-A": "1"},
        "body": b"hello",
        **changes,
    }
    limits = {name: fields.pop(name) for name in ("bound", "fingerprint", "trace") if name in fields}
    return TaskSpec(requests_per_min=fields.pop("requests_per_min", 1000), task=Task(**fields), **limits)


def outcome(verdict: Verdict, status: int = 200) -> Outcome:
    attempt = Attempt(status=status, error=None, started_at=1_700_000_000_000, duration_ms=1.5, body="ok")
    return Outcome(verdict=verdict, attempt=attempt, reason=f"http {status}")


class Taker:
    """Claims what is admitted in the same step, ``want`` tasks at most; 0: by a claim of its own, later."""

    def __init__(self, want: int) -> None:
        self.want = self.chances = want
        self.asked = 0
        self.claimed: Claimed | None = None
        self.problem: StoreUnavailable | None = None

    def places(self, client_id: str) -> Self | None:
        self.asked += 1
        return self if self.want else None

    def fill(self, read: Callable[[], Claimed | None]) -> None:
        try:
            self.claimed = read()
        except StoreUnavailable as problem:
            self.problem = problem


Opened = Callable[..., Awaitable[Store]]
Key = Callable[..., str]


@pytest.fixture
async def opened(deployment: Deployment) -> AsyncIterator[Opened]:
    """Opens stores on an emptied Redis; settings by environment name."""
    async with AsyncExitStack() as stack:

        async def open_(**environment: str) -> Store:
            return await stack.enter_async_context(deployment.store(**environment))

        yield open_


@pytest.fixture
async def store(deployment: Deployment) -> AsyncIterator[Store]:
    """A store on an emptied Redis, whose client acme may do as much as it likes."""
    async with deployment.store() as opened:
        await limit(opened, "acme", 100, 10**6)
        yield opened


@pytest.fixture
async def raw(deployment: Deployment) -> AsyncIterator[Any]:
    async with deployment.raw() as client:
        yield client


@pytest.fixture
def key(deployment: Deployment) -> Key:
    """Names of keys as this deployment has them."""
    return deployment.key


async def limit(store: Store, client_id: str, concurrent: int, per_minute: int = 1000) -> None:
    def change(client: Client | None) -> Client:
        return msgspec.structs.replace(
            client or store.clients.new(client_id), rate_limit=RateLimit(concurrent, per_minute), source="client"
        )

    await store.clients.update(client_id, change)


async def admit(store: Store, client_id: str = "acme", **changes: Any) -> str:
    admitted = await store.tasks.admit(client_id, spec(**changes), create=True)
    assert isinstance(admitted, Admitted), admitted
    return admitted.task_id


async def collect_once(store: Store) -> None:
    """Take a snapshot of all clients and set the gauges, as one process in turn does."""
    show(await store.figured.look(), store.tiers.prices)


async def state(store: Store, task_id: str, client_id: str = "acme") -> State:
    view = await store.tasks.view(client_id, task_id)
    assert view is not None
    return view.state


async def one_claim(store: Store, **changes: Any) -> ClaimedTask:
    await admit(store, **changes)
    return (await store.claims.claim("acme", 1)).tasks[0]


async def lapse(store: Store, count: int) -> None:
    """The leases of so many claims end, and they are taken back."""
    taken = 0

    async def back() -> bool:
        nonlocal taken
        taken += await store.claims.reclaim_lapsed(10)
        return taken == count

    await until(back)
