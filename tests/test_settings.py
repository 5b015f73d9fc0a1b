"""The settings: every default of the contract, every mistake told at once, no secret in any message."""

import dataclasses
import ipaddress
import json
from hashlib import sha256
from pathlib import Path

import pytest
import redis

from gateway.admin_keys import AdminKey, Role
from gateway.models import RateLimit
from gateway.settings import SETTINGS, Settings, SettingsError

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


def mistakes(env: dict[str, str], flags: dict[str, str] | None = None) -> tuple[str, ...]:
    """What is wrong with these settings."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(env, flags)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


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


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("HOST", "http://x", "host name"),
        ("HOST", "10.0.0.256", "address"),
        ("PORT", "65536", "0 to 65535"),
        ("PORT", "80a", "whole number"),
        ("PORT", "٣", "whole number"),
        ("REDIS_URL", "http://cache:6379", "unix://"),
        ("REDIS_URL", "redis://", "host"),
        ("REDIS_URL", "redis://cache:99999", "host"),
        ("REDIS_URL", "redis://cache/a", "/db"),
        ("REDIS_URL", "unix://", "unix:///path"),
        ("REDIS_URL", "redis://cache?tiemout=", "options"),
        ("REDIS_URL", "redis+sentinel://a,b", "/service"),
        ("REDIS_URL", "redis+sentinel://a:99999/main", "/service"),
        ("REDIS_URL", "redis+sentinel://a b/main", "/service"),
        ("REDIS_URL", "redis+sentinel:///main", "/service"),
        ("REDIS_URL", "redis+sentinel://a/main?tiemout=", "options"),
        ("REDIS_TLS_CA", "/nowhere/ca.pem", "can't be read"),
        ("DURABILITY", "fsync", "none, wait or waitaof"),
        ("DURABILITY_REPLICAS", "-1", "0 to 100"),
        ("DURABILITY_TIMEOUT", "0", "seconds"),
        ("REDIS_ADDR", "cache", "host:port"),
        ("REDIS_ADDR", "cache:99999", "host:port"),
        ("REDIS_POOL_SIZE", "0", "1 to"),
        ("REDIS_TIMEOUT", "nan", "seconds"),
        ("REDIS_TIMEOUT", "-1", "seconds"),
        ("REDIS_CLUSTER", "maybe", "true or false"),
        ("EMBEDDED_REDIS_PORT", "0", "1 to 65535"),
        ("ADMIN_ALLOWED_IPS", "10.0.0.1/8", "10.0.0.0/8"),
        ("ADMIN_ALLOWED_IPS", "localhost", "networks"),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "networks"),
        ("UPSTREAM_URL", "localhost:9000", "http://"),
        ("UPSTREAM_URL", "ftp://localhost", "http://"),
        ("UPSTREAM_URL", "http://", "http://"),
        ("UPSTREAM_URL", "http://x/?a", "query"),
        ("OUTBOUND_ALLOW", "http://127.0.0.1", "names"),
        ("OUTBOUND_ALLOW", "127.0.0.1:0", "names"),
        ("OUTBOUND_ALLOW", "localhost:99999", "names"),
        ("WINDOW_ALGORITHM", "slide", "sliding or fixed"),
        ("LEGACY_CLIENT_ID", "a b", "client id"),
        ("TIERS_FILE", "/nowhere/tiers.toml", "can't be read"),
        ("QUEUE_WEIGHTS", "a", "queue=weight"),
        ("QUEUE_WEIGHTS", "a=0", "weights from 1"),
        ("QUEUE_WEIGHTS", "a=1,a=2", "queue=weight"),
        ("MAX_IN_FLIGHT", "0", "at least 1"),
        ("MAX_IN_FLIGHT", "1.5", "whole number"),
        ("MAX_BODY_BYTES", "1 parsec", "512KiB"),
        ("DEAD_TTL", "7 weeks", "7d"),
        ("KEY_PREFIX", "{x}", "braces"),
        ("LOG_LEVEL", "loud", "debug"),
        ("LOG_FORMAT", "xml", "json or console"),
    ],
)
def test_refused(name: str, text: str, allowed: str) -> None:
    """A malformed text is one mistake that names the setting, its value and what is allowed."""
    (mistake,) = mistakes({name: text})
    assert mistake.startswith(f"{name}: {text!r} is not allowed; allowed: ")
    assert allowed in mistake.partition("allowed: ")[2]


def test_all_mistakes_at_once() -> None:
    """Every malformed setting is told in one go, and one typed as a flag is named by it too."""
    told = mistakes({"PORT": "x", "LOG_LEVEL": "y", "KEY_PREFIX": "{"}, {"MAX_IN_FLIGHT": "0"})
    named = {mistake.split(":")[0] for mistake in told}
    assert named == {"PORT", "MAX_IN_FLIGHT (--max-in-flight)", "KEY_PREFIX", "LOG_LEVEL"}


@pytest.mark.parametrize(
    "env",
    [
        {"ADMIN_API_KEY": "hunter two"},
        {"ADMIN_KEYS": "ops:admin:hunter"},
        {"ADMIN_KEYS": f"hunter-{'2' * 16}:admin:ops"},
        {"ADMIN_KEYS": f"ops:hunter-{'2' * 16}:admin"},
        {"ADMIN_KEYS": f"ops:sha256:hunter{'2' * 16}"},
        {"ADMIN_KEYS": f"a:read:hunter-{'2' * 16},b:read:hunter-{'2' * 16}"},
        {"REDIS_PASSWORD": "hunter two"},
        {"REDIS_ADDR": "cache", "REDIS_PASSWORD": "hunter two"},
        {"REDIS_URL": "redis://app:hunter two@cache:6379"},
        {"REDIS_URL": "redis://app:hunter@two@cache:port"},
        {"REDIS_URL": "redis://:hunter"},
        {"REDIS_URL": "redis+sentinel://app:hunter@a"},
        {"REDIS_SENTINEL_PASSWORD": "hunter"},
        {"REDIS_SENTINEL_PASSWORD": "hunter two"},
        {"REDIS_URL": "redis://cache/0?password=hunter&x=1"},
        {"REDIS_URL": "http://app:hunter@cache"},
        {"REDIS_URL": "redis://app:hunter@cache", "REDIS_ADDR": "cache:6379"},
        {"REDIS_ADDR": "redis://:hunter@cache:6379"},
        {"UPSTREAM_URL": "http://app:hunter@service"},
        {"OUTBOUND_PROXY": "socks5://app:hunter@proxy:1080"},
        {"OUTBOUND_PROXY": "http://app:hunter"},
        {"OUTBOUND_ALLOW": "a,http://app:hunter@service"},
    ],
)
def test_no_secret_in_a_message(env: dict[str, str]) -> None:
    """Whatever is wrong with a setting that may hold a secret, the message does not repeat it."""
    assert not [told for told in mistakes(env) if "hunter" in told]


def test_no_secret_in_the_repr() -> None:
    """The repr of the settings and the shown URL hold neither the key nor the password."""
    keys = f"ops:read:hunter-{'2' * 16}"
    env = {"ADMIN_API_KEY": "hunter", "ADMIN_KEYS": keys, "REDIS_URL": "redis://app:hunter@cache:6379/0"}
    settings = Settings.load(env)
    assert settings.admin_api_key == "hunter"
    assert "hunter" not in repr(settings)
    assert settings.redis_shown == "redis://***@cache:6379/0"


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


@pytest.mark.parametrize(
    ("env", "flags", "named"),
    [
        ({"REDIS_URL": "redis://a", "REDIS_ADDR": "a:1"}, {}, "REDIS_URL and REDIS_ADDR"),
        ({"REDIS_PASSWORD": "x"}, {}, "REDIS_PASSWORD"),
        ({"REDIS_CLUSTER": "true"}, {}, "REDIS_CLUSTER"),
        ({"REDIS_CLUSTER": "true", "REDIS_URL": "unix:///a"}, {}, "REDIS_URL"),
        ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis://a/3"}, {}, "REDIS_URL"),
        ({"REDIS_CLUSTER": "true", "REDIS_URL": "redis+sentinel://a/main"}, {}, "REDIS_URL"),
        ({"REDIS_SENTINEL_PASSWORD": "x", "REDIS_URL": "redis://a"}, {}, "REDIS_SENTINEL_PASSWORD"),
        ({"REDIS_TLS_CA": __file__, "REDIS_URL": "redis://a"}, {}, "REDIS_TLS_CA"),
        ({"REDIS_TLS_KEY": __file__, "REDIS_URL": "rediss://a"}, {}, "REDIS_TLS_KEY"),
        ({"DURABILITY": "wait", "DURABILITY_REPLICAS": "0"}, {}, "DURABILITY_REPLICAS"),
        ({"ADMIN_KEYS": f"ops:read:{'k' * 16}", "ADMIN_API_KEY": "k" * 16}, {}, "ADMIN_KEYS"),
        ({"PORT": "8081", "ADMIN_PORT": "8081"}, {}, "ADMIN_PORT"),
        ({}, {"ADMIN_ONLY": "true", "ROLE": "api"}, "ROLE"),
    ],
)
def test_contradictions(env: dict[str, str], flags: dict[str, str], named: str) -> None:
    """Settings that contradict each other are one mistake that names them."""
    (mistake,) = mistakes(env, flags)
    assert mistake.startswith(named)


def test_unknown_flag_is_told_what_to_type() -> None:
    """A flag that is no setting is a mistake that names the nearest one."""
    assert mistakes({}, {"max-inflight": "3"}) == ("--max-inflight: no such setting; did you mean --max-in-flight?",)


def test_misspelt_variables_are_warned_of() -> None:
    """Variables that are nearly settings are told the right name; others are left alone."""
    env = {"MAX_INFLIGHT": "3", "REDIS_ADRR": "x", "ADMIN_KEY": "hunter", "HOSTNAME": "x", "PATH": "/bin"}
    settings = Settings.load(env | {"GATEWAY_URL": "x"})
    assert settings.warnings == (
        "ADMIN_KEY is not a setting and was not read; did you mean ADMIN_KEYS?",
        "MAX_INFLIGHT is not a setting and was not read; did you mean MAX_IN_FLIGHT?",
        "REDIS_ADRR is not a setting and was not read; did you mean REDIS_ADDR?",
    )


def test_a_path_of_the_upstream_is_warned_of() -> None:
    """Tasks' paths are joined to the origin, so a path in UPSTREAM_URL would be dropped in silence."""
    (warning,) = Settings.load({"UPSTREAM_URL": "http://127.0.0.1:9000/base"}).warnings
    assert "'/base'" in warning
    assert Settings.load({"UPSTREAM_URL": "http://127.0.0.1:9000/"}).warnings == ()


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tiers.toml", "[gold]\nmax_concurrent = 7\nrequests_per_min = 70\n"),
        ("tiers.toml", "[tiers.gold]\nmax_concurrent = 7\nrequests_per_min = 70\n"),
        ("tiers.json", json.dumps({"gold": {"max_concurrent": 7, "requests_per_min": 70}})),
        ("tiers.json", json.dumps({"tiers": {"gold": {"max_concurrent": 7, "requests_per_min": 70}}})),
        ("tiers", json.dumps({"gold": {"max_concurrent": 7, "requests_per_min": 70}})),
    ],
)
def test_tiers_file(tmp_path: Path, name: str, content: str) -> None:
    """A tiers file, in either format and shape, adds to the shipped tiers."""
    (tmp_path / name).write_text(content)
    tiers = Settings.load({"TIERS_FILE": str(tmp_path / name)}).tiers
    assert tiers == {**DEFAULTS["tiers"], "gold": RateLimit(7, 70)}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("keys.toml", f"[ops]\nrole = 'operate'\nkey = '{'k' * 16}'\n"),
        ("keys.json", json.dumps({"keys": {"ops": {"role": "operate", "sha256": sha256(b"k" * 16).hexdigest()}}})),
    ],
)
def test_admin_keys_file(tmp_path: Path, name: str, content: str) -> None:
    """Keys come from a file in either format, plain or as their hash; the repr has neither."""
    (tmp_path / name).write_text(content)
    settings = Settings.load({"ADMIN_KEYS_FILE": str(tmp_path / name)})
    assert settings.admin_keys_file is not None
    assert settings.admin_keys_file.keys == (AdminKey("ops", Role.OPERATE, sha256(b"k" * 16).digest()),)
    assert settings.has_admin_keys
    assert "ops" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it has no keys"),
        ("ops = 3", "'ops': Expected `object`"),
        ("[ops]\nrole = 'operate'", "either key or sha256"),
        ("[ops]\nrole = 'operate'\nkey = 'hunter'", "at least 16"),
        ("[ops]\nrole = 'root'\nkey = 'hunter-2222222222222'", "read, operate or admin"),
        ("[ops]\nrole = 'read'\nsha256 = 'hunter'", "64 hex digits"),
        ("['a b']\nrole = 'read'\nkey = 'hunter-2222222222222'", "a name is"),
        ("[ops]\nrole = 'read'\nkey = 'hunter-2222222222222'\ntier = 1", "unknown field `tier`"),
    ],
)
def test_bad_admin_keys_file(tmp_path: Path, content: str, why: str) -> None:
    """A file of keys that is wrong is a mistake that names the file and what is wrong in it, and no key."""
    file = tmp_path / "keys.toml"
    file.write_text(content)
    (mistake,) = mistakes({"ADMIN_KEYS_FILE": str(file)})
    assert mistake.startswith(f"ADMIN_KEYS_FILE: {str(file)!r}")
    assert why in mistake
    assert "hunter" not in mistake


