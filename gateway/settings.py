"""What an operator can set: one table of every setting, and the frozen `Settings` read with it at the start.
How a text becomes a value is in `gateway.parsing` and `gateway.addresses`; no other module reads the
environment."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from gateway import addresses, parsing
from gateway.addresses import Network, mask
from gateway.models import RateLimit

DAY = 86400
ADMIN_ONLY_PORT = 8081


class SettingsError(Exception):
    """The gateway can't start with these settings. ``mistakes`` has a line for each, all found at once."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Setting(NamedTuple):
    """One setting: its environment name, its default as text (None: unset), the parser of its text, its help.
    ``flag_only`` ones describe one start, not a deployment, and have no environment variable."""

    name: str
    default: str | None
    parse: Callable[[str], Any]
    help: str
    secret: bool = False
    flag_only: bool = False

    @property
    def attribute(self) -> str:
        """The name of the value in `Settings`."""
        return "tiers" if self.name == "TIERS_FILE" else self.name.lower()

    @property
    def flag(self) -> str:
        """The flag of ``gateway serve``."""
        return "--" + self.name.lower().replace("_", "-")


_port = parsing.whole(0, 65535)
_at_least_one = parsing.whole(1)
_a_decade = 3650 * DAY

# Bounds that are not the API's are there to catch a wrong unit (milliseconds for seconds), not to restrict.
SETTINGS: tuple[Setting, ...] = (
    Setting("HOST", "127.0.0.1", addresses.host, "address of the public listener"),
    Setting("PORT", "8080", _port, "port of the public listener (0: any free one)"),
    Setting(
        "REDIS_URL",
        None,
        addresses.redis_url,
        "redis://, rediss://, unix://, redis+sentinel://; unset: an embedded Valkey",
    ),
    Setting("REDIS_ADDR", None, addresses.redis_addr, "host:port, instead of REDIS_URL"),
    Setting("REDIS_PASSWORD", None, parsing.password, "password for REDIS_ADDR", secret=True),
    Setting("REDIS_SENTINEL_PASSWORD", None, parsing.password, "password of the Sentinels themselves", secret=True),
    Setting("REDIS_TLS_CA", None, parsing.file, "file of the CA that signed Redis's certificate"),
    Setting("REDIS_TLS_CERT", None, parsing.file, "file of the gateway's own certificate for Redis"),
    Setting("REDIS_TLS_KEY", None, parsing.file, "file of that certificate's key"),
    Setting("REDIS_POOL_SIZE", "100", parsing.whole(1, 100_000), "connections to Redis"),
    Setting("REDIS_CONNECT_TIMEOUT", "5", parsing.duration(0.01, 600), "seconds to connect to Redis"),
    Setting("REDIS_TIMEOUT", "1.5", parsing.duration(0.01, 600), "seconds for an answer of Redis"),
    Setting("REDIS_CLUSTER", "false", parsing.boolean, "the URL is a node of a Cluster"),
    Setting(
        "DURABILITY", "none", parsing.choice("none", "wait", "waitaof"), "what a 201 waits for: none, wait, waitaof"
    ),
    Setting("DURABILITY_REPLICAS", "1", parsing.whole(0, 100), "replicas that must have the task"),
    Setting("DURABILITY_TIMEOUT", "1", parsing.duration(0.01, 60), "seconds to wait for them"),
    Setting("GATEWAY_DATA_DIR", "~/.local/share/gateway", Path, "folder of the embedded Valkey's data"),
    Setting(
        "EMBEDDED_REDIS_PORT",
        None,
        parsing.whole(1, 65535),
        "also open the embedded Valkey on this loopback port",
    ),
    Setting("ADMIN_API_KEY", None, parsing.secret, "key of the operators' API", secret=True),
    Setting("ADMIN_ALLOWED_IPS", "", addresses.networks, "addresses and networks that may call /admin"),
    Setting("ADMIN_PORT", None, _port, "a listener of its own for /admin"),
    Setting("TRUSTED_PROXIES", "", addresses.networks, "networks whose X-Forwarded-For is believed"),
    Setting("UPSTREAM_URL", None, addresses.upstream, "the service this sidecar stands before"),
    Setting("OUTBOUND_ALLOW", "", addresses.outbound, "loopback targets that may be called (127.0.0.1:9000)"),
    Setting("OUTBOUND_DENY", "", addresses.outbound, "networks and names that may never be called"),
    Setting("OUTBOUND_ALLOW_PRIVATE", "true", parsing.boolean, "private networks may be called"),
    Setting("OUTBOUND_PROXY", None, addresses.proxy, "proxy for the calls to targets (http://user:password@host:port)"),
    Setting("WINDOW_ALGORITHM", "sliding", parsing.choice("sliding", "fixed"), "sliding or fixed"),
    Setting("MAX_OVERRIDE_CONCURRENT", "100", _at_least_one, "ceiling of an override's max_concurrent"),
    Setting("MAX_OVERRIDE_REQUESTS_PER_MIN", "10000", _at_least_one, "ceiling of an override's requests_per_min"),
    Setting("AUTO_CREATE_CLIENTS", "true", parsing.boolean, "create unknown clients on first use"),
    Setting("LEGACY_CLIENT_ID", None, parsing.client_id, "client that requests without an id are booked to"),
    Setting("TIERS_FILE", "", parsing.tiers_file, "TOML or JSON file of tiers, on top of the shipped ones"),
    Setting("QUEUE_WEIGHTS", "critical=6,default=3,low=1", parsing.queue_weights, "shares of a client's queues"),
    Setting("MAX_IN_FLIGHT", "1000", _at_least_one, "open calls of one process"),
    Setting("MAX_QUEUED_PER_CLIENT", "100000", _at_least_one, "tasks of a client that may wait"),
    Setting("MAX_QUEUED_BYTES_PER_CLIENT", "256MiB", parsing.size(1, 2**50), "bytes of a client that may wait"),
    Setting("MAX_QUEUED", "10000000", _at_least_one, "tasks of all clients that may wait"),
    Setting("MAX_QUEUED_BYTES", "16GiB", parsing.size(1, 2**50), "bytes of all clients that may wait"),
    Setting("MAX_QUEUES_PER_CLIENT", "32", parsing.whole(1, 1024), "queues of a client"),
    Setting("MAX_CLIENTS", "1000000", _at_least_one, "clients in all"),
    Setting("MAX_RESULTS_PER_CLIENT", "1000", _at_least_one, "results kept of a client"),
    Setting("MAX_DEAD_PER_CLIENT", "10000", _at_least_one, "dead letters kept of a client"),
    Setting("DEAD_TTL", "7d", parsing.whole_seconds(1, _a_decade), "how long dead letters are kept"),
    Setting("IDEMPOTENCY_TTL", "24h", parsing.whole_seconds(1, _a_decade), "how long idempotency keys are kept"),
    Setting("KEY_PREFIX", "", parsing.key_prefix, "prefix of all keys, for a Redis that others use too"),
    Setting("MAX_BODY_BYTES", "1MiB", parsing.size(1, 2**30), "largest body of a request"),
    Setting("MAX_BATCH_BYTES", "8MiB", parsing.size(1, 2**30), "largest body of a batch"),
    Setting("MAX_DELAY_SECONDS", "30d", parsing.duration(0, _a_decade), "how far ahead a task may be scheduled"),
    Setting("LEASE_SECONDS", "30", parsing.duration(0.5, DAY), "how long a dead process's calls keep their slots"),
    Setting("DRAIN_SECONDS", "20", parsing.duration(0, DAY), "how long open calls may take at a stop"),
    Setting("RESULT_TTL", "3600", parsing.whole_seconds(1, _a_decade), "how long results are kept"),
    Setting("METRICS_MAX_CLIENTS", "1000", parsing.whole(0, 1_000_000), "clients with a metric label of their own"),
    Setting("MAX_DELIVERIES", "3", parsing.whole(1, 1000), "starts without an outcome before a task is buried"),
    Setting(
        "LOG_LEVEL",
        "info",
        parsing.choice("debug", "info", "warning", "error", "critical", warn="warning"),
        "debug, info, warning, error or critical",
    ),
    Setting("LOG_FORMAT", None, parsing.choice("json", "console"), "json, or console (the default in a terminal)"),
    Setting(
        "ROLE",
        "all",
        parsing.choice("all", "api", "dispatcher"),
        "all, api or dispatcher: its part",
        flag_only=True,
    ),
    Setting("WORKERS", "1", parsing.whole(1, 1024), "processes on the one port", flag_only=True),
    Setting(
        "ADMIN_ONLY",
        "false",
        parsing.boolean,
        "only /admin, health and metrics, on ADMIN_PORT",
        flag_only=True,
    ),
)
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting as its value; durations in seconds, sizes in bytes. None: unset.

    ``redis_url`` of None means the embedded Valkey. ``tiers`` are the shipped ones with those of the file on
    top. ``warnings`` are sentences for the log of the start. Those that hold secrets are not in the repr.
    """

    host: str
    port: int
    redis_url: str | None = field(repr=False)
    redis_sentinel_password: str | None = field(repr=False)
    redis_tls_ca: Path | None
    redis_tls_cert: Path | None
    redis_tls_key: Path | None
    redis_pool_size: int
    redis_connect_timeout: float
    redis_timeout: float
    redis_cluster: bool
    durability: Literal["none", "wait", "waitaof"]
    durability_replicas: int
    durability_timeout: float
    gateway_data_dir: Path
    embedded_redis_port: int | None
    admin_api_key: str | None = field(repr=False)
    admin_allowed_ips: tuple[Network, ...]
    admin_port: int | None
    trusted_proxies: tuple[Network, ...]
    upstream_url: str | None
    outbound_allow: tuple[str, ...]
    outbound_deny: tuple[str, ...]
    outbound_allow_private: bool
    outbound_proxy: str | None = field(repr=False)
    window_algorithm: Literal["sliding", "fixed"]
    max_override_concurrent: int
    max_override_requests_per_min: int
    auto_create_clients: bool
    legacy_client_id: str | None
    tiers: dict[str, RateLimit]
    queue_weights: dict[str, int]
    max_in_flight: int
    max_queued_per_client: int
    max_queued_bytes_per_client: int
    max_queued: int
    max_queued_bytes: int
    max_queues_per_client: int
    max_clients: int
    max_results_per_client: int
    max_dead_per_client: int
    dead_ttl: int
    idempotency_ttl: int
    key_prefix: str
    max_body_bytes: int
    max_batch_bytes: int
    max_delay_seconds: float
    lease_seconds: float
    drain_seconds: float
    result_ttl: int
    metrics_max_clients: int
    max_deliveries: int
    log_level: str
    log_format: Literal["json", "console"]
    role: Literal["all", "api", "dispatcher"]
    workers: int
    admin_only: bool
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, env: Mapping[str, str], flags: Mapping[str, str] | None = None, *, terminal: bool = False
    ) -> "Settings":
        """Read every setting, from ``flags`` (by setting name) before ``env``; an empty text means unset.

        ``terminal``: the log goes to one, which makes ``console`` the default format. Raises `SettingsError`
        with every mistake there is.
        """
        given = {_canonical(name): text for name, text in (flags or {}).items()}
        mistakes = [_unknown(name) for name in given if name not in BY_NAME]
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            text = given.get(setting.name, "" if setting.flag_only else env.get(setting.name, ""))
            text = text if setting.secret else text.strip()
            try:
                values[setting.attribute] = _value(setting, text)
            except ValueError as problem:
                mistakes.append(_mistake(setting, text, str(problem), from_flag=setting.name in given))
                values[setting.attribute] = None
        mistakes += _conflicts(values)
        if mistakes:
            raise SettingsError(tuple(mistakes))
        warnings = (*_misspelt(env), *_pathless(values["upstream_url"]))
        return cls(**_settled(values, env, terminal=terminal), warnings=warnings)

    @property
    def redis_shown(self) -> str | None:
        """`redis_url` without its password, for logs and messages."""
        return None if self.redis_url is None else mask(self.redis_url)


def _value(setting: Setting, text: str) -> Any:
    chosen = text or setting.default
    return None if chosen is None else setting.parse(chosen)


def _canonical(name: str) -> str:
    return name.lstrip("-").replace("-", "_").upper()


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, BY_NAME, n=1)
    flag = "--" + name.lower().replace("_", "-")
    return f"{flag}: no such setting" + (f"; did you mean {BY_NAME[close[0]].flag}?" if close else "")


def _mistake(setting: Setting, text: str, allowed: str, *, from_flag: bool) -> str:
    where = f"{setting.name} ({setting.flag})" if from_flag else setting.name
    shown = "(hidden)" if setting.secret else repr(mask(text))
    return f"{where}: {shown} is not allowed; allowed: {allowed}"


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    """Settings that are right by themselves, not together. A malformed one is None here, and told already."""
    url, addr, cluster = values["redis_url"], values["redis_addr"], values["redis_cluster"]
    mistakes = []
    if url and addr:
        mistakes.append(f"REDIS_URL and REDIS_ADDR: both are given ({mask(url)!r}, {addr!r}); allowed: one of them")
    if values["redis_password"] and not addr:
        mistakes.append("REDIS_PASSWORD: (hidden) has no REDIS_ADDR; allowed: with REDIS_ADDR, or inside REDIS_URL")
    if cluster and not (url or addr):
        mistakes.append("REDIS_CLUSTER: 'true' needs a node; allowed: together with REDIS_URL or REDIS_ADDR")
    if cluster and url and (not url.startswith(("redis:", "rediss:")) or urlsplit(url).path not in {"", "/", "/0"}):
        mistakes.append(f"REDIS_URL: {mask(url)!r} is no Cluster node; allowed: redis://host:port without a database")
    mistakes += _redis_conflicts(values)
    port = values["port"]
    if port and port == values["admin_port"] and not values["admin_only"]:
        mistakes.append(f"ADMIN_PORT: '{port}' is PORT too; allowed: another port")
    if values["admin_only"] and values["role"] not in {"all", None}:
        mistakes.append(f"ROLE (--role): {values['role']!r} with --admin-only; allowed: one of the two flags")
    return mistakes


def _redis_conflicts(values: Mapping[str, Any]) -> list[str]:
    url = values["redis_url"] or ""
    tls = url.startswith("rediss")
    mistakes = [
        f"{name.upper()}: {str(values[name])!r} has no use without TLS; allowed: with a REDIS_URL of rediss://"
        for name in ("redis_tls_ca", "redis_tls_cert", "redis_tls_key")
        if values[name] is not None and not tls
    ]
    if values["redis_tls_key"] is not None and values["redis_tls_cert"] is None:
        mistakes.append("REDIS_TLS_KEY: has no certificate; allowed: together with REDIS_TLS_CERT")
    if values["redis_sentinel_password"] and "+sentinel" not in url:
        mistakes.append("REDIS_SENTINEL_PASSWORD: (hidden) has no Sentinels; allowed: with redis+sentinel://")
    if values["durability"] == "wait" and values["durability_replicas"] == 0:
        mistakes.append("DURABILITY_REPLICAS: '0' waits for nothing with DURABILITY=wait; allowed: at least 1")
    return mistakes


def _settled(values: dict[str, Any], env: Mapping[str, str], *, terminal: bool) -> dict[str, Any]:
    """The values with what one setting says about another worked in."""
    addr, password = values.pop("redis_addr"), values.pop("redis_password")
    if addr:
        login = f":{quote(password, safe='')}@" if password else ""
        values["redis_url"] = f"redis://{login}{addr}"
    folder = str(values["gateway_data_dir"])
    if folder == "~" or folder.startswith("~/"):
        folder = (env.get("HOME") or str(Path("~").expanduser())) + folder[1:]
    values["gateway_data_dir"] = Path(os.path.abspath(folder))
    values["log_format"] = values["log_format"] or ("console" if terminal else "json")
    if values["admin_only"] and values["admin_port"] is None:
        values["admin_port"] = ADMIN_ONLY_PORT
    return values


def _pathless(upstream: str | None) -> tuple[str, ...]:
    """A warning where UPSTREAM_URL has a path: a task's path is joined to its origin alone."""
    path = urlsplit(upstream or "").path
    return (f"UPSTREAM_URL: its path {path!r} is not used; give it in each task's url",) if path else ()


def _misspelt(env: Mapping[str, str]) -> tuple[str, ...]:
    """A warning for each variable that is nearly a setting: whoever set it believes that it is one."""
    names = [setting.name for setting in SETTINGS if not setting.flag_only]
    warnings = []
    for name in sorted(set(env) - set(names) - {"GATEWAY_URL"}):
        close = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.8)
        if close and re.fullmatch(r"[A-Za-z0-9_]+", name):
            warnings.append(f"{name} is not a setting and was not read; did you mean {close[0]}?")
    return tuple(warnings)
