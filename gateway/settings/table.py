"""One table of every setting: its name, its default, how its text is read, its help."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway import addresses, admin_keys, parsing

DAY = 86400


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
    Setting("TLS_CERT", None, parsing.file, "file of the listeners' certificate with its chain (PEM); unset: no TLS"),
    Setting("TLS_KEY", None, parsing.file, "file of that certificate's key"),
    Setting("ADMIN_TLS_CLIENT_CA", None, parsing.file, "file of the CAs whose clients may call /admin"),
    Setting("ADMIN_API_KEY", None, parsing.secret, "key of the operators' API", secret=True),
    Setting("ADMIN_KEYS", "", admin_keys.admin_keys, "more keys, name:role:key (read, operate, admin)", secret=True),
    Setting("ADMIN_KEYS_FILE", None, admin_keys.admin_keys_file, "TOML or JSON file of keys, read again on a change"),
    Setting(
        "ADMIN_GUESSES_PER_MIN", "10", parsing.whole(1, 1_000_000), "wrong admin keys of an address that are looked at"
    ),
    Setting(
        "CLIENT_GUESSES_PER_MIN",
        "100",
        parsing.whole(1, 1_000_000),
        "wrong keys for a client from an address that are looked at",
    ),
    Setting("ADMIN_ALLOWED_IPS", "", addresses.networks, "addresses and networks that may call /admin"),
    Setting("ADMIN_PORT", None, _port, "a listener of its own for /admin"),
    Setting("TRUSTED_PROXIES", "", addresses.networks, "networks whose X-Forwarded-For is believed"),
    Setting("MAX_CONNECTIONS_PER_ADDRESS", "1000", _at_least_one, "connections of one address to one listener"),
    Setting("MAX_OPEN_REQUESTS", "2000", _at_least_one, "requests that one listener answers at once"),
    Setting("UPSTREAM_URL", None, addresses.upstream, "the service this sidecar stands before"),
    Setting("OUTBOUND_ALLOW", "", addresses.outbound, "loopback targets that may be called (127.0.0.1:9000)"),
    Setting("OUTBOUND_DENY", "", addresses.outbound, "networks and names that may never be called"),
    Setting("OUTBOUND_ALLOW_PRIVATE", "true", parsing.boolean, "private networks may be called"),
    Setting("OUTBOUND_PROXY", None, addresses.proxy, "proxy for the calls to targets (http://user:password@host:port)"),
    Setting("WINDOW_ALGORITHM", "sliding", parsing.choice("sliding", "fixed"), "sliding or fixed"),
    Setting("MAX_OVERRIDE_CONCURRENT", "100", _at_least_one, "ceiling of an override's max_concurrent"),
    Setting("MAX_OVERRIDE_REQUESTS_PER_MIN", "10000", _at_least_one, "ceiling of an override's requests_per_min"),
    Setting("AUTO_CREATE_CLIENTS", "true", parsing.boolean, "create unknown clients on first use"),
    Setting("REQUIRE_CLIENT_KEY", "false", parsing.boolean, "every client shows a key, not only those that have one"),
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
    Setting(
        "TASK_ENCRYPTION_KEYS",
        "",
        parsing.encryption_keys,
        "id:base64 of 32 bytes, comma separated: the first seals what Redis keeps of tasks, all open it",
        secret=True,
    ),
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
