"""Jobs: counted first, done step by step, aborted between two, taken over from a process that is gone."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from conftest import GatewayFactory, Target, until
from deployments import Deployment
from stores import Opened, admit, limit, one_claim, outcome

from gateway.models import State, Verdict
from gateway.store import Store
from gateway.store.jobs import LEASE_MS, Job
from gateway.task_filter import TaskFilter

TOLD = {"asked": {}, "address": "127.0.0.1", "key": None, "request_id": "r"}


async def work(store: Store, job: Job | None) -> Job:
    """Steps until the job needs none."""
    last = job
    while job is not None:
        last, job = job, await store.job_worker.step(job)
    assert last is not None
    done = await store.jobs.get(last.job_id)
    assert done is not None
    return done


async def test_it_counts_then_does_what_was_counted(opened: Opened) -> None:
    """Of all clients, in several steps; what is enqueued later is not touched; counts agree, and the audit log says how
    many it were."""
    store = await opened()
    for name in ("acme", "other"):
        await limit(store, name, 1000, 10**6)
        for _ in range(130):
            await admit(store, name, delay=60, labels=("bulk",))
        await admit(store, name, delay=60)
    job = await store.jobs.create("cancel", TaskFilter(label="bulk"), dry_run=True, **TOLD)
    counted = await work(store, await store.jobs.take("me"))
    assert (counted.state, counted.matched, counted.changed) == ("counted", 260, 0)
    assert await store.jobs.take("me") is None
    late = await admit(store, labels=("bulk",), delay=60)
    started = await store.jobs.update(counted, state="running", cursor=None)
    assert started is not None
    done = await work(store, await store.jobs.take("me"))
    assert (done.job_id, done.state, done.changed, done.skipped) == (job.job_id, "done", 260, 0)
    assert done.finished_at >= done.began > 0
    assert [each.job_id for each in await store.jobs.all()] == [job.job_id]
    waiting = await store.listing.page(
        TaskFilter(states=frozenset({State.SCHEDULED})), cursor=None, limit=9, newest=True
    )
    assert len(waiting.tasks) == 3
    assert late in {task.view.task_id for task in waiting.tasks}
    assert not (await store.audit.stretch(100)).violations
    [entry], _ = await store.journal.page(before=None, limit=5)
    assert (entry.change.action, entry.change.tasks) == ("cancel_job", 260)


async def test_dead_letters_that_die_again_are_not_replayed_again(opened: Opened) -> None:
    """Else a job over a target that is still broken would never end."""
    store = await opened()
    await limit(store, "acme", 1000, 10**6)
    for _ in range(3):
        task = await one_claim(store)
        await store.claims.finish(task, outcome(Verdict.REFUSED, 404), retry_in=None)
    job = await store.jobs.create("replay", TaskFilter(), dry_run=False, **TOLD)
    taken = await store.jobs.take("me")
    counted = await store.job_worker.step(taken) if taken else None
    assert counted is not None
    assert (counted.state, counted.matched) == ("running", 3)
    await store.steering.all("replay", TaskFilter(client_id="acme"))
    for task in (await store.claims.claim("acme", 10)).tasks:
        await store.claims.finish(task, outcome(Verdict.REFUSED, 404), retry_in=None)
    done = await work(store, counted)
    assert (done.job_id, done.changed) == (job.job_id, 0)


async def test_another_process_goes_on_where_one_stopped(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its lease, from the step it had come to; the one that comes back late changes nothing more."""
    monkeypatch.setattr("gateway.store.jobs.LEASE_MS", 1)
    one, other = await opened(), await opened()
    await limit(one, "acme", 1000, 10**6)
    for _ in range(250):
        await admit(one, delay=60)
    await one.jobs.create("run", TaskFilter(client_id="acme"), dry_run=False, **TOLD)
    job = await one.jobs.take("one")
    while job is not None and job.state == "counting":
        job = await one.job_worker.step(job)
    half = await one.job_worker.step(job) if job else None
    assert half is not None
    assert half.changed == 100
    taken: list[Job] = []

    async def lapsed() -> bool:
        found = await other.jobs.take("other")
        taken.extend([found] if found else [])
        return found is not None

    await until(lapsed)
    assert (taken[0].taken_over, taken[0].changed, LEASE_MS) == (1, 100, 15_000)
    assert await one.job_worker.step(half) is None
    done = await work(other, taken[0])
    assert (done.state, done.changed, done.skipped) == ("done", 150, 0)  # a hundred were the late one's
    assert (await one.windows.usage("acme")).queued == 250


