"""TASK_ENCRYPTION_KEYS at work over each deployment of Redis: what lies there, and what becomes of tasks while keys
come, change and go."""

import base64
from typing import Any

import msgspec
import pytest
from conftest import Gateway, GatewayFactory, Target, until
from deployments import Deployment
from sealed import everything, gateways, raw, store_url

from gateway.store.stored import Record

__all__ = ["gateways", "raw", "store_url"]  # fixtures

OLD, NEW = (f"{name}:{base64.b64encode(name.encode() * 8).decode()}" for name in ("old1", "new1"))
BODY, HEADER, QUERY, PATH, ANSWER = (f"canary-{what}-4111" for what in ("body", "header", "query", "path", "answer"))

_BODY = Record.__struct_fields__.index("body")


def secret_task(target: Target, client: str, path: str = "/ok", **more: Any) -> dict[str, Any]:
    task = {
        "url": f"{target.url}{path}?sig={QUERY}",
        "headers": {"Authorization": HEADER, "X-Plain": "ü"},
        "body": f'{{"card": "{BODY}", "name": "ü"}}',
    }
    return {"client_id": client, "task": task, **more}


async def stored(gw: Gateway, body: dict[str, Any], status: int = 201) -> str:
    got, answer, _ = await gw.enqueue(body)
    assert got == status, answer
    return str(answer["task_id"])


async def reaches(gw: Gateway, client: str, task_id: str, state: str) -> dict[str, Any]:
    """The task, once it is in that state."""
    seen: dict[str, Any] = {}

    async def is_there() -> bool:
        seen.update((await gw.call("GET", f"/v1/tasks/{task_id}?client_id={client}"))[1])
        return bool(seen["state"] == state)

    await until(is_there, tell=lambda: str(seen))
    return seen


async def in_every_state(gw: Gateway, target: Target, client: str) -> None:
    """Tasks queued, scheduled, retrying, dead, succeeded and named by an idempotency key."""
    target.statuses |= {f"/{PATH}": 503, "/refuse": 404}
    target.bodies |= {path: ANSWER.encode() for path in ("/ok", "/refuse", f"/{PATH}")}
    await stored(gw, secret_task(target, client, idempotency_key="order-1", expires_at="2199-01-01T00:00:00Z"))
    await stored(gw, secret_task(target, client, delay=60))
    for path, state in (("/ok", "succeeded"), ("/refuse", "dead"), (f"/{PATH}", "retrying")):
        seen = await reaches(gw, client, await stored(gw, secret_task(target, client, path)), state)
        assert seen["last_attempt"]["body"] == ANSWER
    await gw.admin("POST", f"/admin/clients/pause?client_id={client}")
    await stored(gw, secret_task(target, client))
    await stored(gw, secret_task(target, client, queue="other"))


async def test_redis_holds_nothing_that_can_be_read(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str
) -> None:
    """In whatever state tasks are, neither body, header, path and query nor a target's answer lies in Redis, nor a
    fingerprint to try guesses against; the target gets all of it."""
    gw = await gateways(task_encryption_keys=OLD)
    await in_every_state(gw, target, a_client)
    held = await everything(raw)
    assert "canary" not in held
    assert "xc3xbc" not in held.replace("\\", "")
    assert target.url in held  # what operators and filters go by
    call = target.calls[0]
    assert call["body"].decode() == f'{{"card": "{BODY}", "name": "ü"}}'
    assert (call["headers"]["Authorization"], call["path"]) == (HEADER, f"/ok?sig={QUERY}")
    (_, page, _) = await gw.admin("GET", f"/admin/tasks?client_id={a_client}&limit=50")
    assert {task["url"] for task in page["tasks"]} == {f"{target.url}/…"}
    assert ANSWER in {(task["last_attempt"] or {}).get("body") for task in page["tasks"]}


async def test_without_keys_redis_holds_it_all(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str
) -> None:
    """The same look finds everything where nothing is sealed: the test above can fail."""
    await in_every_state(await gateways(), target, a_client)
    held = await everything(raw)
    assert not [secret for secret in (BODY, HEADER, QUERY, PATH, ANSWER) if secret not in held]


async def test_keys_change_while_tasks_wait(gateways: GatewayFactory, target: Target, a_client: str) -> None:
    """Tasks queued in the clear, under the old key and under the new one are all delivered by a gateway that has the
    new key first and the old one behind it."""
    waiting = []
    for keys in ("", f"none,{OLD}", OLD, f"{NEW},{OLD}"):
        gw = await gateways(dispatch=False, task_encryption_keys=keys)
        waiting.append(await stored(gw, secret_task(target, a_client)))
        waiting.append(await stored(gw, secret_task(target, a_client, delay=0.2)))
    gw = await gateways(task_encryption_keys=f"{NEW},{OLD}")
    for task_id in waiting:
        await reaches(gw, a_client, task_id, "succeeded")
    assert [call["headers"]["Authorization"] for call in target.calls] == [HEADER] * len(waiting)


