"""Guesses at keys are bounded over all processes, and cost only who guesses."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import GatewayFactory, until
from deployments import Deployment
from processes import Process, Server

from gateway.errors import StoreUnavailable, TooManyRequests
from gateway.keys import AppKeys
from gateway.middleware.guesses import Guesses
from gateway.store.client_keys import PREFIX

HOOK = "http://127.0.0.1:9/hook"


async def enqueue(at: Any, client: str, key: str) -> int:
    """The status of a task with this key; ``at`` has a session and a URL."""
    body = {"client_id": client, "task": {"url": HOOK}}
    url, headers = f"{at.url}/v1/enqueue", {"X-Client-Key": key}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        return answer.status


async def ask(at: Any, key: str) -> int:
    """The status of an admin call with this key."""
    url, headers = f"{at.url}/admin/tiers", {"X-Admin-Key": key}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status


@pytest.mark.timeout(120)
async def test_two_processes_look_at_as_many_guesses_as_one(tmp_path: Path) -> None:
    """Guesses in turns at two processes: they look at five and one more, where each by itself would look at five; then
    neither takes the right key, an operator's or the client's."""
    server = Server(tmp_path)
    await server.start()
    settings = {
        "REDIS_URL": server.url,
        "ADMIN_GUESSES_PER_MIN": "5",
        "CLIENT_GUESSES_PER_MIN": "5",
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    async with aiohttp.ClientSession() as session:
        both = [Process(session, tmp_path / f"{name}.log", [], **settings) for name in ("one", "two")]
        try:
            await asyncio.gather(*(each.ready() for each in both))
            assert (await both[0].call("PUT", "/admin/clients/set", {"client_id": "acme"}))[0] == 200
            status, made = await both[0].call("POST", "/admin/clients/keys?client_id=acme")
            assert status == 201
            for each in both:
                assert await enqueue(each, "acme", made["key"]) == 201
            ends = [await enqueue(both[n % 2], "acme", f"{PREFIX}guess-{n}") for n in range(12)]
            assert ends == [401] * 6 + [429] * 6
            assert [await enqueue(each, "acme", made["key"]) for each in both] == [429, 429]
            assert [await ask(both[n % 2], f"guess-{n}") for n in range(12)] == [401] * 6 + [429] * 6
            assert [await ask(each, "key") for each in both] == [429, 429]
        finally:
            for each in both:
                each.process.kill()
                each.process.wait()
            server.kill()


async def test_a_right_key_is_not_looked_at_on_either_way(gateway: GatewayFactory, a_client: str) -> None:
    """Past the bound the express way, too, takes no key of the client from there, until the bucket has room again; a
    request without a key is 401 as ever."""
    gw = await gateway(dispatch=False, client_guesses_per_min="60")
    assert (await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client}))[0] == 200
    made = (await gw.admin("POST", f"/admin/clients/keys?client_id={a_client}"))[1]
    for _ in range(2):
        assert await enqueue(gw, a_client, made["key"]) == 201
    guesses = gw.app[AppKeys.CLIENT_GUESSES]
    while guesses.wait("127.0.0.1", a_client) < 3:
        await guesses.wrong("127.0.0.1", a_client)
    assert await enqueue(gw, a_client, made["key"]) == 429
    status, told, headers = await gw.call(
        "GET", f"/v1/rate-limit?client_id={a_client}", headers={"Authorization": f"Bearer {made['key']}"}
    )
    assert (status, told["error"], int(headers["Retry-After"]) >= 1) == (429, "Too many wrong keys", True)
    assert (await gw.enqueue({"client_id": a_client, "task": {"url": HOOK}}))[0] == 401
    await until(lambda: guesses.wait("127.0.0.1", a_client) == 0)
    assert await enqueue(gw, a_client, made["key"]) == 201


async def test_who_guesses_closes_its_own_address_and_that_client_alone(gateway: GatewayFactory, a_client: str) -> None:
    """Behind a trusted proxy the guesser waits; the client's caller at another address, another client and who shows no
    key where none is needed do not."""
    gw = await gateway(dispatch=False, client_guesses_per_min="2", trusted_proxies="127.0.0.1")
    keys = {}
    for name in (a_client, f"{a_client}-other"):
        assert (await gw.admin("PUT", "/admin/clients/set", json={"client_id": name}))[0] == 200
        keys[name] = (await gw.admin("POST", f"/admin/clients/keys?client_id={name}"))[1]["key"]

    async def asks(name: str, key: str, address: str) -> int:
        headers = {"X-Forwarded-For": address, "X-Client-Key": key}
        return (await gw.enqueue({"client_id": name, "task": {"url": HOOK}}, headers=headers))[0]

    assert [await asks(a_client, f"{PREFIX}no", "10.1.1.1") for _ in range(3)] == [401, 401, 429]
    assert await asks(a_client, keys[a_client], "10.1.1.1") == 429
    assert await asks(a_client, keys[a_client], "10.1.1.2") == 201
    assert await asks(f"{a_client}-other", keys[f"{a_client}-other"], "10.1.1.1") == 201
    assert await asks(f"{a_client}-free", "somebody else's", "10.1.1.1") == 201


async def test_without_redis_each_counts_alone_and_right_keys_never_count() -> None:
    """Where Redis does not answer, the process's own bucket holds; what it hears there holds where it is more."""
    asked: list[str] = []

    async def away(place: str, client: str, most: int) -> float:
        asked.append(place)
        raise StoreUnavailable("away")

    now = [100.0]
    guesses = Guesses(2, away, clock=lambda: now[0])
    for _ in range(2):
        guesses.refuse("10.0.0.1")
        await guesses.wrong("10.0.0.1")
    with pytest.raises(TooManyRequests):
        guesses.refuse("10.0.0.1")
    assert asked == ["10.0.0.1"] * 2

    async def others(place: str, client: str, most: int) -> float:
        return 150.0

    guesses = Guesses(2, others, clock=lambda: now[0])
    await guesses.wrong("10.0.0.1", "acme")
    assert (guesses.wait("10.0.0.1", "acme"), guesses.wait("10.0.0.1"), guesses.concern("acme")) == (120, 0, True)
    now[0] += 120
    assert (guesses.wait("10.0.0.1", "acme"), guesses.concern("acme")) == (0, False)


async def test_counting_over_every_topology(deployment: Deployment) -> None:
    """Two processes fill one bucket; operators' and clients' are apart, and each is gone once it is full again."""
    async with deployment.store() as one, deployment.store() as two:
        for number, store in enumerate((one, two, one), start=1):
            assert 20 * number - 2 < await store.wrong_keys.count("10.0.0.1", "acme", 3) <= 20 * number
        assert 19 < await two.wrong_keys.count("10.0.0.1", "", 3) <= 20
        assert 19 < await two.wrong_keys.count("2001:db8::/64", "acme", 3) <= 20
        async with deployment.raw() as raw:
            key = deployment.keyspace.wrong_keys("10.0.0.1", "acme")
            assert 0 < await raw.pttl(key) <= 60_000