async def test_what_this_version_cannot_read_is_left_alone(opened: Opened, deployment: Deployment) -> None:
    """A job of a newer version stays for those that know it, others are worked on; one that is gone is forgotten."""
    store = await opened()
    strange = await store.jobs.create("cancel", TaskFilter(), dry_run=True, **TOLD)
    gone = await store.jobs.create("cancel", TaskFilter(), dry_run=True, **TOLD)
    job = await store.jobs.create("cancel", TaskFilter(), dry_run=True, **TOLD)
    keyspace = deployment.keyspace
    async with deployment.raw() as raw:
        await raw.set(keyspace.job(strange.job_id), '{"state": "new"}')
        await raw.delete(keyspace.job(gone.job_id))
        taken = await store.jobs.take("me")
        assert taken is not None
        assert taken.job_id == job.job_id
        assert await store.jobs.take("me") is None
        open_jobs = await raw.zrange(keyspace.open_jobs, 0, -1)
        assert strange.job_id in open_jobs
        assert gone.job_id not in open_jobs
    assert [each.job_id for each in await store.jobs.all()] == [job.job_id]


async def test_an_abort_holds_after_the_step_it_meets(opened: Opened) -> None:
    """What is left stays as it is, and what the last step did is counted."""
    store = await opened()
    await limit(store, "acme", 1000, 10**6)
    for _ in range(250):
        await admit(store, delay=60)
    await store.jobs.create("cancel", TaskFilter(), dry_run=False, **TOLD)
    job = await store.jobs.take("me")
    while job is not None and job.state == "counting":
        job = await store.job_worker.step(job)
    assert job is not None
    assert await store.jobs.update(job, state="aborted", worker=None) is not None
    assert await store.job_worker.step(job) is None
    aborted = await store.jobs.get(job.job_id)
    assert aborted is not None
    assert (aborted.state, aborted.changed) == ("aborted", 100)
    assert (await store.windows.usage("acme")).scheduled == 150


async def test_over_http(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """An operator counts, starts, follows, lists and aborts; dead letters of all clients are replayed by a job."""
    gw = await gateway()
    working = asyncio.create_task(gw.store.job_worker.run())
    target.statuses["/x"] = [404, 404, 200]
    task = {"url": f"{target.url}/x"}
    for _ in range(2):
        await gw.enqueue({"client_id": a_client, "task": task})

    async def follow(job: Any, state: str) -> Any:
        async def there() -> bool:
            job.update((await gw.admin("GET", f"/admin/jobs/{job['job_id']}"))[1])
            return bool(job["state"] == state)

        await until(there)
        return job

    async def dead() -> bool:
        return len((await gw.admin("GET", "/admin/dead"))[1]["tasks"]) == 2

    await until(dead)
    status, job, _ = await gw.admin(
        "POST", "/admin/jobs", json={"action": "replay", "filter": {"client_id": a_client, "status": 404}}
    )
    assert (status, job["state"], job["dry_run"]) == (202, "counting", True)
    counted = await follow(job, "counted")
    assert (counted["matched"], counted["filter"]) == (2, {"client_id": a_client, "status": 404})
    assert (await gw.admin("DELETE", f"/admin/jobs/{job['job_id']}"))[1]["state"] == "aborted"
    assert (await gw.admin("DELETE", f"/admin/jobs/{job['job_id']}"))[0] == 409
    assert (await gw.admin("POST", f"/admin/jobs/{job['job_id']}/start"))[0] == 409
    status, job, _ = await gw.admin("POST", "/admin/jobs", json={"action": "replay"})
    await follow(job, "counted")
    assert (await gw.admin("POST", f"/admin/jobs/{job['job_id']}/start"))[0] == 202
    done = await follow(job, "done")
    assert (done["changed"], done["worker"]) == (2, None)
    await target.received(4)
    status, job, _ = await gw.admin("DELETE", "/admin/dead")
    assert (status, job["action"]) == (202, "purge")
    await follow(job, "done")
    assert len((await gw.admin("GET", "/admin/jobs"))[1]["jobs"]) == 3
    assert (await gw.admin("GET", "/admin/jobs/job_0000000000000000"))[0] == 404
    for body, told in (
        ({"action": "explode"}, "$.action"),
        ({"action": "run", "filter": {"state": "dead"}}, "$.filter.state: run is for retrying, scheduled ones"),
        ({"action": "run", "filter": {"stat": "dead"}}, "did you mean state?"),
        ({"action": "run", "filter": {"client_id": "a"}}, "$.filter.client_id: must be"),
    ):
        status, refused, _ = await gw.admin("POST", "/admin/jobs", json=body)
        assert (status, told in refused["message"]) == (400, True), refused
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
