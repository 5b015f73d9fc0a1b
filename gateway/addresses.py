"""The settings that are addresses, networks and URLs: text to value. Like in `gateway.parsing`, every parser
raises `ValueError` saying what is allowed; a URL's password is never repeated."""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from gateway.parsing import entries
from gateway.redaction import mask

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE)
# Options of redis-py that a URL may carry; others would only fail once the first connection is made.
_REDIS_OPTIONS = ("db", "username", "password", "client_name", "protocol")


def host(text: str) -> str:
    """An address (IPv6 with or without brackets) or a name to listen on."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not _is_address(bare) and not _is_name(bare):
        raise ValueError("an address or a host name (127.0.0.1, ::1, 0.0.0.0, localhost)")
    return bare


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, IPv4 and IPv6, comma separated."""
    return tuple(_network(entry) for entry in entries(text))


def outbound(text: str) -> tuple[str, ...]:
    """Addresses, networks and names, each with a port or without (`127.0.0.1:9000,[::1]:9000,localhost`)."""
    return tuple(_outbound_entry(entry) for entry in entries(text))


def upstream(text: str) -> str:
    """An absolute http(s) URL: an origin and perhaps a base path; its trailing slash is dropped."""
    allowed = "an absolute http:// or https:// URL without user, query and fragment (http://127.0.0.1:9000)"
    url = _split(text, allowed)
    known = url.scheme in {"http", "https"} and url.hostname and (_is_address(url.hostname) or _is_name(url.hostname))
    if not known or "@" in url.netloc or set(text) & set("?#\\") or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError(allowed)
    return text.rstrip("/")


def proxy(text: str) -> str:
    """`http://[user:password@]host[:port]`; the connection to the proxy itself is not encrypted."""
    allowed = "http://[user:password@]host:port, special characters of a password percent-encoded"
    url = _split(text, allowed)
    known = url.hostname and (_is_address(url.hostname) or _is_name(url.hostname))
    plain = re.fullmatch(r"[\x21-\x7e]+", text) and not set(text) & set("?#\\")
    if url.scheme != "http" or not known or url.path not in {"", "/"} or not plain:
        raise ValueError(allowed)
    return text


class SentinelParts(NamedTuple):
    """What a `redis+sentinel://` URL says: who is asked for which service, and how its server is reached then (a URL
    whose host is to be replaced by the answer)."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    server_url: str


def sentinel_parts(text: str) -> SentinelParts:
    """`redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]`, or `rediss+sentinel://` for TLS.

    >>> sentinel_parts("redis+sentinel://:pw@a,b:5000/main/2")
    SentinelParts(sentinels=(('a', 26379), ('b', 5000)), service='main', server_url='redis://:pw@replaced/2')
    """
    allowed = (
        "redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/db], or rediss+sentinel://… (TLS); "
        "special characters of a password percent-encoded"
    )
    match = re.fullmatch(
        r"(rediss?)\+sentinel://(?:([^@/?#]*)@)?([^@/?#]+)/([A-Za-z0-9._-]+)(/[0-9]{1,5})?(\?.*)?", text
    )
    if match is None:
        raise ValueError(allowed)
    scheme, login, hosts, service, db, query = match.groups()
    sentinels = []
    for entry in hosts.split(","):
        name, port = _with_port(entry)
        if not (_is_address(name) or _is_name(name)) or (port is None and re.search(r"[^:]:[0-9]+$", entry)):
            raise ValueError(allowed)
        sentinels.append((name, port or 26379))
    server_url = f"{scheme}://{login + '@' if login else ''}replaced{db or ''}{query or ''}"
    return SentinelParts(tuple(sentinels), service, redis_url(server_url))


def redis_hosts(url: str) -> list[tuple[str, int]]:
    """Host and port of what a Redis URL names, which no task may call; a Unix socket can't be called."""
    if "+sentinel:" in url:
        return list(sentinel_parts(url).sentinels)
    parts = urlsplit(url)
    return [(parts.hostname, parts.port or 6379)] if parts.hostname and parts.scheme != "unix" else []


def redis_url(text: str) -> str:
    """`redis://`, `rediss://` (TLS) or `unix://`, as redis-py reads them; or Sentinels, see `sentinel_parts`."""
    if "+sentinel:" in text.partition("/")[0]:
        sentinel_parts(text)
        return text
    allowed = (
        "redis://[user:password@]host[:port][/db], rediss://… (TLS), unix:///path/to/socket or "
        "redis+sentinel://host[:port],…/service[/db]; "
        "special characters of a password percent-encoded"
    )
    url = _split(text, allowed)
    if url.fragment or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError(allowed)
    if url.scheme == "unix":
        well_formed = len(url.path) > 1
    elif url.scheme in {"redis", "rediss"}:
        well_formed = bool(url.hostname) and bool(re.fullmatch(r"(/[0-9]{0,5})?", url.path))
    else:
        well_formed = False
    if not well_formed:
        raise ValueError(allowed)
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        tls = url.scheme == "rediss" and name.startswith("ssl_")
        if not (tls or name in _REDIS_OPTIONS) or (name in {"db", "protocol"} and not value.isdecimal()):
            options = ", ".join(_REDIS_OPTIONS)
            msg = f"{allowed}; options after '?' are {options} and, with rediss://, ssl_…"
            raise ValueError(msg)
    return text


def redis_addr(text: str) -> str:
    """`host:port`."""
    name, port = _with_port(text)
    if port is None or not (_is_address(name) or _is_name(name)):
        raise ValueError("host:port, such as localhost:6379 or [::1]:6379")
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    # A name whose last label is a number is a mistyped address: 10.0.0.256, 127.0.0.
    return bool(_HOST_NAME.fullmatch(text)) and not text.rstrip(".").rpartition(".")[2].isdigit()


def _network(entry: str) -> Network:
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        allowed = "addresses and networks, comma separated (127.0.0.1,10.0.0.0/8,fd00::/8)"
        msg = f"{allowed}; {mask(entry)!r} is neither"
        raise ValueError(msg) from None
    msg = f"networks without host bits; for {entry!r} write {wider} or {entry.partition('/')[0]}"
    raise ValueError(msg) from None


def _with_port(text: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, `v6`, `[v6]` and `[v6]:port`."""
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", text)
    plain = re.fullmatch(r"([^:\[\]]+):([0-9]{1,5})", text)
    match = bracketed or plain
    if match is None:
        return text, None
    port = int(match[2]) if match[2] is not None else None
    return match[1], port if port is None or 1 <= port <= 65535 else None


def _outbound_entry(entry: str) -> str:
    name, port = _with_port(entry)
    try:
        shown = str(_network(name)) if "/" in name else name.lower()
        known = "/" in name or _is_address(name) or _is_name(name)
    except ValueError:
        known = False
    if not known or (port is None and re.search(r"[^:]:[0-9]+$", entry) and entry.count(":") == 1):
        allowed = "addresses, networks or names, each with :port or without (127.0.0.1:9000,[::1]:9000,localhost)"
        msg = f"{allowed}; {mask(entry)!r} is none of them"
        raise ValueError(msg)
    if port is None:
        return shown
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"


def _split(text: str, allowed: str) -> SplitResult:
    try:
        url = urlsplit(text)
        _ = url.port, url.hostname  # both are worked out, and checked, on access
    except ValueError:
        raise ValueError(allowed) from None
    if url.port == 0:
        raise ValueError(allowed)
    return url
