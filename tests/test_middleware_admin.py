"""The guards of /admin: the key, the address, and what is refused where there is no key."""

import ipaddress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from gateway.errors import Forbidden, GatewayError, Unauthorized
from gateway.middleware.admin import admin_chain
from gateway.middleware.callers import caller_address
from gateway.middleware.chains import wrapped
from gateway.middleware.keyring import Keyring
from gateway.settings import Settings


class Peer:
    """A transport that says only who is at the other end."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 4711) if name == "peername" and self._address else default

    def is_closing(self) -> bool:
        return False


async def ok(_: web.Request) -> web.StreamResponse:
    return web.Response(text="in")


async def ask(peer: str | None, headers: dict[str, str], **settings: str) -> str:
    """How a request from ``peer`` ends: "in", or the error's class name."""
    loaded = Settings.load({name.upper(): value for name, value in settings.items()})
    request = make_mocked_request(
        "GET", "/admin/tiers", headers={"Host": "127.0.0.1:8080", **headers}, transport=Peer(peer)
    )
    try:
        await wrapped(ok, admin_chain(loaded, Keyring(loaded)))(request)
    except GatewayError as problem:
        return type(problem).__name__
    return "in"


KEY = {"X-Admin-Key": "secret"}


@pytest.mark.parametrize(
    ("peer", "headers", "settings", "end"),
    [
        # with a key
        ("127.0.0.1", KEY, {"admin_api_key": "secret"}, "in"),
        ("8.8.8.8", KEY, {"admin_api_key": "secret"}, "in"),
        ("8.8.8.8", {**KEY, "X-Forwarded-For": "1.1.1.1"}, {"admin_api_key": "secret"}, "in"),
        ("127.0.0.1", {}, {"admin_api_key": "secret"}, "Unauthorized"),
        ("127.0.0.1", {"X-Admin-Key": "secreT"}, {"admin_api_key": "secret"}, "Unauthorized"),
        ("127.0.0.1", {"X-Admin-Key": "s\xe9cret"}, {"admin_api_key": "secret"}, "Unauthorized"),
        # a key and a list: the key is judged first, and the list holds for loopback too
        ("10.1.2.3", KEY, {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"}, "in"),
        ("::ffff:10.1.2.3", KEY, {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"}, "in"),
        ("8.8.8.8", KEY, {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"}, "Forbidden"),
        ("127.0.0.1", KEY, {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"}, "Forbidden"),
        (None, KEY, {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"}, "Forbidden"),
        ("8.8.8.8", {}, {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"}, "Unauthorized"),
        # an untrusted peer's X-Forwarded-For is nothing, a trusted one's is read from the right
        (
            "8.8.8.8",
            {**KEY, "X-Forwarded-For": "10.1.2.3"},
            {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8"},
            "Forbidden",
        ),
        (
            "8.8.8.8",
            {**KEY, "X-Forwarded-For": "9.9.9.9, 10.1.2.3"},
            {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8", "trusted_proxies": "8.8.8.8"},
            "in",
        ),
        (
            "8.8.8.8",
            {**KEY, "X-Forwarded-For": "10.1.2.3, 9.9.9.9"},
            {"admin_api_key": "secret", "admin_allowed_ips": "10.0.0.0/8", "trusted_proxies": "8.8.8.8"},
            "Forbidden",
        ),
        # without a key
        ("127.0.0.1", {}, {}, "in"),
        ("::1", {"Host": "[::1]:8080"}, {}, "in"),
        ("127.0.0.1", {"Host": "localhost"}, {}, "in"),
        ("10.1.2.3", {}, {}, "Forbidden"),
        (None, {}, {}, "Forbidden"),
        ("10.1.2.3", {"Host": "gateway:8080"}, {"admin_allowed_ips": "10.0.0.0/8"}, "in"),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, {}, "Forbidden"),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, {}, "Forbidden"),
        ("10.1.2.3", {"X-Forwarded-For": "10.1.2.3"}, {"admin_allowed_ips": "10.0.0.0/8"}, "Forbidden"),
        ("127.0.0.1", {"Origin": "https://evil.example"}, {}, "Forbidden"),
        ("127.0.0.1", {"Origin": "null"}, {}, "Forbidden"),
        ("127.0.0.1", {"Origin": "http://127.0.0.1:9999"}, {}, "Forbidden"),
        ("127.0.0.1", {"Origin": "http://127.0.0.1:8080"}, {}, "in"),
        ("127.0.0.1", {"Host": "evil.example"}, {}, "Forbidden"),
        ("127.0.0.1", {"Host": "localhost.evil.example"}, {}, "Forbidden"),
        ("127.0.0.1", {"Host": "[bad"}, {}, "Forbidden"),
    ],
)
async def test_who_gets_in(peer: str | None, headers: dict[str, str], settings: dict[str, str], end: str) -> None:
    """Each caller ends as section 2 of the contract says."""
    assert await ask(peer, headers, **settings) == end


async def test_a_refusal_is_logged_without_the_key() -> None:
    """`admin_denied` carries reason and address, and neither the right key nor the wrong one."""
    with capture_logs() as logs:
        await ask("8.8.8.8", {"X-Admin-Key": "wrong-one"}, admin_api_key="the-right-one")
    [entry] = logs
    assert (entry["event"], entry["reason"], entry["address"]) == ("admin_denied", "wrong key", "8.8.8.8")
    assert "right-one" not in str(entry)
    assert "wrong-one" not in str(entry)


def test_a_malformed_hop_is_no_address() -> None:
    """Where a trusted proxy hands on nonsense, nobody is taken for the caller."""
    trusted = [ipaddress.ip_network("10.0.0.0/8")]
    assert caller_address("10.0.0.1", ["127.0.0.1, nonsense"], trusted) is None
    assert str(caller_address("10.0.0.1", [], trusted)) == "10.0.0.1"


def test_the_errors_have_their_status() -> None:
    """401 for the key, 403 for the address."""
    assert (Unauthorized.status, Forbidden.status) == (401, 403)