def test_tiers_may_have_prices(tmp_path: Path) -> None:
    """A price is kept beside the limits, also of 0; one below that, or none that is a number, is a mistake."""
    file = tmp_path / "tiers.json"
    limits = {"max_concurrent": 7, "requests_per_min": 70}
    file.write_text(json.dumps({"gold": {**limits, "price": 9.5}, "trial": {**limits, "price": 0}, "free": limits}))
    settings = Settings.load({"TIERS_FILE": str(file)})
    assert settings.tier_prices == {"gold": 9.5, "trial": 0}
    assert settings.tiers["gold"] == RateLimit(7, 70)
    for price in ("-1", '"much"', "1e999"):
        file.write_text(json.dumps({"gold": limits}).replace("70}", f'70, "price": {price}}}'))
        (mistake,) = mistakes({"TIERS_FILE": str(file)})
        assert "gold" in mistake


def test_tiers_file_replaces_a_shipped_tier(tmp_path: Path) -> None:
    """A tier of the file that is shipped too, or that is called "tiers", is the file's."""
    file = tmp_path / "tiers.toml"
    limit = "{max_concurrent = 2, requests_per_min = 20}"
    file.write_text(f"free = {limit}\ntiers = {limit}\n")
    tiers = Settings.load({"TIERS_FILE": str(file)}).tiers
    assert tiers["free"] == tiers["tiers"] == RateLimit(2, 20)
    assert tiers["basic"] == RateLimit(5, 100)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[gold", "Expected"),
        ("", "no tiers"),
        ("gold = 3", "'gold'"),
        ("[gold]\nmax_concurrent = 1", "requests_per_min"),
        ("[gold]\nmax_concurrent = 0\nrequests_per_min = 1", "at least 1"),
        ("[gold]\nmax_concurrent = 1\nrequests_per_min = 1\nburst = 3", "burst"),
        ("[gold]\nmax_concurrent = true\nrequests_per_min = 1", "max_concurrent"),
        ('["a b"]\nmax_concurrent = 1\nrequests_per_min = 1', "'a b'"),
    ],
)
def test_bad_tiers_file(tmp_path: Path, content: str, why: str) -> None:
    """A tiers file that is wrong is a mistake that names the file and what is wrong in it."""
    file = tmp_path / "tiers.toml"
    file.write_text(content)
    (mistake,) = mistakes({"TIERS_FILE": str(file)})
    assert mistake.startswith(f"TIERS_FILE: {str(file)!r}")
    assert why in mistake
