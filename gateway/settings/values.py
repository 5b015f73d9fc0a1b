"""The frozen `Settings`, and how they are read, once, from flags and the environment."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from gateway.addresses import Network
from gateway.admin_keys import ADMIN_API_KEY, AdminKey, KeysFile, Role, digest_of
from gateway.models import RateLimit
from gateway.redaction import mask, secret_parts
from gateway.settings import conflicts
from gateway.settings.table import BY_NAME, SETTINGS, Setting

ADMIN_ONLY_PORT = 8081


class SettingsError(Exception):
    """The gateway can't start with these settings. ``mistakes`` has a line for each, all found at once."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting as its value; durations in seconds, sizes in bytes. None: unset.

    ``redis_url`` of None means the embedded Valkey. ``tiers`` are the shipped ones with those of the file on
    top. ``warnings`` are sentences for the log of the start, ``secrets`` what no log may show (`redaction.protect`).
    Those that hold secrets are not in the repr.
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
    tls_cert: Path | None
    tls_key: Path | None
    admin_tls_client_ca: Path | None
    admin_api_key: str | None = field(repr=False)
    admin_keys: tuple[AdminKey, ...] = field(repr=False)
    admin_keys_file: KeysFile | None
    admin_guesses_per_min: int
    client_guesses_per_min: int
    admin_allowed_ips: tuple[Network, ...]
    admin_port: int | None
    trusted_proxies: tuple[Network, ...]
    max_connections_per_address: int
    max_open_requests: int
    upstream_url: str | None
    outbound_allow: tuple[str, ...]
    outbound_deny: tuple[str, ...]
    outbound_allow_private: bool
    outbound_proxy: str | None = field(repr=False)
    window_algorithm: Literal["sliding", "fixed"]
    max_override_concurrent: int
    max_override_requests_per_min: int
    auto_create_clients: bool
    require_client_key: bool
    legacy_client_id: str | None
    tiers: dict[str, RateLimit]
    tier_prices: dict[str, float]
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
    task_encryption_keys: tuple[tuple[str, bytes], ...] = field(repr=False)
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
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

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
        secrets: set[str] = set()
        for setting in SETTINGS:
            text = given.get(setting.name, "" if setting.flag_only else env.get(setting.name, ""))
            text = text if setting.secret else text.strip()
            secrets |= secret_parts(text, whole=setting.secret)
            try:
                values[setting.attribute] = _value(setting, text)
            except ValueError as problem:
                mistakes.append(_mistake(setting, text, str(problem), from_flag=setting.name in given))
                values[setting.attribute] = None
        mistakes += conflicts.conflicts(values)
        if mistakes:
            raise SettingsError(tuple(mistakes))
        warnings = conflicts.warnings(values, env)
        return cls(**_settled(values, env, terminal=terminal), warnings=warnings, secrets=frozenset(secrets))

    @property
    def own_admin_keys(self) -> tuple[AdminKey, ...]:
        """The keys that hold until the next start: `ADMIN_API_KEY` and those of `ADMIN_KEYS`."""
        key = self.admin_api_key
        first = () if key is None else (AdminKey(ADMIN_API_KEY, Role.ADMIN, digest_of(key.encode())),)
        return (*first, *self.admin_keys)

    @property
    def has_admin_keys(self) -> bool:
        """Whether `/admin` asks for a key at all. Where there is a file it does, whatever becomes of the file."""
        return bool(self.own_admin_keys) or self.admin_keys_file is not None

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


def _settled(values: dict[str, Any], env: Mapping[str, str], *, terminal: bool) -> dict[str, Any]:
    """The values with what one setting says about another worked in."""
    addr, password = values.pop("redis_addr"), values.pop("redis_password")
    if addr:
        login = f":{quote(password, safe='')}@" if password else ""
        values["redis_url"] = f"redis://{login}{addr}"
    values["tiers"], values["tier_prices"] = values["tiers"]
    folder = str(values["gateway_data_dir"])
    if folder == "~" or folder.startswith("~/"):
        folder = (env.get("HOME") or str(Path("~").expanduser())) + folder[1:]
    values["gateway_data_dir"] = Path(os.path.abspath(folder))
    values["log_format"] = values["log_format"] or ("console" if terminal else "json")
    if values["admin_only"] and values["admin_port"] is None:
        values["admin_port"] = ADMIN_ONLY_PORT
    return values
