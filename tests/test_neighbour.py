"""What a network neighbour and somebody with a leaked read key get out of the operators' API."""

import hmac
import json
from hashlib import sha256
from time import time
from typing import Any

from conftest import ADMIN_KEY, Gateway, GatewayFactory
from structlog.testing import capture_logs
from test_admin_roles import KEYS, READ, asked
from test_sessions import cookie, log_in

from gateway.middleware.session_cookie import Session, sign
from gateway.openapi.operations import OPERATIONS


async def guess(gw: Gateway, number: int, **headers: str) -> int:
    """The status of a wrong key."""
    return (await gw.call("GET", "/admin/tiers", headers={"X-Admin-Key": f"guess-{number}", **headers}))[0]


async def test_a_neighbour_does_not_guess_on_as_somebody_else(gateway: GatewayFactory) -> None:
    """Another X-Forwarded-For with each guess, or another path: whoever is no trusted proxy stays one guesser."""
    gw = await gateway(dispatch=False, admin_guesses_per_min="3")
    forged = [
        {"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=10.0.1.{n}", "X-Real-IP": "1.1.1.1"} for n in range(6)
    ]
    ends = [await guess(gw, number, **headers) for number, headers in enumerate(forged)]
    assert ends == [401, 401, 401, 429, 429, 429]
    for path in ("/admin", "/admin/", "/admin/nothing", "/admin//tiers"):
        status, _, _ = await gw.call("GET", path, headers={"X-Admin-Key": "guess"})
        assert status in {404, 429}, path


async def test_behind_a_trusted_proxy_each_caller_guesses_for_himself(gateway: GatewayFactory) -> None:
    """The proxy's own word counts, the right-most; what a caller wrote to its left does not get him another try."""
    gw = await gateway(dispatch=False, admin_guesses_per_min="2", trusted_proxies="127.0.0.0/8")
    ends = [await guess(gw, n, **{"X-Forwarded-For": f"9.9.9.{n}, 10.0.0.1"}) for n in range(4)]
    assert ends == [401, 401, 429, 429]
    assert await guess(gw, 5, **{"X-Forwarded-For": "10.0.0.2"}) == 401
    operator = {"X-Admin-Key": ADMIN_KEY, "X-Forwarded-For": "10.0.0.3"}
    assert (await gw.call("GET", "/admin/tiers", headers=operator))[0] == 200


async def test_who_knows_the_hash_of_a_key_makes_no_session_of_it(gateway: GatewayFactory) -> None:
    """A file of hashes that is read by somebody is no login: Redis has the rest of what signs a cookie."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    digest = sha256(READ.encode()).digest()
    now = int(time())
    session = Session("forged", "grafana", now, now, secure=False)
    port = gw.url.rpartition(":")[2]
    for secret in (digest, hmac.digest(b"", digest, "sha256"), b"", digest.hex().encode()):
        text = sign(session, secret)
        answer = await gw.call("GET", "/admin/session", headers={"Cookie": f"gateway_session_{port}={text}"})
        assert answer[0] == 401


async def test_a_read_key_shows_no_secret(gateway: GatewayFactory, a_client: str) -> None:
    """Every call that reads, while there are admin keys, a client's key, its signing secret and a session: none of it
    is in an answer or in the log."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client})
    secrets = [ADMIN_KEY, READ]
    for path, name in (("keys", "key"), ("signing", "secret")):
        status, made, _ = await gw.admin("POST", f"/admin/clients/{path}?client_id={a_client}")
        assert status == 201, made
        secrets.append(made[name])
    secrets.append(cookie((await log_in(gw))[2])["Cookie"].partition("=")[2])
    gw.client.cookie_jar.clear()
    secrets.append((await gw.store.sessions.secret()).decode())
    seen = 0
    with capture_logs() as logs:
        for operation in OPERATIONS:
            if (
                operation.admin and operation.method == "get" and operation.path != "/admin/events"
            ):  # which does not end
                path = operation.path.replace("{task_id}", "x").replace("{name}", "free").replace("{job_id}", "x")
                answer = await reading(gw, f"{path}?client_id={a_client}")
                seen += answer[0] == 200
                assert not [secret for secret in secrets if secret in answer[1]], path
    assert seen >= 5
    assert not [secret for secret in secrets if secret in json.dumps(logs, default=str)]


async def reading(gw: Gateway, path: str) -> tuple[int, str]:
    """Status and text with the read key; once without the query where the call knows none."""
    for asked_for in (path, path.partition("?")[0]):
        async with gw.client.get(asked_for, headers={"X-Admin-Key": READ}) as answer:
            status, text = answer.status, await answer.text()
        if status != 400:
            break
    return status, text


async def test_a_read_key_is_not_worth_more_elsewhere(gateway: GatewayFactory, a_client: str) -> None:
    """It is no client's key, opens no session of a higher role, and names nobody else in the audit log."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client})
    made: dict[str, Any] = (await gw.admin("POST", f"/admin/clients/keys?client_id={a_client}"))[1]
    assert made["key"] != READ
    body = {"client_id": a_client, "task": {"url": "http://127.0.0.1:9/"}}
    for name in ("X-Client-Key", "X-Admin-Key"):
        assert (await gw.enqueue(body, headers={name: READ}))[0] == 401
    _, session, line = await log_in(gw, READ)
    assert session["role"] == "read"
    gw.client.cookie_jar.clear()
    both = {**cookie(line), "X-Admin-Key": "wrong", "X-Requested-With": "test"}
    assert (await gw.call("GET", "/admin/tiers", headers=both))[0] == 401  # a wrong key is not made good by a session
    status, _ = await asked(gw, READ, "PUT", "/admin/clients/set", json={"client_id": a_client, "role": "admin"})
    assert status == 403
