"""What settings say about one another: those that are right by themselves and not together, and warnings."""

import difflib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.admin_keys import ADMIN_API_KEY, AdminKey, Role, clash, digest_of
from gateway.certificates import problem_of
from gateway.redaction import mask
from gateway.settings.table import SETTINGS
from gateway.tracing.environment import exporting

# What the commands that talk to a gateway read, and the gateway does not.
_OF_THE_COMMANDS = {"GATEWAY_URL", "GATEWAY_TLS_CA", "GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY"}


def conflicts(values: Mapping[str, Any]) -> list[str]:
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
    mistakes += _admin_conflicts(values)
    mistakes += _tls_conflicts(values)
    port = values["port"]
    if port and port == values["admin_port"] and not values["admin_only"]:
        mistakes.append(f"ADMIN_PORT: '{port}' is PORT too; allowed: another port")
    if values["admin_only"] and values["role"] not in {"all", None}:
        mistakes.append(f"ROLE (--role): {values['role']!r} with --admin-only; allowed: one of the two flags")
    return mistakes


def _admin_conflicts(values: Mapping[str, Any]) -> list[str]:
    key, file = values["admin_api_key"], values["admin_keys_file"]
    keys = [] if key is None else [AdminKey(ADMIN_API_KEY, Role.ADMIN, digest_of(key.encode()))]
    problem = clash([*keys, *(values["admin_keys"] or ()), *(file.keys if file else ())])
    told = "ADMIN_KEYS, ADMIN_KEYS_FILE and ADMIN_API_KEY"
    return [] if problem is None else [f"{told}: {problem}; allowed: each name and each key once"]


def _tls_conflicts(values: Mapping[str, Any]) -> list[str]:
    cert, key, client_ca = values["tls_cert"], values["tls_key"], values["admin_tls_client_ca"]
    if cert is None and key is None:
        told = "ADMIN_TLS_CLIENT_CA: has no use without TLS; allowed: together with TLS_CERT and TLS_KEY"
        return [] if client_ca is None else [told]
    if cert is None or key is None:
        alone, other = ("TLS_KEY", "TLS_CERT") if cert is None else ("TLS_CERT", "TLS_KEY")
        return [f"{alone}: is of no use alone; allowed: together with {other}"]
    problem = problem_of(cert, key, client_ca)
    files = "TLS_CERT, TLS_KEY" + (" and ADMIN_TLS_CLIENT_CA" if client_ca else "")
    return [] if problem is None else [f"{files}: {problem}; allowed: PEM files, the key that of the certificate"]


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


def warnings(values: Mapping[str, Any], env: Mapping[str, str]) -> tuple[str, ...]:
    """Sentences for the log of the start about settings that can't be meant as they are written."""
    return (*_misspelt(env), *_pathless(values["upstream_url"]), *exporting(env).warnings)


def _pathless(upstream: str | None) -> tuple[str, ...]:
    """A warning where UPSTREAM_URL has a path: a task's path is joined to its origin alone."""
    path = urlsplit(upstream or "").path
    return (f"UPSTREAM_URL: its path {path!r} is not used; give it in each task's url",) if path else ()


def _misspelt(env: Mapping[str, str]) -> tuple[str, ...]:
    """A warning for each variable that is nearly a setting: whoever set it believes that it is one."""
    names = [setting.name for setting in SETTINGS if not setting.flag_only]
    warnings = []
    for name in sorted(set(env) - set(names) - _OF_THE_COMMANDS):
        close = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.8)
        if close and re.fullmatch(r"[A-Za-z0-9_]+", name):
            warnings.append(f"{name} is not a setting and was not read; did you mean {close[0]}?")
    return tuple(warnings)
