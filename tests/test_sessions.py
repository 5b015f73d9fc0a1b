"""The dashboard's login: what a session may, what ends it, and that no other page can use it."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, Gateway, GatewayFactory
from structlog.testing import capture_logs

from gateway.keys import AppKeys
from gateway.middleware.session_cookie import IDLE_SECONDS, LONGEST_SECONDS, Session, sign, unsign

MARK = {"X-Requested-With": "test"}
COOKIE = re.compile(r"gateway_session_\d+=(?P<value>[^;]*)")


async def log_in(gw: Gateway, key: str = ADMIN_KEY, **headers: str) -> tuple[int, Any, str]:
    """Status, body and the whole Set-Cookie of a login."""
    status, body, told = await gw.call("POST", "/admin/session", json={"key": key}, headers={**MARK, **headers})
    return status, body, told.get("Set-Cookie", "")


def cookie(line: str) -> dict[str, str]:
    """The header that sends back what a Set-Cookie gave."""
    return {"Cookie": line.partition(";")[0]}


async def test_a_session_does_what_its_key_may(gateway: GatewayFactory) -> None:
    """A login's cookie opens /admin, says who it is, and the cookie is one that no script and no other site sees."""
    gw = await gateway(dispatch=False)
    status, body, line = await log_in(gw)
    assert (status, body["key"], body["role"]) == (200, "ADMIN_API_KEY", "admin")
    assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= {part.strip() for part in line.split(";")}
    assert "Secure" not in line
    assert ADMIN_KEY not in line
    gw.client.cookie_jar.clear()
    status, listed, told = await gw.call("GET", "/admin/clients", headers=cookie(line))
    assert (status, listed["count"], told["Cache-Control"]) == (200, 0, "no-store")
    made = {"client_id": "acme", "tier": "free"}
    assert (await gw.call("PUT", "/admin/clients/set", json=made, headers={**cookie(line), **MARK}))[0] == 200
    assert (await gw.call("GET", "/admin/clients"))[0] == 401
    assert (await gw.call("GET", "/v1/rate-limit?client_id=acme", headers=cookie(line)))[0] == 200


async def test_a_wrong_key_gets_none(gateway: GatewayFactory) -> None:
    """401 without a cookie, a line in the log without the key; a body that is none is 400."""
    gw = await gateway(dispatch=False)
    with capture_logs() as logs:
        status, body, line = await log_in(gw, "not-the-key")
    assert (status, body["error"], line) == (401, "Unauthorized", "")
    assert "admin_denied" in [entry["event"] for entry in logs]
    assert "not-the-key" not in str(logs)
    for wrong in ({}, {"key": ""}, {"key": 5}, {"key": "x", "more": 1}):
        assert (await gw.call("POST", "/admin/session", json=wrong, headers=MARK))[0] == 400


async def test_without_a_key_there_is_nothing_to_log_in_to(gateway: GatewayFactory) -> None:
    """A gateway without ADMIN_API_KEY answers who asks at once, and a login is 409."""
    gw = await gateway(dispatch=False, admin_api_key="")
    status, body, _ = await gw.call("GET", "/admin/session")
    assert (status, body) == (200, {"key": None, "role": "admin", "expires_at": None})
    assert (await log_in(gw))[0] == 409


async def test_a_session_has_the_role_of_its_key(gateway: GatewayFactory, tmp_path: Path) -> None:
    """A read key's session reads and changes nothing; of a key that is gone from its file it holds no more, though the
    key was there as its hash alone."""
    file = tmp_path / "keys.json"
    rows = {name: {"role": "read", "sha256": sha256(f"key-of-{name}".encode()).hexdigest()} for name in ("ann", "bo")}
    file.write_text(json.dumps(rows))
    gw = await gateway(dispatch=False, admin_keys_file=str(file))
    _, body, line = await log_in(gw, "key-of-ann")
    assert (body["key"], body["role"]) == ("ann", "read")
    gw.client.cookie_jar.clear()
    shown = (await gw.call("GET", "/admin/session", headers=cookie(line)))[1]
    assert (shown["key"], shown["role"]) == ("ann", "read")
    status, body, _ = await gw.call("PUT", "/admin/clients/set", json={}, headers={**cookie(line), **MARK})
    assert (status, "the role admin" in body["message"]) == (403, True)
    file.write_text(json.dumps({"bo": rows["bo"]}))
    [watched] = gw.app[AppKeys.KEYRING].files
    watched.look()
    assert (await gw.call("GET", "/admin/session", headers=cookie(line)))[0] == 401


