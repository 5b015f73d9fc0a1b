"""Admin keys with names and roles: which call needs which, who is noted, how a file changes, how guessing is slowed."""

import asyncio
import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, Gateway, GatewayFactory
from structlog.testing import capture_logs

from gateway import metrics
from gateway.admin_keys import NO_KEY, AdminKey, Role
from gateway.errors import TooManyRequests, Unauthorized
from gateway.keys import AppKeys
from gateway.middleware.guesses import ADDRESSES, Guesses
from gateway.middleware.keyring import Keyring
from gateway.middleware.roles import needed_role
from gateway.openapi.operations import OPERATIONS
from gateway.settings import Settings

READ, OPERATE, ADMIN = (f"{role}-key-0123456789" for role in ("read", "operate", "admin"))
KEYS = f"grafana:read:{READ},oncall:operate:{OPERATE},boss:admin:sha256:{sha256(ADMIN.encode()).hexdigest()}"


async def asked(gw: Gateway, key: str, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
    """Status and body of a call with a key."""
    headers = {"X-Admin-Key": key, "X-Requested-With": "test"}
    status, body, _ = await gw.call(method, path, headers=headers, **kwargs)
    return status, body


async def test_every_call_lets_in_its_role_and_no_lower_one(gateway: GatewayFactory) -> None:
    """Every call of the document, with each key: 403 that names the role below it, never 401 or 403 from it on."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    calls = [operation for operation in OPERATIONS if operation.admin]
    assert {operation.role for operation in calls} == set(Role)
    for key, role in ((READ, Role.READ), (OPERATE, Role.OPERATE), (ADMIN, Role.ADMIN), (ADMIN_KEY, Role.ADMIN)):
        for operation in calls:
            path = re.sub("{[a-z_]+}", "x", operation.path) + "?client_id=nobody"
            status, body = await asked(gw, key, operation.method, path)
            if operation.role > role:
                assert (status, body["error"]) == (403, "Forbidden"), operation
                assert f"the role {operation.role}; this one has {role}" in body["message"]
            else:
                assert status not in {401, 403}, operation


async def test_what_is_not_in_the_table_needs_admin() -> None:
    """A call that somebody adds and forgets in the table is closed to all but `admin`, unless it only reads."""
    assert needed_role("POST", "/admin/new") is needed_role("DELETE", "/admin/clients/delete") is Role.ADMIN
    assert needed_role("HEAD", "/admin/new") is needed_role("GET", "/admin/new") is Role.READ


async def test_a_read_key_changes_nothing(gateway: GatewayFactory, a_client: str) -> None:
    """What a leaked read key is used for: every change is refused, and the audit log is empty."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    await gw.enqueue({"client_id": a_client, "delay": 60, "task": {"url": "http://127.0.0.1:9/"}})
    before = await gw.admin("GET", "/admin/clients/usage?client_id=" + a_client)
    for operation in OPERATIONS:
        if operation.admin and operation.method != "get" and operation.path != "/admin/session":
            path = re.sub("{[a-z_]+}", "x", operation.path) + f"?client_id={a_client}&cancel_tasks=true"
            assert (await asked(gw, READ, operation.method, path, json={"client_id": a_client}))[0] == 403
    # Nor by another name of the method, which some servers listen to.
    headers = {"X-Admin-Key": READ, "X-HTTP-Method-Override": "DELETE"}
    assert (await gw.call("POST", f"/admin/clients/delete?client_id={a_client}", headers=headers))[0] == 405
    assert (await gw.admin("GET", "/admin/clients/usage?client_id=" + a_client))[1] == before[1]
    assert (await gw.admin("GET", "/admin/audit"))[1]["entries"] == []


async def test_unknown_paths_and_methods_are_told_whatever_the_role(gateway: GatewayFactory) -> None:
    """404 and 405 come before 403, and 401 before both."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    assert (await asked(gw, READ, "POST", "/admin/nothing"))[0] == 404
    assert (await asked(gw, READ, "DELETE", "/admin/tiers"))[0] == 405
    assert (await asked(gw, "nobody's", "POST", "/admin/nothing"))[0] == 401


async def test_a_key_given_twice_is_none(gateway: GatewayFactory) -> None:
    """Of two headers neither is chosen: a proxy may have looked at the other one."""
    gw = await gateway(dispatch=False)
    for second in (ADMIN_KEY, "another"):
        headers = [("X-Admin-Key", ADMIN_KEY), ("X-Admin-Key", second)]
        assert (await gw.call("GET", "/admin/tiers", headers=headers))[0] == 401


async def test_the_audit_log_has_the_name_of_the_key(gateway: GatewayFactory, a_client: str) -> None:
    """Who did it is noted by the key's name, in the audit log and in the log; the key itself in neither."""
    gw = await gateway(dispatch=False, admin_keys=KEYS)
    with capture_logs() as logs:
        await asked(gw, ADMIN, "POST", "/admin/clients/set", json={"client_id": a_client})
        await asked(gw, OPERATE, "POST", f"/admin/clients/pause?client_id={a_client}")
        await asked(gw, OPERATE, "DELETE", f"/admin/clients/delete?client_id={a_client}")
    [pause, made] = (await asked(gw, READ, "GET", "/admin/audit"))[1]["entries"]
    assert (made["key"], pause["key"]) == ("boss", "oncall")
    told = [entry["key"] for entry in logs if entry["event"] in {"admin_action", "admin_denied"}]
    assert told == ["boss", "oncall", "oncall"]
    assert not [key for key in (READ, OPERATE, ADMIN, ADMIN_KEY) if key in str(logs)]


async def test_without_keys_whoever_is_let_in_is_nobody_with_every_right(gateway: GatewayFactory) -> None:
    """From loopback, without any key: the audit log has no name."""
    gw = await gateway(dispatch=False, admin_api_key="")
    status, _, _ = await gw.call("PUT", "/admin/clients/set", json={"client_id": "abc"})
    _, body, _ = await gw.call("GET", "/admin/audit")
    assert (status, body["entries"][0]["key"]) == (200, None)
    assert (NO_KEY.name, NO_KEY.role) == (None, Role.ADMIN)


def keyring(tmp_path: Path, content: str, **settings: str) -> tuple[Keyring, Path]:
    """One with a file."""
    file = tmp_path / "keys.json"
    file.write_text(content)
    return Keyring(Settings.load({"ADMIN_KEYS_FILE": str(file), **settings})), file


def rows(**keys: str) -> str:
    """A file of read keys."""
    return json.dumps({name: {"role": "read", "key": key} for name, key in keys.items()})


def replaced(file: Path, content: str) -> None:
    """Write a file as deployments do: another one, moved over it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(content)
    os.replace(fresh, file)


def who(ring: Keyring, key: str) -> str | None:
    """The name of the key, None where it is refused."""
    try:
        return asyncio.run(ring.judge(key, "10.0.0.1", "/admin")).name
    except Unauthorized:
        return None


def test_a_file_of_keys_is_read_again(tmp_path: Path) -> None:
    """Once the file is another, its keys hold and those it had no more; the settings' own stay."""
    ring, file = keyring(tmp_path, rows(old=READ), ADMIN_API_KEY="own")
    [watched] = ring.files
    assert (who(ring, READ), who(ring, "own")) == ("old", "ADMIN_API_KEY")
    replaced(file, rows(new=OPERATE))
    with capture_logs() as logs:
        watched.look()
        watched.look()
    assert (who(ring, READ), who(ring, OPERATE), who(ring, "own")) == (None, "new", "ADMIN_API_KEY")
    assert ring.named("old") is None
    assert ring.named("new") == AdminKey("new", Role.READ, sha256(OPERATE.encode()).digest())
    assert logs == [{"event": "reloaded", "setting": "ADMIN_KEYS_FILE", "log_level": "info"}]


def test_a_file_that_changed_since_the_settings_were_read_is_read(tmp_path: Path) -> None:
    """A key that was taken away while the gateway started does not hold until the next change."""
    file = tmp_path / "keys.json"
    file.write_text(rows(old=READ))
    settings = Settings.load({"ADMIN_KEYS_FILE": str(file)})
    replaced(file, rows(new=OPERATE))
    ring = Keyring(settings)
    assert (who(ring, READ), who(ring, OPERATE)) == (None, "new")
    replaced(file, "{")
    assert who(Keyring(settings), READ) == "old"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("{}", "it has no keys"),
        (rows(new="short"), "'new': a key is at least 16"),
        (rows(one=OPERATE, two=OPERATE), "'one' and 'two' are the same key"),
        (rows(one=ADMIN), "'own' and 'one' are the same key"),
        (rows(own=OPERATE), "the name 'own' is there twice"),
    ],
)
def test_a_file_that_can_not_be_read_changes_nothing(tmp_path: Path, content: str | None, why: str) -> None:
    """What was read before holds on, and the log says once what is wrong, without a key."""
    ring, file = keyring(tmp_path, rows(old=READ), ADMIN_KEYS=f"own:admin:{ADMIN}")
    [watched] = ring.files
    if content is None:
        file.unlink()
    else:
        replaced(file, content)
    with capture_logs() as logs:
        watched.look()
        watched.look()
    [entry] = logs
    assert (entry["event"], entry["setting"], entry["log_level"]) == ("reload_failed", "ADMIN_KEYS_FILE", "warning")
    assert why in entry["message"]
    assert not [key for key in (READ, OPERATE, ADMIN) if key in str(logs)]
    assert (who(ring, READ), who(ring, ADMIN), who(ring, "nobody's")) == ("old", "own", None)
    assert ring.required


