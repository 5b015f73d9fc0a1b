"""No task calls a gateway: neither another process on this Redis nor, wherever it gets to, the operators' API."""

import ipaddress
from typing import Any

import aiohttp
import pytest
from conftest import ADMIN_KEY, GatewayFactory, until

from gateway import neighbours
from gateway.app import running
from gateway.neighbours import Neighbours, machine_addresses
from gateway.settings import Settings
from gateway.store.replicas import Replica

HERE = "10.0.0.5"


def replica(*listeners: tuple[str, int], addresses: tuple[str, ...] = (HERE,)) -> Replica:
    """A process that listens there, on a machine with these addresses."""
    figures = {"started_at": 0, "seen_at": 0, "in_flight": 0, "max_in_flight": 1}
    return Replica(name="x", version="1", role="all", listeners=listeners, addresses=addresses, **figures)


@pytest.mark.parametrize(
    ("listener", "addresses", "closed"),
    [
        # this machine
        (("127.0.0.1", 8080), (HERE,), {("127.0.0.1", 8080)}),
        (("::1", 8080), (HERE,), {("::1", 8080)}),
        (("0.0.0.0", 8081), (HERE,), {(HERE, 8081), ("127.0.0.1", 8081)}),
        (("127.0.0.1", 8080), (), {("127.0.0.1", 8080)}),
        # another, which has a bridge of the same address as this one
        (("127.0.0.1", 8080), (HERE, "10.0.0.6"), set()),
        (("::", 8081), ("10.0.0.6", "fd00::6"), {("10.0.0.6", 8081), ("fd00::6", 8081)}),
        (("10.0.0.6", 8080), ("10.0.0.6",), {("10.0.0.6", 8080)}),
        (("nonsense", 8080), ("10.0.0.6", "nonsense"), {("10.0.0.6", 8080)}),
    ],
)
def test_a_listener_is_closed_by_every_address_that_reaches_it(
    monkeypatch: pytest.MonkeyPatch, listener: tuple[str, int], addresses: tuple[str, ...], closed: set[tuple[str, int]]
) -> None:
    """All of its machine's where it takes any; loopback only where the machine is this one."""
    monkeypatch.setattr(neighbours, "is_local", lambda address: str(address) == HERE)
    known = Neighbours()
    known.learn([replica(listener, addresses=addresses)])
    assert set(known.listeners()) == closed
    known.learn([])
    assert known.listeners() == []


def test_a_machine_knows_its_addresses() -> None:
    """They are addresses, and none that means something else on another machine."""
    for text in machine_addresses():
        address = ipaddress.ip_address(text)
        assert not address.is_loopback
        assert not address.is_link_local


async def test_no_task_calls_another_process_of_the_gateway(store_url: str, a_client: str) -> None:
    """A dispatcher refuses the listeners of a process beside it, `/admin` on a port of its own included, though
    OUTBOUND_ALLOW names the machine's loopback."""
    common = {"REDIS_URL": store_url, "PORT": "0", "OUTBOUND_ALLOW": "127.0.0.0/8,localhost", "DRAIN_SECONDS": "1"}
    front = Settings.load(common, {"ROLE": "api"})
    beside = Settings.load({**common, "ADMIN_PORT": "0"}, {"ROLE": "api"})
    back = Settings.load(common, {"ROLE": "dispatcher"})
    async with (
        running(front) as [here],
        running(beside) as [public, operators],
        running(back),
        aiohttp.ClientSession(here) as session,
    ):

        async def refused(url: str) -> bool:
            body = {"client_id": a_client, "max_retry": 0, "task": {"url": url, "method": "GET"}}
            async with session.post("/v1/enqueue", json=body) as answer:
                assert answer.status == 201
                task_id = (await answer.json())["task_id"]
            view: dict[str, Any] = {}

            async def ended() -> bool:
                async with session.get(f"/v1/tasks/{task_id}?client_id={a_client}") as answer:
                    view.update(await answer.json())
                return view["state"] in {"dead", "succeeded"}

            await until(ended)
            return view["reason"] == "target not allowed: listener of the gateway itself or its Redis"

        await until(lambda: refused(f"{public}/health"))
        port = operators.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"):
            assert await refused(f"http://{host}:{port}/admin/clients"), host


@pytest.mark.parametrize("key", [True, False])
async def test_a_task_is_no_operator(gateway: GatewayFactory, key: bool) -> None:
    """Whatever carries the header that each call of a task has is 403 on /admin, with the key and without one."""
    gw = await gateway(dispatch=False, **({} if key else {"admin_api_key": ""}))
    headers = {"X-Task-ID": "x"} | ({"X-Admin-Key": ADMIN_KEY} if key else {})
    for method, path in (("GET", "/admin/clients"), ("DELETE", "/admin/clients/delete?client_id=acme")):
        status, body, _ = await gw.call(method, path, headers=headers)
        assert (status, body["error"]) == (403, "Forbidden")
