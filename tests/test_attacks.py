"""Attacks that were tried with the source at hand and once did something: each ends where it begins."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import raw_http
from browser import chromium, needs_chromium
from conftest import ADMIN_KEY, GatewayFactory, Target, until
from test_admin_roles import READ, replaced, rows
from test_dashboard import events
from test_sessions import MARK, cookie, log_in
from test_signing import client, secret, verified

from gateway.dispatch import sender
from gateway.dispatch.egress import EgressGuard
from gateway.keys import AppKeys
from gateway.openapi.operations import OPERATIONS


def spelled(name: str) -> list[str]:
    """The name with each hyphen as it is and as an underscore, but for itself."""
    parts = name.split("-")
    found = [
        "".join(map("".join, zip(parts, (*marks, ""), strict=True))) for marks in product("-_", repeat=len(parts) - 1)
    ]
    return [each for each in found if each != name]


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Content-Length", "Proxy-Authorization", "Keep-Alive"])
async def test_no_header_of_the_connection_is_given_with_underscores(gateway: GatewayFactory, name: str) -> None:
    """What many receivers take for the header with hyphens is refused like it, and the sender would not send it."""
    gw = await gateway(dispatch=False)
    for spelling in spelled(name):
        task = {"url": "http://10.0.0.1/", "headers": {spelling: "1"}}
        status, body, _ = await gw.enqueue({"client_id": "acme", "task": task})
        assert (status, "is set by the gateway" in body["message"]) == (400, True)


@pytest.mark.parametrize("name", ["X-Client-ID", "X-Task-ID", "X-Attempt"])
async def test_who_calls_is_not_forged_with_underscores(name: str) -> None:
    """A receiver that reads `X_Client_ID` as `X-Client-ID`, as CGI and WSGI do, gets the gateway's alone."""
    guard = EgressGuard(raw_http.LOOPBACK)
    async with raw_http.target() as server, sender.HttpSender(guard, 10) as sending:
        for spelling in spelled(name):
            headers = {spelling: "forged", "X_Other_Name": "kept"}
            await sending.send(raw_http.a_task(server.url, headers=headers), 5)
    assert len(server.requests) == len(spelled(name))
    for request in server.requests:
        assert b"forged" not in request
        assert b"X_Other_Name: kept" in request


async def test_a_signature_is_not_forged_with_underscores(
    gateway: GatewayFactory, target: Target, a_client: str
) -> None:
    """The same of a client whose deliveries are signed."""
    gw = await gateway()
    text = (await secret(gw, await client(gw, a_client)))["secret"]
    headers = {"Webhook_Signature": "v1,forged", "webhook_id": "forged", "WEBHOOK_TIMESTAMP": "1"}
    task = {"url": f"{target.url}/hook", "body": {"order": 7}, "headers": headers}
    assert (await gw.enqueue({"client_id": a_client, "task": task}))[0] == 201
    [call] = await target.received(1)
    assert verified(call, text)
    assert not [name for name in call["headers"] if "_" in name]


