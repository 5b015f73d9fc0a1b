"""The settings: every default of the contract, every mistake told at once, no secret in any message."""

import dataclasses
import ipaddress
from hashlib import sha256
from pathlib import Path

import pytest
import redis

from gateway.admin_keys import AdminKey, Role
from gateway.models import RateLimit
from gateway.settings import SETTINGS, Settings

DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8080,
    "redis_url": None,
    "redis_pool_size": 100,
    "redis_connect_timeout": 5,
    "redis_timeout": 1.5,
    "redis_cluster": False,
    "redis_sentinel_password": None,
    "redis_tls_ca": None,
    "redis_tls_cert": None,
    "redis_tls_key": None,
    "durability": "none",
    "durability_replicas": 1,
    "durability_timeout": 1.0,
    "gateway_data_dir": Path("/home/someone/.local/share/gateway"),
    "embedded_redis_port": None,
    "tls_cert": None,
    "tls_key": None,
    "admin_tls_client_ca": None,
    "admin_api_key": None,
    "admin_keys": (),
    "admin_keys_file": None,
    "admin_guesses_per_min": 10,
    "client_guesses_per_min": 100,
    "admin_allowed_ips": (),
    "admin_port": None,
    "trusted_proxies": (),
    "max_connections_per_address": 1000,
    "max_open_requests": 2000,
    "upstream_url": None,
    "outbound_allow": (),
    "outbound_deny": (),
    "outbound_allow_private": True,
    "outbound_proxy": None,
    "window_algorithm": "sliding",
    "max_override_concurrent": 100,
    "max_override_requests_per_min": 10000,
    "auto_create_clients": True,
    "require_client_key": False,
    "legacy_client_id": None,
    "tiers": {
        "free": RateLimit(1, 10),
        "basic": RateLimit(5, 100),
        "premium": RateLimit(20, 1000),
        "enterprise": RateLimit(50, 5000),
        "default": RateLimit(3, 50),
    },
    "tier_prices": {},
    "queue_weights": {"critical": 6, "default": 3, "low": 1},
    "max_in_flight": 1000,
    "max_queued_per_client": 100000,
    "max_queued_bytes_per_client": 256 * 1024 * 1024,
    "max_queued": 10_000_000,
    "max_queued_bytes": 16 * 1024**3,
    "max_queues_per_client": 32,
    "max_clients": 1000000,
    "max_results_per_client": 1000,
    "max_dead_per_client": 10000,
    "dead_ttl": 7 * 24 * 3600,
    "idempotency_ttl": 24 * 3600,
    "task_encryption_keys": (),
    "key_prefix": "",
    "max_body_bytes": 1024 * 1024,
    "max_batch_bytes": 8 * 1024 * 1024,
    "max_delay_seconds": 30 * 24 * 3600,
    "lease_seconds": 30,
    "drain_seconds": 20,
    "result_ttl": 3600,
    "metrics_max_clients": 1000,
    "max_deliveries": 3,
    "log_level": "info",
    "log_format": "json",
    "role": "all",
    "workers": 1,
    "admin_only": False,
    "warnings": (),
    "secrets": frozenset(),
}


