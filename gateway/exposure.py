"""What the settings open: for each that lets more in, out or be read than need be, a sentence for the log of the start.
Pure; what is refused outright is `gateway.settings`' affair."""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from gateway.addresses import redis_hosts
from gateway.dispatch.hosts import literal_address, parse_entry
from gateway.settings import Settings

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_WIDE = {4: 8, 6: 16}  # bits of a network's prefix below which it is nearly everybody


class Exposure(NamedTuple):
    """``event`` is the log's, short and stable; ``message`` names the setting and what would close it again."""

    event: str
    message: str


def exposures(settings: Settings) -> list[Exposure]:
    """Everything these settings open."""
    return [*_listeners(settings), *_operators(settings), *_targets(settings), *_redis(settings)]


def _listeners(settings: Settings) -> Iterator[Exposure]:
    if is_local(settings.host):
        return
    if settings.tls_cert is None:
        yield Exposure(
            "listening_in_the_clear",
            f"HOST is {settings.host} and TLS_CERT is not set: keys and tasks can be read on the way; set it, let TLS "
            "end at a proxy beside the gateway, or set HOST=127.0.0.1",
        )
    if settings.role == "dispatcher" or settings.admin_only:
        return
    if not settings.require_client_key:
        yield Exposure(
            "clients_without_key",
            f"HOST is {settings.host}, REQUIRE_CLIENT_KEY off: who gets here speaks for clients without a key",
        )
    if settings.legacy_client_id is not None:
        yield Exposure(
            "requests_without_client",
            f"LEGACY_CLIENT_ID is {settings.legacy_client_id}: requests that name no client are taken from anybody who "
            "gets here; unset it once every caller names its client",
        )


def _operators(settings: Settings) -> Iterator[Exposure]:
    if settings.role != "dispatcher":
        if not settings.has_admin_keys:
            yield Exposure(
                "admin_without_key",
                "neither ADMIN_API_KEY nor ADMIN_KEYS is set: /admin is open to loopback and ADMIN_ALLOWED_IPS",
            )
        elif not (is_local(settings.host) or settings.admin_allowed_ips or settings.admin_tls_client_ca):
            yield Exposure(
                "admin_from_anywhere",
                f"HOST is {settings.host} and ADMIN_ALLOWED_IPS is not set: any address may try keys at /admin; name "
                "the operators' networks, or ask for their certificates with ADMIN_TLS_CLIENT_CA",
            )
        if wide := _wide(settings.admin_allowed_ips):
            yield Exposure("admin_from_anywhere", f"ADMIN_ALLOWED_IPS has {wide}: nearly any address may call /admin")
    if wide := _wide(settings.trusted_proxies):
        yield Exposure(
            "anybody_is_a_trusted_proxy",
            f"TRUSTED_PROXIES has {wide}: nearly anybody may claim an address by X-Forwarded-For; name the proxies",
        )


def _targets(settings: Settings) -> Iterator[Exposure]:
    for text in settings.outbound_allow:
        entry = parse_entry(text, "OUTBOUND_ALLOW")
        loops = entry.name == "localhost" or (entry.network is not None and _holds_loopback(entry.network))
        if loops and entry.port is None:
            yield Exposure(
                "loopback_is_open",
                f"OUTBOUND_ALLOW has {text} without a port: tasks may call every service of this machine; name the "
                "port too (127.0.0.1:9000)",
            )
    if settings.outbound_proxy is not None:
        yield Exposure(
            "proxy_resolves_names",
            "OUTBOUND_PROXY is set: it resolves the names in tasks' URLs, and where they lead is for it to judge",
        )


def _redis(settings: Settings) -> Iterator[Exposure]:
    if settings.embedded_redis_port is not None and settings.redis_url is None:
        yield Exposure(
            "embedded_redis_has_a_port",
            f"EMBEDDED_REDIS_PORT is {settings.embedded_redis_port}: every user of this machine can read and change "
            "what is stored; the socket in the data folder is for its owner alone",
        )
    url = settings.redis_url or ""
    away = [host for host, _ in redis_hosts(url) if not is_local(host)] if url else []
    if away and not url.startswith("rediss"):
        yield Exposure(
            "redis_in_the_clear",
            f"Redis at {away[0]} is reached without TLS: tasks and its password can be read on the way; use rediss://",
        )
    if away and "@" not in url:
        yield Exposure(
            "redis_without_password",
            f"Redis at {away[0]} is used without a password: who reaches it can read and change what is stored",
        )
    keys = settings.task_encryption_keys
    if keys and not keys[0][1]:
        yield Exposure(
            "tasks_in_the_clear", "TASK_ENCRYPTION_KEYS begins with none: tasks are stored in the clear from now on"
        )


def is_local(host: str) -> bool:
    """Whether only this machine gets there."""
    address = literal_address(host)
    return host == "localhost" if address is None else address.is_loopback


def _wide(networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> str | None:
    return next((str(each) for each in networks if each.prefixlen < _WIDE[each.version]), None)


def _holds_loopback(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return any(each.version == network.version and each.overlaps(network) for each in _LOOPBACK)
