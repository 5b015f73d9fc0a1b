"""The audit log: every change an operator makes, when, from where, what it was and what it became."""

import json

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory
from deployments import Deployment

from gateway.store import journal
from gateway.store.journal import Change


@pytest.fixture
async def gw(gateway: GatewayFactory) -> Gateway:
    return await gateway(dispatch=False)


async def test_every_change_is_noted_with_what_it_was(gw: Gateway, a_client: str) -> None:
    """Created, changed, paused, resumed, replayed, purged, deleted: newest first; reads and refusals leave no entry."""
    for tier in ("free", "premium"):
        await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "tier": tier})
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "tier": "nonsense"})
    await gw.admin("GET", f"/admin/clients/get?client_id={a_client}")
    for path in ("clients/pause", "clients/resume"):
        await gw.admin("POST", f"/admin/{path}?client_id={a_client}&queue=slow")
    await gw.admin("POST", f"/admin/dead/replay?client_id={a_client}")
    await gw.admin("DELETE", f"/admin/dead?client_id={a_client}")
    await gw.admin("DELETE", f"/admin/clients/delete?client_id={a_client}&cancel_tasks=true")
    status, body, _ = await gw.admin("GET", "/admin/audit")
    entries = body["entries"]
    assert (status, body["next_cursor"]) == (200, None)
    done = ["delete", "purge_dead", "replay_dead", "resume", "pause", "set", "set"]
    assert [entry["action"] for entry in entries] == done
    assert {(entry["client_id"], entry["address"], entry["key"]) for entry in entries} == {
        (a_client, "127.0.0.1", "ADMIN_API_KEY")
    }
    changed, created = entries[5:]
    assert (created["before"], created["after"]["tier"]) == (None, "free")
    assert changed["before"] == created["after"]
    assert changed["after"]["rate_limit"] == {"max_concurrent": 20, "requests_per_min": 1000}
    assert entries[0]["before"] == changed["after"]
    assert (entries[4]["queue"], entries[0]["tasks"]) == ("slow", 0)
    assert ADMIN_KEY not in json.dumps(body)
    first = (await gw.admin("GET", "/admin/audit?limit=4"))[1]
    second = (await gw.admin("GET", f"/admin/audit?limit=4&cursor={first['next_cursor']}"))[1]
    assert first["entries"] + second["entries"] == entries
    assert second["next_cursor"] is None
    status, body, _ = await gw.admin("GET", "/admin/audit?cursor=yesterday")
    assert (status, body["message"]) == (400, "cursor: must be the next_cursor of an earlier page")


async def test_the_oldest_go(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is capped, in whole blocks of the stream."""
    monkeypatch.setattr(journal, "KEPT", 100)
    async with deployment.store() as store:
        for number in range(500):
            await store.journal.note(Change(action="set", address="::1", request_id=str(number)))
        kept, _ = await store.journal.page(before=None, limit=500)
    assert 100 <= len(kept) <= 300
    assert [entry.change.request_id for entry in kept] == [str(number) for number in range(499, 499 - len(kept), -1)]


async def test_changes_are_found(gw: Gateway, a_client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By client, action and key; a page looks at a bounded number of entries, and going on finds the rest."""
    for number in range(30):
        await gw.store.journal.note(Change(action="pause", address="::1", request_id="", client_id=f"other-{number}"))
    for action in ("set", "pause"):
        await gw.store.journal.note(Change(action=action, address="::1", request_id="", client_id=a_client, key="ops"))
    for number in range(30):
        await gw.store.journal.note(Change(action="set", address="::1", request_id="", client_id=f"other-{number}"))

    async def pages(query: str) -> list[list[str]]:
        found, cursor = [], ""
        while cursor is not None:
            status, body, _ = await gw.admin("GET", f"/admin/audit?{query}&cursor={cursor}")
            assert status == 200
            found.append([f"{entry['client_id']} {entry['action']}" for entry in body["entries"]])
            cursor = body["next_cursor"]
        return found

    both = [f"{a_client} pause", f"{a_client} set"]
    assert await pages(f"client_id={a_client}") == [both]
    assert await pages("key_name=ops&action=set") == [both[1:]]
    assert await pages(f"client_id={a_client}&limit=1") == [both[:1], both[1:], []]
    monkeypatch.setattr(journal, "_STEP", 5)
    monkeypatch.setattr(journal, "LOOKED_AT", 20)
    assert await pages(f"client_id={a_client}") == [[], both, [], []]
    assert (await gw.admin("GET", "/admin/audit?client=x"))[0] == 400


async def test_the_command(gw: Gateway, a_client: str) -> None:
    """`gateway audit` shows what differs, and which tier was removed."""
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "tier": "free"})
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "enabled": False})
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    shown = await run("audit", "--limit", "1", env=env)
    assert shown.code == 0
    assert "enabled" in shown.out
    assert "--cursor" in shown.err
    assert len(json.loads((await run("audit", "--json", env=env)).out)["entries"]) == 2
    filters = ("--client", "somebody", "--action", "set", "--key", "ADMIN_API_KEY")
    assert json.loads((await run("audit", "--json", *filters, env=env)).out) == {"entries": [], "next_cursor": None}
    await gw.admin("PUT", "/admin/tiers/gold", json={"max_concurrent": 7, "requests_per_min": 70})
    await gw.admin("DELETE", "/admin/tiers/gold")
    assert "name gold" in (await run("audit", "--limit", "1", "--action", "delete_tier", env=env)).out