async def test_a_login_is_a_guess(gateway: GatewayFactory) -> None:
    """Wrong keys of logins and of headers are counted together."""
    gw = await gateway(dispatch=False, admin_guesses_per_min="2")
    assert (await log_in(gw, "wrong"))[0] == 401
    assert (await gw.call("GET", "/admin/tiers", headers={"X-Admin-Key": "wrong"}))[0] == 401
    assert (await log_in(gw))[0] == 429


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", {"Origin": "https://evil.example"}, 403),
        ("POST", {}, 403),
        ("POST", MARK, 200),
        ("POST", {**MARK, "Origin": "null"}, 403),
        ("POST", {**MARK, "Origin": "http://127.0.0.1:1"}, 403),
        ("POST", {**MARK, "Origin": "own"}, 200),
        ("POST", {"Origin": "own"}, 403),
        ("POST", {**MARK, "Sec-Fetch-Site": "cross-site", "Origin": "own"}, 403),
    ],
)
async def test_another_page_cannot_use_a_session(
    gateway: GatewayFactory, method: str, headers: dict[str, str], status: int
) -> None:
    """A request with the cookie is refused where a page of another origin sent it, and a change without the header that
    only the own page can send."""
    gw = await gateway(dispatch=False)
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": "acme"})
    line = (await log_in(gw))[2]
    sent = {name: gw.url if value == "own" else value for name, value in headers.items()}
    path = "/admin/clients" if method == "GET" else "/admin/clients/pause?client_id=acme"
    assert (await gw.call(method, path, headers={**cookie(line), **sent}))[0] == status


async def test_a_foreign_login_is_refused(gateway: GatewayFactory) -> None:
    """No other page can log a browser in under a key of its own."""
    gw = await gateway(dispatch=False)
    assert (await log_in(gw, Origin="https://evil.example"))[0] == 403
    assert (await gw.call("POST", "/admin/session", json={"key": ADMIN_KEY}))[0] == 403


async def test_logging_out_ends_it_on_every_replica(gateway: GatewayFactory) -> None:
    """A session of one gateway holds on another one of the same Redis and key; after the logout on neither."""
    one, two = await gateway(dispatch=False), await gateway(dispatch=False)
    line = (await log_in(one))[2]
    for gw in (one, two):
        gw.client.cookie_jar.clear()
    value = COOKIE.match(line)
    assert value is not None
    there = {"Cookie": f"gateway_session_{two.url.rpartition(':')[2]}={value['value']}"}
    assert (await two.call("GET", "/admin/session", headers=there))[0] == 200
    status, _, told = await one.call("DELETE", "/admin/session", headers={**cookie(line), **MARK})
    assert status == 204
    assert "Max-Age=0" in told["Set-Cookie"]
    assert (await one.call("GET", "/admin/session", headers=cookie(line)))[0] == 401
    assert (await two.call("GET", "/admin/session", headers=there))[0] == 401


async def test_another_key_ends_it(gateway: GatewayFactory) -> None:
    """What one key signed, a gateway with another key does not take, nor what somebody made up."""
    one, two = await gateway(dispatch=False), await gateway(dispatch=False, admin_api_key="another-key")
    line = (await log_in(one))[2]
    name = f"gateway_session_{two.url.rpartition(':')[2]}"
    value = line.partition("=")[2].partition(";")[0]
    for text in (value, "", "x", "x.y", "WyJ4Il0.AAAA", value[:-1] + ("A" if value[-1] != "A" else "B")):
        assert (await two.call("GET", "/admin/session", headers={"Cookie": f"{name}={text}"}))[0] == 401


async def test_a_session_that_is_used_goes_on(gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer brings the cookie of another hour once some minutes of the last have gone."""
    gw = await gateway(dispatch=False)
    line = (await log_in(gw))[2]
    gw.client.cookie_jar.clear()
    assert "Set-Cookie" not in (await gw.call("GET", "/admin/tiers", headers=cookie(line)))[2]
    monkeypatch.setattr("gateway.middleware.sessions._RENEW_SECONDS", 0)
    renewed = (await gw.call("GET", "/admin/tiers", headers=cookie(line)))[2]["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= {part.strip() for part in renewed.split(";")}
    assert (await gw.call("GET", "/admin/tiers", headers=cookie(renewed)))[0] == 200


@pytest.mark.parametrize(
    ("began", "signed", "holds"),
    [
        (0, IDLE_SECONDS - 1, True),
        (0, -1, False),  # unused for more than an hour
        (IDLE_SECONDS - LONGEST_SECONDS, IDLE_SECONDS - 1, False),  # longer than any may be
    ],
)
def test_a_session_ends_by_itself(began: int, signed: int, holds: bool) -> None:
    """After an hour unused, and after twelve in any case."""
    text = sign(Session("id", "name", began, signed, secure=False), b"secret")
    assert (unsign(text, lambda _: b"secret", IDLE_SECONDS) is not None) == holds
    assert unsign(text, lambda name: b"secret" if name == "other" else None, 0) is None


async def test_over_tls_the_cookie_stays_on_tls(gateway: GatewayFactory) -> None:
    """A browser that came by https, also where a proxy ended that, keeps the cookie to https."""
    gw = await gateway(dispatch=False)
    host = gw.url.removeprefix("http://")
    assert "Secure" in (await log_in(gw, Origin=f"https://{host}"))[2]