async def test_the_address_that_guesses_is_slowed_and_no_other(tmp_path: Path) -> None:
    """Past ten wrong keys no key from there is looked at, not even a right one, for a moment; others' are."""
    ring, _ = keyring(tmp_path, rows(one=READ))
    now = [0.0]
    ring._guesses = Guesses(10, clock=lambda: now[0])
    for number in range(10):
        with pytest.raises(Unauthorized):
            await ring.judge(f"guess-{number}", "10.0.0.1", "/admin")
    for key in ("guess", READ):
        with pytest.raises(TooManyRequests) as refused:
            await ring.judge(key, "10.0.0.1", "/admin")
        assert refused.value.headers == {"Retry-After": "6"}
    assert (await ring.judge(READ, "10.0.0.2", "/admin")).name == "one"
    with pytest.raises(Unauthorized):  # no key is no guess
        await ring.judge("", "10.0.0.1", "/admin")
    now[0] = 6.0
    assert (await ring.judge(READ, "10.0.0.1", "/admin")).name == "one"
    with pytest.raises(Unauthorized):
        await ring.judge("guess", "10.0.0.1", "/admin")
    with pytest.raises(TooManyRequests):
        await ring.judge("guess", "10.0.0.1", "/admin")
    now[0] = 70.0
    assert ring._guesses.wait("10.0.0.1") == 0