def test_defaults() -> None:
    """With nothing set every value is the contract's default; table and `Settings` have the same names."""
    settings = Settings.load({"HOME": "/home/someone"})
    assert {part.name: getattr(settings, part.name) for part in dataclasses.fields(settings)} == DEFAULTS
    folded = {"redis_addr", "redis_password"}
    assert {setting.attribute for setting in SETTINGS} - folded == set(DEFAULTS) - {
        "tier_prices",
        "warnings",
        "secrets",
    }


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("HOST", "::", "host", "::"),
        ("HOST", "[::1]", "host", "::1"),
        ("PORT", " 0 ", "port", 0),
        ("PORT", "", "port", 8080),
        ("REDIS_URL", "rediss://app:p%40ss@cache:6380/2", "redis_url", "rediss://app:p%40ss@cache:6380/2"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1", "redis_url", "unix:///run/redis.sock?db=1"),
        (
            "REDIS_URL",
            "rediss+sentinel://app:pw@a,b:5000,[::1]:26379/main/2",
            "redis_url",
            "rediss+sentinel://app:pw@a,b:5000,[::1]:26379/main/2",
        ),
        ("DURABILITY", "WAIT", "durability", "wait"),
        ("DURABILITY_TIMEOUT", "500ms", "durability_timeout", 0.5),
        ("REDIS_ADDR", "cache:6379", "redis_url", "redis://cache:6379"),
        ("REDIS_ADDR", "[::1]:6379", "redis_url", "redis://[::1]:6379"),
        ("REDIS_TIMEOUT", "500ms", "redis_timeout", 0.5),
        ("GATEWAY_DATA_DIR", "/var/lib/gateway", "gateway_data_dir", Path("/var/lib/gateway")),
        ("UPSTREAM_URL", "http://127.0.0.1:9000/base/", "upstream_url", "http://127.0.0.1:9000/base"),
        ("UPSTREAM_URL", "https://[::1]", "upstream_url", "https://[::1]"),
        (
            "ADMIN_ALLOWED_IPS",
            "127.0.0.1, 10.0.0.0/8,fd00::/8",
            "admin_allowed_ips",
            tuple(ipaddress.ip_network(net) for net in ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")),
        ),
        (
            "ADMIN_KEYS",
            f"ops:Operate:{'k' * 16}:1, ci:read:sha256:{'AB' * 32}",
            "admin_keys",
            (
                AdminKey("ops", Role.OPERATE, sha256(b"kkkkkkkkkkkkkkkk:1").digest()),
                AdminKey("ci", Role.READ, b"\xab" * 32),
            ),
        ),
        ("TRUSTED_PROXIES", "::1", "trusted_proxies", (ipaddress.ip_network("::1/128"),)),
        (
            "OUTBOUND_ALLOW",
            "127.0.0.1:9000,[::1]:9000,::1,Localhost,127.0.0.0/8,127.0.0.0/8:80,worker.local:81",
            "outbound_allow",
            (
                "127.0.0.1:9000",
                "[::1]:9000",
                "::1",
                "localhost",
                "127.0.0.0/8",
                "127.0.0.0/8:80",
                "worker.local:81",
            ),
        ),
        ("OUTBOUND_ALLOW_PRIVATE", "no", "outbound_allow_private", False),
        ("OUTBOUND_PROXY", "http://ann:pw@[::1]:3128", "outbound_proxy", "http://ann:pw@[::1]:3128"),
        ("WINDOW_ALGORITHM", "FIXED", "window_algorithm", "fixed"),
        ("AUTO_CREATE_CLIENTS", "0", "auto_create_clients", False),
        ("LEGACY_CLIENT_ID", "old-callers", "legacy_client_id", "old-callers"),
        ("QUEUE_WEIGHTS", "a=6, b=3", "queue_weights", {"a": 6, "b": 3}),
        ("MAX_QUEUED_BYTES_PER_CLIENT", "65536", "max_queued_bytes_per_client", 65536),
        ("MAX_QUEUED_BYTES_PER_CLIENT", "1 GiB", "max_queued_bytes_per_client", 2**30),
        ("MAX_BODY_BYTES", "2MB", "max_body_bytes", 2_000_000),
        ("DEAD_TTL", "90", "dead_ttl", 90),
        ("DEAD_TTL", "15m", "dead_ttl", 900),
        ("DEAD_TTL", "1.5", "dead_ttl", 2),
        ("IDEMPOTENCY_TTL", "24h", "idempotency_ttl", 86400),
        ("LEASE_SECONDS", "1.5", "lease_seconds", 1.5),
        ("KEY_PREFIX", "gateway:", "key_prefix", "gateway:"),
        ("LOG_LEVEL", "WARN", "log_level", "warning"),
        ("LOG_FORMAT", "console", "log_format", "console"),
    ],
)
def test_accepted(name: str, text: str, attribute: str, value: object) -> None:
    """A well-formed text becomes its value, from the environment and, over it, from a flag."""
    assert getattr(Settings.load({name: text}), attribute) == value
    assert getattr(Settings.load({name: "malformed {}"}, {name: text}), attribute) == value


def test_redis_password_is_percent_encoded() -> None:
    """A password with every troublesome character goes through REDIS_ADDR's URL unchanged."""
    password = " p@s:s/w?o#r%d "
    url = Settings.load({"REDIS_ADDR": "cache:6380", "REDIS_PASSWORD": password}).redis_url
    assert url is not None
    read: dict[str, object] = redis.Redis.from_url(url).connection_pool.connection_kwargs
    assert {name: read[name] for name in ("host", "port", "password")} == {
        "host": "cache",
        "port": 6380,
        "password": password,
    }


def test_flags_only_settings_ignore_the_environment() -> None:
    """ROLE, WORKERS and ADMIN_ONLY are flags: variables of these common names do not change the service."""
    settings = Settings.load({"ROLE": "webserver", "WORKERS": "x", "ADMIN_ONLY": "x"}, {"WORKERS": "3"})
    assert (settings.role, settings.workers, settings.admin_only) == ("all", 3, False)


def test_admin_only_has_a_port() -> None:
    """With --admin-only, ADMIN_PORT is 8081 unless set."""
    assert Settings.load({}, {"ADMIN_ONLY": "true"}).admin_port == 8081
    assert Settings.load({"ADMIN_PORT": "9"}, {"ADMIN_ONLY": "true"}).admin_port == 9


def test_log_format_follows_the_terminal() -> None:
    """Unset, the log format is console in a terminal; set, it is what was set."""
    assert Settings.load({}, terminal=True).log_format == "console"
    assert Settings.load({"LOG_FORMAT": "json"}, terminal=True).log_format == "json"
