"""DURABILITY: what a 201 and a call wait for beside Redis's own reply, with replicas that are frozen and let go."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import GatewayFactory, Target, until
from redis_servers import Server, eventually, short_folder
from stores import outcome

from gateway.models import Verdict

WAIT = {"durability": "wait", "durability_timeout": "1"}


class Pair:
    """A primary and its replica, each with an AOF that is on disk before it answers."""

    def __init__(self, folder: Path) -> None:
        for name in ("primary", "replica"):
            (folder / name).mkdir()
        options = ("--repl-diskless-sync-delay", "0", "--appendonly", "yes", "--appendfsync", "always")
        self.primary = Server(folder / "primary", *options)
        self.replica = Server(folder / "replica", "--replicaof", f"127.0.0.1 {self.primary.port}", *options)
        self.url = self.primary.url
        eventually(lambda: "online" in str(self.info("replication").get("slave0")))

    def info(self, section: str) -> dict[str, Any]:
        with self.primary.client() as client:
            return dict(client.info(section))

    def calls(self, command: str) -> int:
        """How often the primary was asked for it."""
        return int(self.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    def kill(self) -> None:
        self.primary.kill()
        self.replica.kill()


@pytest.fixture(scope="module")
def module_pair() -> Iterator[Pair]:
    with short_folder() as folder:
        made = Pair(folder)
        try:
            yield made
        finally:
            made.kill()


@pytest.fixture
def pair(module_pair: Pair) -> Iterator[Pair]:
    """The same, emptied, its replica running again at the end."""
    with module_pair.primary.client() as client:
        client.flushall()
    yield module_pair
    module_pair.replica.signal(signal.SIGCONT)


def task(target: Target, **more: Any) -> dict[str, Any]:
    return {"client_id": "durable", "task": {"url": f"{target.url}/x"}, **more}


@pytest.mark.parametrize("durability", ["wait", "waitaof"])
async def test_a_confirmed_task_is_accepted_and_called(
    gateway: GatewayFactory, target: Target, pair: Pair, durability: str
) -> None:
    """With the replica there it is a 201 and a call, and the callers of a moment share one wait."""
    gw = await gateway(redis_url=pair.url, durability=durability, durability_timeout="5")
    before = pair.calls(durability)
    wide = {"max_concurrent": 50, "requests_per_min": 1000}
    bodies = [task(target, rate_limit=wide) for _ in range(40)]
    answers = await asyncio.gather(*(gw.enqueue(body) for body in bodies))
    assert [status for status, _, _ in answers] == [201] * 40
    await target.received(40, 30)
    assert 2 <= pair.calls(durability) - before < 80


async def test_nobody_waits_without_it(gateway: GatewayFactory, target: Target, pair: Pair) -> None:
    """DURABILITY=none sends no WAIT at all, and a frozen replica holds nobody up."""
    gw = await gateway(redis_url=pair.url)
    pair.replica.signal(signal.SIGSTOP)
    before = pair.calls("wait")
    assert (await gw.enqueue(task(target)))[0] == 201
    await target.received(1)
    assert pair.calls("wait") == before


async def test_an_unconfirmed_task_is_a_503_that_says_how_to_go_on(
    gateway: GatewayFactory, target: Target, pair: Pair
) -> None:
    """It may exist, and its key makes the repeat safe: the same key then answers the one task there is."""
    gw = await gateway(redis_url=pair.url, dispatch=False, **WAIT)
    assert (await gw.enqueue(task(target)))[0] == 201
    pair.replica.signal(signal.SIGSTOP)
    # Also where Redis has it already, over another connection, the answer waits until the replica has it too.
    hasty = await gateway(redis_url=pair.url, dispatch=False)
    other = task(target, idempotency_key="of-another")
    assert (await hasty.enqueue(other))[0] == 201
    assert (await gw.enqueue(other))[0] == 503
    body = task(target, idempotency_key="once")
    status, refused, headers = await gw.enqueue(body)
    assert (status, refused["error"]) == (503, "Service unavailable")
    assert refused["message"] == (
        "Fewer replicas than DURABILITY asks for confirmed it in time. "
        "The task may exist; sent again with the same idempotency_key it is stored once."
    )
    assert int(headers["Retry-After"]) >= 1
    assert (await gw.enqueue(body))[0] == 503
    pair.replica.signal(signal.SIGCONT)

    async def taken() -> bool:
        return (await gw.enqueue(body))[0] == 200

    await until(taken)
    assert (await gw.call("GET", "/v1/rate-limit?client_id=durable"))[1]["queued"] == 3
    batch = {"client_id": "durable", "tasks": [{"task": body["task"]}]}
    pair.replica.signal(signal.SIGSTOP)
    assert (await gw.call("POST", "/v1/enqueue/batch", json=batch))[0] == 503


async def test_no_call_starts_before_its_claim_is_confirmed(
    gateway: GatewayFactory, target: Target, pair: Pair
) -> None:
    """While the replica is frozen the target hears nothing; then it hears of each task once, and no slot is lost."""
    gw = await gateway(redis_url=pair.url, **WAIT)
    pair.replica.signal(signal.SIGSTOP)
    unconfirmed = pair.calls("wait")
    for _ in range(3):
        assert (await gw.enqueue(task(target)))[0] == 503
    # The dispatcher has tried to claim meanwhile, and given back what it could not have confirmed.
    await until(lambda: pair.calls("wait") > unconfirmed + 4, 30)
    assert target.calls == []
    pair.replica.signal(signal.SIGCONT)
    calls = await target.received(3, 30)
    assert len({call["headers"]["X-Task-ID"] for call in calls}) == 3

    async def done() -> bool:
        usage = await gw.store.windows.usage("durable")
        return (usage.in_flight, usage.queued) == (0, 0)

    await until(done, 30)
    assert len(target.calls) == 3


async def test_a_wait_holds_up_no_renewal_and_no_finish(gateway: GatewayFactory, target: Target, pair: Pair) -> None:
    """While an admission waits for a replica that is frozen, what keeps claims alive and ends them is answered."""
    gw = await gateway(dispatch=False, redis_url=pair.url, durability="wait", durability_timeout="5")
    assert (await gw.enqueue(task(target)))[0] == 201
    [claimed] = (await gw.store.claims.claim("durable", 1)).tasks
    pair.replica.signal(signal.SIGSTOP)
    waiting = asyncio.create_task(gw.enqueue(task(target)))
    before = pair.calls("wait")
    await until(lambda: pair.info("clients")["blocked_clients"] == 1)
    assert await gw.store.claims.renew([claimed]) == []
    done = await gw.store.claims.finish(claimed, outcome(Verdict.DELIVERED), retry_in=None)
    assert done.owned
    assert not waiting.done()
    assert pair.calls("wait") == before  # WAIT is counted once it has returned
    pair.replica.signal(signal.SIGCONT)
    assert (await waiting)[0] == 201


async def test_a_server_that_can_not_do_it_says_so(
    gateway: GatewayFactory, target: Target, pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    """WAITAOF without an AOF is an error of Redis: 503 to the caller, the reason in the log."""
    with pair.primary.client() as client:
        client.config_set("appendonly", "no")
        try:
            gw = await gateway(redis_url=pair.url, dispatch=False, durability="waitaof", durability_replicas="0")
            assert (await gw.enqueue(task(target)))[0] == 503
        finally:
            client.config_set("appendonly", "yes")
    assert "WAITAOF cannot be used" in capsys.readouterr().out