async def test_a_stream_ends_with_the_key_that_began_it(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches with a key, and no session, is told nothing more once the key is taken away."""
    monkeypatch.setattr("gateway.admin.events.EVERY_SECONDS", 0.05)
    file = tmp_path / "keys.json"
    file.write_text(rows(one=READ))
    gw = await gateway(dispatch=False, admin_keys_file=str(file))
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": "acme"})
    watch = "/admin/ui/events?watch=clients/usage%3Fclient_id%3Dacme"
    async with (
        gw.client.get(watch, headers={"X-Admin-Key": READ}) as theirs,
        gw.client.get(watch, headers={"X-Admin-Key": ADMIN_KEY}) as ours,
    ):
        assert '"paused":false' in (await events(theirs, 1))[0]
        assert '"paused":false' in (await events(ours, 1))[0]
        replaced(file, rows(two="another-key-0123456789"))
        [watched] = gw.app[AppKeys.KEYRING].files
        watched.look()
        assert await events(theirs, 1) == []
        await gw.admin("POST", "/admin/clients/pause?client_id=acme")
        assert '"paused":true' in (await events(ours, 1))[0]


async def enqueued(gw: Any, headers: dict[str, str]) -> int:
    """The status of a task in a body that declares nothing but what these headers do."""
    body = b'{"client_id": "acme", "task": {"url": "http://10.0.0.1/"}}'
    async with gw.client.post("/v1/enqueue", data=body, headers=headers, skip_auto_headers=["Content-Type"]) as answer:
        return int(answer.status)


async def test_a_page_that_declares_nothing_is_415(gateway: GatewayFactory) -> None:
    """With an Origin the type has to be declared, on the express way too, since a browser asks before it sends that; a
    caller that is no browser need not."""
    gw = await gateway(dispatch=False)
    declared = {"Content-Type": "application/json"}
    for _ in range(2):  # the second on the express way, where it may
        assert await enqueued(gw, {}) == 201
        assert await enqueued(gw, {"Origin": "https://evil.example"}) == 415
        assert await enqueued(gw, {"Origin": "null"}) == 415
        assert await enqueued(gw, {"Origin": "https://app.example", **declared}) == 201


@needs_chromium
async def test_a_page_of_anybody_enqueues_nothing(gateway: GatewayFactory, target: Target) -> None:
    """A page that an operator happens to look at has the browser send tasks to the gateway on this machine, in each way
    that needs no permission, and in one that does: none is taken."""
    gw = await gateway(dispatch=False)
    target.answer_headers["/page"] = {"Content-Type": "text/html"}
    body = '{"client_id": "acme", "task": {"url": "http://10.0.0.1/"}}'
    tried = """async ([url, body]) => {
      const ways = [
        { body: new Blob([body]) }, { body: new Blob([body], { type: "text/plain" }) }, { body },
        { body, mode: "cors", headers: { "Content-Type": "application/json" } },
      ];
      for (const way of ways) {
        await fetch(url, { method: "POST", mode: "no-cors", ...way }).catch(() => null);
      }
      return navigator.sendBeacon(url, new Blob([body]));
    }"""
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(f"{target.url}/page")
        assert await page.evaluate(tried, [f"{gw.url}/v1/enqueue", body])
        await page.goto(f"{gw.url}/livez")  # what was sent before it has arrived
    assert await gw.store.clients.get("acme") is None
    assert await enqueued(gw, {}) == 201


async def test_a_target_does_not_pretend_that_its_answer_is_sealed(
    gateway: GatewayFactory, target: Target, a_client: str
) -> None:
    """An answer that begins as sealed ones are stored is shown as it is, and not as one whose key is gone."""
    target.bodies["/ok"] = b"\x01stolen.c2VjcmV0"
    gw = await gateway()
    assert (await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/ok"}}))[0] == 201
    shown = ""

    async def has_ended() -> bool:
        nonlocal shown
        [task] = (await gw.admin("GET", f"/admin/tasks?client_id={a_client}"))[1]["tasks"]
        shown = (task["last_attempt"] or {}).get("body", "")
        return bool(task["state"] == "succeeded")

    await until(has_ended)
    assert shown.endswith("stolen.c2VjcmV0")
    assert "TASK_ENCRYPTION_KEYS" not in shown


async def test_no_page_of_anybody_changes_anything_with_a_session(gateway: GatewayFactory) -> None:
    """Every call that changes something, with an operator's cookie and nothing else that another page could not send:
    403, also with the header that the gateway's own page sends, where the browser says that another one asked."""
    gw = await gateway(dispatch=False)
    line = (await log_in(gw))[2]
    gw.client.cookie_jar.clear()
    foreign: tuple[dict[str, str], ...] = (
        {},
        {"Content-Type": "text/plain"},
        {**MARK, "Origin": "https://evil.example"},
        {**MARK, "Origin": "null"},
        {**MARK, "Sec-Fetch-Site": "same-site"},
        {**MARK, "Sec-Fetch-Site": "cross-site"},
    )
    changing = [each for each in OPERATIONS if each.admin and each.method not in {"get", "head"}]
    assert len(changing) > 20
    for operation in changing:
        path = re.sub("{[a-z_]+}", "x", operation.path) + "?client_id=acme"
        for headers in foreign:
            status, body, _ = await gw.call(operation.method, path, headers={**cookie(line), **headers}, data=b"{}")
            assert (status, body["error"]) == (403, "Forbidden"), (operation.method, path, headers)
    assert (await gw.admin("GET", "/admin/audit"))[1]["entries"] == []
