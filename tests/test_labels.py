"""Labels: given at enqueue, kept and shown with the task; and the attempts that a task has behind it."""

from conftest import GatewayFactory, Target, until
from stores import admit, outcome

from gateway.models import Attempt, Outcome, Verdict
from gateway.store import Store


async def test_labels_stay_with_the_task_to_its_end(store: Store) -> None:
    """Waiting, scheduled for its retry, and ended."""
    task_id = await admit(store, labels=("order-4711", "eu"))
    for verdict, retry_in in ((None, None), (Verdict.RETRY, 0), (Verdict.DELIVERED, None)):

        async def runs(verdict: Verdict | None = verdict, retry_in: int | None = retry_in) -> bool:
            await store.claims.promote_due(10)
            tasks = (await store.claims.claim("acme", 1)).tasks
            if tasks and verdict is not None:
                await store.claims.finish(tasks[0], outcome(verdict), retry_in=retry_in)
            return bool(tasks)

        if verdict is not None:
            await until(runs)
        view = await store.tasks.view("acme", task_id)
        assert view is not None
        assert view.labels == ("order-4711", "eu")


async def test_every_attempt_is_kept_up_to_twenty(store: Store) -> None:
    """Oldest first, the earlier ones with less of their answer, the last one whole and once."""
    task_id = await admit(store, max_retry=100)
    for number in range(1, 24):
        attempt = Attempt(status=500 + number % 4, error=None, started_at=number, duration_ms=1, body="x" * 1000)
        dead = Outcome(verdict=Verdict.RETRY, attempt=attempt, reason="http", retry_after=2.0)

        async def fails(dead: Outcome = dead, last: bool = number == 23) -> bool:
            await store.claims.promote_due(10)
            tasks = (await store.claims.claim("acme", 1)).tasks
            if tasks:
                await store.claims.finish(tasks[0], dead, retry_in=None if last else 0)
            return bool(tasks)

        await until(fails)
        kept = await store.tasks.detail("acme", task_id)
        assert kept is not None
        assert [each.started_at for each in kept.history] == list(range(max(1, number - 19), number + 1))
    assert [len(each.body or "") for each in kept.history] == [512] * 19 + [1000]
    assert kept.history[-1].retry_after == 2.0


async def test_over_http(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """A client sees the labels it gave, each once; a task without any has no such field; so in a batch."""
    gw = await gateway(dispatch=False)
    task = {"url": f"{target.url}/x"}
    _, labelled, _ = await gw.enqueue({"client_id": a_client, "task": task, "labels": ["a", "b", "a"]})
    _, plain, _ = await gw.enqueue({"client_id": a_client, "task": task, "labels": []})
    items = [{"task": task, "labels": ["batch:1"]}, {"task": task}]
    _, batch, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": items})
    ids = [labelled["task_id"], plain["task_id"], *(item["task_id"] for item in batch["results"])]
    shown = [(await gw.call("GET", f"/v1/tasks/{task_id}?client_id={a_client}"))[1] for task_id in ids]
    assert [view.get("labels") for view in shown] == [["a", "b"], None, ["batch:1"], None]
