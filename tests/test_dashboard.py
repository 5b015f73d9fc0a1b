"""The dashboard as the gateway serves it: its files and their policy, who gets them, and the stream of events."""

import re

import aiohttp
import pytest
from conftest import GatewayFactory
from test_sessions import MARK, cookie, log_in


async def test_the_page_needs_no_key_and_what_it_shows_does(gateway: GatewayFactory) -> None:
    """The files come with a policy that lets in nothing else and an ETag; the stream of events is 401."""
    gw = await gateway(dispatch=False)
    async with gw.client.get("/admin/ui") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        tag = answer.headers["ETag"]
        page = await answer.text()
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|style=|\son\w+=|https?://", page)
    async with gw.client.get("/admin/ui", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    async with gw.client.get("/admin/ui/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "../ui")
    assert (await gw.call("GET", "/admin/ui/nothing.js"))[0] == 404
    assert (await gw.call("GET", "/admin/ui/events?watch=replicas"))[0] == 401


async def test_the_page_keeps_to_the_addresses(gateway: GatewayFactory) -> None:
    """Where ADMIN_ALLOWED_IPS leaves an address out, it does not even get the login."""
    gw = await gateway(dispatch=False, admin_allowed_ips="10.0.0.0/8")
    assert (await gw.call("GET", "/admin/ui"))[0] == 403
    assert (await log_in(gw))[0] == 403


async def events(answer: aiohttp.ClientResponse, count: int) -> list[str]:
    """The next lines of data."""
    found = []
    async for line in answer.content:
        if line.startswith(b"data: "):
            found.append(line.decode())
        if len(found) == count:
            break
    return found


async def test_events_tell_what_the_call_answers(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once what the watched call answers, again only when that has changed; the stream ends with the session."""
    monkeypatch.setattr("gateway.admin.events.EVERY_SECONDS", 0.05)
    gw = await gateway(dispatch=False)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": "acme"})
    line = (await log_in(gw))[2]
    gw.client.cookie_jar.clear()
    watch = "/admin/ui/events?watch=clients/usage%3Fclient_id%3Dacme"
    async with gw.client.get(watch, headers=cookie(line)) as answer:
        assert answer.content_type == "text/event-stream"
        [first] = await events(answer, 1)
        assert '"paused":false' in first
        assert '"status":200' in first
        await gw.admin("POST", "/admin/clients/pause?client_id=acme")
        [second] = await events(answer, 1)
        assert '"paused":true' in second
        await gw.call("DELETE", "/admin/session", headers={**cookie(line), **MARK})
        assert await events(answer, 1) == []
    for wrong in ("", "?watch=clients", "?watch=tiers", "?" + "&".join(f"watch=replicas%3F{n}" for n in range(5))):
        assert (await gw.admin("GET", f"/admin/ui/events{wrong}"))[0] == 400


async def test_the_page_asks_who_it_is_without_being_refused(gateway: GatewayFactory) -> None:
    """A role of null before the login, the key's name and role after it, and again null once it is out."""
    gw = await gateway(dispatch=False, admin_keys="night:read:the-key-of-the-night")
    nobody = {"key": None, "role": None, "expires_at": None}
    assert (await gw.call("GET", "/admin/ui/session"))[:2] == (200, nobody)
    line = (await log_in(gw, "the-key-of-the-night"))[2]
    gw.client.cookie_jar.clear()
    told = (await gw.call("GET", "/admin/ui/session", headers=cookie(line)))[1]
    assert (told["key"], told["role"]) == ("night", "read")
    await gw.call("DELETE", "/admin/session", headers={**cookie(line), **MARK})
    assert (await gw.call("GET", "/admin/ui/session", headers=cookie(line)))[1] == nobody
