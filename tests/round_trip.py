"""Everything that the gateway asks of its Redis, on a store that is opened from settings alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stores import admit, outcome, state
from waiting import DEADLINE, until

from gateway import metrics
from gateway.metrics.tally import REFUSED
from gateway.models import State, Verdict
from gateway.presence import presence
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.counting import Booking
from gateway.store.journal import Change
from gateway.task_filter import TaskFilter

# A password, and as a URL has it.
SECRET = "s3cr3t-with-@-and-:"
QUOTED = "s3cr3t-with-%40-and-%3A"


@asynccontextmanager
async def store_on(**environment: str) -> AsyncIterator[Store]:
    settings = Settings.load(environment)
    assert settings.redis_url is not None
    async with open_store(settings, settings.redis_url) as store:
        yield store


async def round_trip(store: Store) -> None:
    """A task's whole way, and everything else the gateway asks of its Redis."""
    await store.ping()
    await store.greet()
    async with asyncio.timeout(DEADLINE):
        await store.doorbell.subscribed.wait()
    task_id = await admit(store, idempotency_key="k")
    assert await store.claims.ready(10) == ["acme"]
    (task,) = (await store.claims.claim("acme", 1)).tasks
    assert await store.claims.renew([task]) == []
    await store.claims.hand_back([task])
    (task,) = (await store.claims.claim("acme", 1)).tasks
    assert await store.claims.hand_back_unknown("acme", [task]) == 0
    await store.claims.finish(task, outcome(Verdict.RETRY, 503), retry_in=0)

    async def due() -> bool:
        await store.claims.promote_due(10)
        return await state(store, task_id) == State.QUEUED

    await until(due)
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.DELIVERED), retry_in=None, want=1)
    assert await state(store, task_id) == State.SUCCEEDED
    delayed = await admit(store, delay=60)
    cancelled = await store.tasks.cancel("acme", delayed)
    assert cancelled is not None
    assert cancelled[1]
    await store.claims.reclaim_lapsed(10)
    assert (await store.audit.stretch(10)).violations == []
    await store.windows.usage("acme")
    metrics.take_usage()
    metrics.rate_limited("acme", "free")
    metrics.attempt("acme", "http://target/", outcome(Verdict.RETRY, 503))
    await Booking(store.usages).flush()
    figures = await store.figured.latest(store.consumer)
    assert (figures.scheduled, figures.dead) == (0, 0)
    assert [name for name, _ in await store.usages.most(REFUSED, figures.at / 1000, 1)] == ["acme"]
    assert (await store.usages.failures(figures.at / 1000)).by_status == [("503", 1)]
    assert (await store.health()).persistence_ok
    assert (await store.clients.get("acme")) is not None
    page = await store.clients.page(after=None, limit=None, tier=None, enabled=None)
    assert page.count == 1
    await store.clients.update("acme", lambda client: client or store.clients.new("acme"))
    await operate(store)
    await admit(store)
    assert await store.clients.delete("acme", cancel_tasks=True) == 1


async def operate(store: Store) -> None:
    """What operators ask for: a pause, dead letters, explanations, who is there."""
    for paused in (True, False):
        assert await store.clients.pause("acme", paused=paused)
    made, _ = await store.signing.create("acme")
    assert await store.signing.remove("acme", made.secret_id)
    key, _ = await store.client_keys.create("acme")
    assert await store.client_keys.revoke("acme", key.key_id)
    assert await store.client_keys.release("acme")
    dead = await admit(store)
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.REFUSED, 404), retry_in=None)
    letters = TaskFilter(client_id="acme", states=frozenset({State.DEAD}))
    assert len((await store.listing.page(letters, cursor=None, limit=1, newest=True)).tasks) == 1
    assert await store.steering.all("replay", letters) == 1
    assert await store.tasks.explain("acme", dead) is not None
    (task,) = (await store.claims.claim("acme", 1)).tasks
    await store.claims.finish(task, outcome(Verdict.REFUSED, 404), retry_in=None)
    assert await store.steering.all("purge", letters) == 1
    job = await store.jobs.create("purge", letters, dry_run=True, asked={}, address="", key=None, request_id="")
    assert await store.jobs.get(job.job_id) is not None
    await store.journal.note(Change(action="set", address="::1", request_id="r"))
    assert len((await store.journal.page(before=None, limit=5))[0]) == 1
    async with presence(store, Settings.load({}), None):

        async def seen() -> bool:
            return len(await store.replicas.all()) == 1

        await until(seen)
