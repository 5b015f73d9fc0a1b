"""Safe without reading anything; and whatever opens something says so at the start."""

import re
import sys
from pathlib import Path

import pytest
import trustme
from as_user import ROOT, START_DEADLINE, Background, free_port, plain_environment, wait_for

from gateway.exposure import exposures
from gateway.settings import Settings

KEY = {"ADMIN_API_KEY": "a-key-of-the-test"}
OUTSIDE = {"HOST": "0.0.0.0", "REQUIRE_CLIENT_KEY": "true", "ADMIN_ALLOWED_IPS": "10.0.0.0/8", **KEY}


def opened(env: dict[str, str]) -> list[str]:
    return [exposure.event for exposure in exposures(Settings.load(env))]


def test_the_defaults_open_nothing_but_admin_on_loopback() -> None:
    """With nothing set only this machine gets in, and the log says that /admin asks it for no key."""
    settings = Settings.load({})
    assert [exposure.event for exposure in exposures(settings)] == ["admin_without_key"]
    assert settings.host == "127.0.0.1"
    assert settings.outbound_allow == ()
    assert settings.embedded_redis_port is settings.outbound_proxy is settings.legacy_client_id is None


@pytest.mark.parametrize(
    ("env", "event", "named"),
    [
        ({"HOST": "0.0.0.0"}, "listening_in_the_clear", "HOST"),
        ({"HOST": "::"}, "listening_in_the_clear", "HOST"),
        ({"HOST": "gateway.internal"}, "listening_in_the_clear", "HOST"),
        ({"HOST": "0.0.0.0"}, "clients_without_key", "REQUIRE_CLIENT_KEY"),
        ({"HOST": "0.0.0.0", "LEGACY_CLIENT_ID": "legacy"}, "requests_without_client", "LEGACY_CLIENT_ID"),
        ({}, "admin_without_key", "ADMIN_API_KEY"),
        ({"HOST": "0.0.0.0"}, "admin_without_key", "ADMIN_API_KEY"),
        ({"HOST": "0.0.0.0", **KEY}, "admin_from_anywhere", "ADMIN_ALLOWED_IPS"),
        ({"ADMIN_ALLOWED_IPS": "0.0.0.0/0"}, "admin_from_anywhere", "ADMIN_ALLOWED_IPS"),
        ({"ADMIN_ALLOWED_IPS": "10.0.0.0/8,::/0", **KEY}, "admin_from_anywhere", "ADMIN_ALLOWED_IPS"),
        ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "anybody_is_a_trusted_proxy", "TRUSTED_PROXIES"),
        ({"OUTBOUND_ALLOW": "127.0.0.1"}, "loopback_is_open", "OUTBOUND_ALLOW"),
        ({"OUTBOUND_ALLOW": "api.example:80,127.0.0.0/8"}, "loopback_is_open", "OUTBOUND_ALLOW"),
        ({"OUTBOUND_ALLOW": "localhost"}, "loopback_is_open", "OUTBOUND_ALLOW"),
        ({"OUTBOUND_ALLOW": "::1"}, "loopback_is_open", "OUTBOUND_ALLOW"),
        ({"OUTBOUND_ALLOW": "0.0.0.0/0"}, "loopback_is_open", "OUTBOUND_ALLOW"),
        ({"OUTBOUND_PROXY": "http://proxy:3128"}, "proxy_resolves_names", "OUTBOUND_PROXY"),
        ({"EMBEDDED_REDIS_PORT": "7000"}, "embedded_redis_has_a_port", "EMBEDDED_REDIS_PORT"),
        ({"REDIS_URL": "redis://:pw@cache:6379"}, "redis_in_the_clear", "rediss://"),
        ({"REDIS_ADDR": "cache:6379"}, "redis_without_password", "password"),
        ({"TASK_ENCRYPTION_KEYS": f"none,k:{'A' * 43}="}, "tasks_in_the_clear", "TASK_ENCRYPTION_KEYS"),
        ({"REDIS_URL": "redis+sentinel://:pw@10.0.0.1,10.0.0.2/main"}, "redis_in_the_clear", "rediss://"),
    ],
)
def test_what_opens_something_says_so(env: dict[str, str], event: str, named: str) -> None:
    """Each setting that opens has an event of its own, whose message names it."""
    found = [exposure for exposure in exposures(Settings.load(env)) if exposure.event == event]
    assert len(found) == 1, opened(env)
    assert named in found[0].message
    assert "pw" not in found[0].message