async def test_a_task_whose_key_is_gone_is_a_dead_letter(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str
) -> None:
    """It is buried at its first start with a reason that names the key, without a call; what waits behind it runs; and
    once the key is back it can be replayed."""
    lost = await stored(await gateways(dispatch=False, task_encryption_keys=OLD), secret_task(target, a_client))
    gw = await gateways(task_encryption_keys=NEW)
    seen = await reaches(gw, a_client, lost, "dead")
    assert seen["reason"] == "sealed with the key old1, which TASK_ENCRYPTION_KEYS does not have"
    assert (seen["attempts"], seen["last_attempt"]["error"]) == (1, seen["reason"])
    await reaches(gw, a_client, await stored(gw, secret_task(target, a_client)), "succeeded")
    assert len(target.calls) == 1
    back = await gateways(task_encryption_keys=f"{NEW},{OLD}")
    # Whichever of the two starts it: the one without the key buries it again.
    assert gw.dispatcher is not None
    await gw.dispatcher.__aexit__(None, None, None)
    status, answer, _ = await back.admin("POST", f"/admin/dead/replay?client_id={a_client}&task_id={lost}")
    assert (status, answer["tasks"]) == (200, 1)
    await reaches(back, a_client, lost, "succeeded")
    assert "canary" not in await everything(raw)


@pytest.mark.parametrize("delay", [0, 0.3])
async def test_a_sealed_task_moved_to_another_client_is_not_called(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str, *, delay: float, deployment: Deployment
) -> None:
    """Who can write to Redis can't have one client's task called as another's: it does not open there."""
    gw = await gateways(dispatch=False, task_encryption_keys=OLD)
    theirs, thief = secret_task(target, a_client, delay=delay), f"thief-{a_client}"
    victim = await stored(gw, theirs)
    own = await stored(gw, {"client_id": thief, "delay": delay, "task": {"url": f"{target.url}/thief"}})
    if delay:
        sealed = msgspec.msgpack.decode(await raw.get(deployment.key(f"task:{victim}", a_client)))[_BODY]
        record = msgspec.msgpack.decode(await raw.get(deployment.key(f"task:{own}", thief)))
        record[_BODY] = sealed
        await raw.set(deployment.key(f"task:{own}", thief), msgspec.msgpack.encode(record))
    else:
        ((_, fields),) = await raw.xrange(deployment.key(f"stream:{a_client}:default", a_client))
        ((entry, _),) = await raw.xrange(deployment.key(f"stream:{thief}:default", thief))
        # The group has read nothing yet: an entry behind the thief's own, with the victim's task in it.
        await raw.xdel(deployment.key(f"stream:{thief}:default", thief), entry)
        await raw.xadd(deployment.key(f"stream:{thief}:default", thief), fields)
    gw = await gateways(task_encryption_keys=OLD)
    await reaches(gw, a_client, victim, "succeeded")
    dead = await _first_dead(gw, thief)
    assert dead["reason"] == "sealed content was changed, or moved from another task (key old1)"
    assert [call["headers"]["X-Client-ID"] for call in target.calls] == [a_client]


async def _first_dead(gw: Gateway, client: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = (await gw.admin("GET", f"/admin/dead?client_id={client}"))[1]["tasks"]
        return bool(found)

    await until(there)
    return found[0]


async def test_a_repeated_request_is_known_through_a_change_of_keys(
    gateways: GatewayFactory, target: Target, a_client: str
) -> None:
    """The same task under its idempotency key is a duplicate and another one a conflict, whether the first came before
    there were keys, under the key of the time, or under one that is now the second."""
    first: dict[str, str] = {}
    for name, keys in (("clear", ""), ("old", OLD), ("new", f"{NEW},{OLD}")):
        gw = await gateways(dispatch=False, task_encryption_keys=keys)
        first[name] = await stored(gw, secret_task(target, a_client, idempotency_key=name))
    for name, task_id in first.items():
        again = secret_task(target, a_client, idempotency_key=name)
        status, answer, _ = await gw.enqueue(again)
        assert (status, answer["status"], answer["task_id"]) == (200, "duplicate", task_id)
        again["task"]["body"] += " "
        assert (await gw.enqueue(again))[0] == 409
    # In a batch too; and without the key nobody can tell, which is a conflict and never a task that is dropped.
    items = [{**secret_task(target, a_client, idempotency_key=name)} for name in first]
    for item in items:
        del item["client_id"]
    _, answer, _ = await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": items})
    assert [item["status"] for item in answer["results"]] == [200, 200, 200]
    blind = await gateways(dispatch=False, task_encryption_keys=NEW)
    assert (await blind.enqueue(secret_task(target, a_client, idempotency_key="old")))[0] == 409