async def test_an_ipv6_network_is_one_guesser_and_memory_is_bounded() -> None:
    """Addresses of one /64 share their guesses, mapped IPv4 is IPv4, and no more than so many are remembered."""
    guesses = Guesses(1)
    await guesses.wrong("2001:db8::1")
    assert guesses.wait("2001:db8::ffff:2")
    assert not guesses.wait("2001:db8:0:1::1")
    await guesses.wrong("::ffff:10.0.0.1")
    assert guesses.wait("10.0.0.1")
    for number in range(2 * ADDRESSES):
        await guesses.wrong(str(number))
    assert len(guesses._full_at) == ADDRESSES
    assert guesses.wait(str(2 * ADDRESSES - 1))


async def test_guessing_over_http_is_429_with_retry_after(gateway: GatewayFactory) -> None:
    """The third guess of two allowed ones is 429, and so is the right key for that moment."""
    gw = await gateway(dispatch=False, admin_guesses_per_min="2")
    assert [(await asked(gw, f"guess-{number}", "GET", "/admin/tiers"))[0] for number in range(3)] == [401, 401, 429]
    counted = metrics.render()[0].decode()
    assert 'gateway_admin_denied_total{reason="key"} 2.0' in counted
    assert 'gateway_admin_denied_total{reason="guesses"} 1.0' in counted
    status, body, headers = await gw.admin("GET", "/admin/tiers")
    assert (status, body["error"]) == (429, "Too many wrong keys")
    assert 1 <= int(headers["Retry-After"]) <= 30
    assert AppKeys.KEYRING in gw.app