@pytest.mark.parametrize(
    "env",
    [
        KEY,
        {"HOST": "::1", **KEY},
        {"HOST": "localhost", **KEY},
        {"OUTBOUND_ALLOW": "127.0.0.1:9000,[::1]:9000,localhost:9000,10.0.0.0/8,api.example", **KEY},
        {"REDIS_URL": "rediss://:pw@cache:6379", **KEY},
        {"REDIS_URL": "redis://127.0.0.1:6379", **KEY},
        {"REDIS_URL": "unix:///run/redis.sock", **KEY},
        {"TASK_ENCRYPTION_KEYS": f"k:{'A' * 43}=", **KEY},
        {"TRUSTED_PROXIES": "10.0.0.0/8", "ADMIN_ALLOWED_IPS": "10.0.0.0/8,fd00::/16", **KEY},
    ],
)
def test_what_opens_nothing_is_quiet(env: dict[str, str]) -> None:
    """No warning where there is nothing to warn of, or nobody reads the others."""
    assert opened(env) == []


def test_a_gateway_that_is_reached_from_outside_is_quiet_once_it_is_closed(tmp_path: Path) -> None:
    """Keys for clients and operators and their networks leave but the missing TLS to be told, and with it nothing;
    clients' certificates for /admin are as good as a list of networks."""
    assert opened(OUTSIDE) == ["listening_in_the_clear"]
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    authority = trustme.CA()
    issued = authority.issue_cert("gateway.example")
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    tls = {**OUTSIDE, "TLS_CERT": str(cert), "TLS_KEY": str(key)}
    assert opened(tls) == []
    assert opened(tls | {"ADMIN_ALLOWED_IPS": ""}) == ["admin_from_anywhere"]
    assert opened(tls | {"ADMIN_ALLOWED_IPS": "", "ADMIN_TLS_CLIENT_CA": str(ca)}) == []


WAYS: tuple[tuple[dict[str, str], set[str]], ...] = (
    (
        {"OUTBOUND_ALLOW": "127.0.0.1", "EMBEDDED_REDIS_PORT": "free"},
        {"admin_without_key", "loopback_is_open", "embedded_redis_has_a_port"},
    ),
    (
        {
            "HOST": "0.0.0.0",
            "LEGACY_CLIENT_ID": "legacy",
            "TRUSTED_PROXIES": "0.0.0.0/0",
            "OUTBOUND_PROXY": "http://127.0.0.1:9",
            "TASK_ENCRYPTION_KEYS": f"none,k:{'A' * 43}=",
            **KEY,
        },
        {
            "listening_in_the_clear",
            "clients_without_key",
            "requests_without_client",
            "admin_from_anywhere",
            "anybody_is_a_trusted_proxy",
            "proxy_resolves_names",
            "tasks_in_the_clear",
        },
    ),
    ({"REDIS_ADDR": "cache.invalid:6379", **KEY}, {"redis_in_the_clear", "redis_without_password"}),
    (KEY, set()),
)

ALL = set.union(*(events for _, events in WAYS))


def test_every_warning_is_of_some_start() -> None:
    """What the starts below are to say is all that there is to be said."""
    source = (ROOT / "gateway/exposure.py").read_text()
    assert set(re.findall(r'Exposure\(\s*"(\w+)"', source)) == ALL


@pytest.mark.parametrize(("env", "events"), WAYS, ids=["inside", "outside", "redis", "closed"])
def test_a_real_start_says_what_it_opens(tmp_path: Path, env: dict[str, str], events: set[str]) -> None:
    """The sentences are in the log of a process that starts, as warnings, before it listens; and no others are."""
    settings = {name: str(free_port()) if value == "free" else value for name, value in env.items()}
    settings |= {"PORT": str(free_port()), "GATEWAY_DATA_DIR": str(tmp_path / "data")}
    serve = [sys.executable, "-m", "gateway", "serve"]
    running = Background(serve, tmp_path / "gateway.log", plain_environment(**settings))
    try:
        wait_for(lambda: '"event":"listening"' in running.text() or running.ended, "listening", START_DEADLINE)
        log = running.text()
    finally:
        running.stop()
    told = re.findall(r'"level":"WARNING","event":"(\w+)","message":"[A-Za-z]', log.partition('"event":"listening"')[0])
    assert (set(told) & ALL, len(told)) == (events, len(set(told))), log
