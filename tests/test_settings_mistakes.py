"""What is said of settings that can't be used: all mistakes at once, each named, without its secret."""

import pytest

from gateway.settings import Settings, SettingsError


def mistakes(env: dict[str, str], flags: dict[str, str] | None = None) -> tuple[str, ...]:
    """What is wrong with these settings."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(env, flags)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


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
