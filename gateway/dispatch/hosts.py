"""Hosts and addresses read as the system's resolver reads them, and the entries of OUTBOUND_ALLOW and OUTBOUND_DENY."""

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_DEFAULT_PORTS = {"http": 80, "https": 443}
# inet_aton's spellings: one to four decimal, octal or hexadecimal parts, the last of which fills the rest.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_NAT64 = tuple(ipaddress.IPv6Network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48"))
_COMPATIBLE = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of OUTBOUND_ALLOW or OUTBOUND_DENY: a network or a name, with a port or (None) any."""

    network: IPNetwork | None
    name: str | None
    port: int | None

    def names(self, host: str, port: int) -> bool:
        """Whether it is this very name."""
        return self.name == host and self.port in {None, port}

    def covers(self, address: IPAddress, port: int, host: str) -> bool:
        if self.port not in {None, port}:
            return False
        if self.network is None:
            return self.name == host
        return address.version == self.network.version and address in self.network


def literal_address(host: str) -> IPAddress | None:
    """The address a URL's host dials without asking a name server, or None where it is a name.

    Reads what inet_aton(3) reads, brackets, a zone, a trailing dot, full-width digits; an IPv4-mapped IPv6
    address is answered as the IPv4 address it is.

    >>> literal_address("2130706433"), literal_address("0x7f.1"), literal_address("::ffff:10.0.0.1")
    (IPv4Address('127.0.0.1'), IPv4Address('127.0.0.1'), IPv4Address('10.0.0.1'))
    >>> literal_address("example.com") is None
    True
    """
    host = normal_host(host).partition("%")[0]
    try:
        address: IPAddress = ipaddress.ip_address(host)
    except ValueError:
        if not _NUMERIC.fullmatch(host):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or (ipaddress.ip_address(int(address)) if address.version == 4 else _unscoped(address))


def _unscoped(address: IPAddress) -> IPAddress:
    return ipaddress.IPv6Address(int(address))


def readings(address: IPAddress) -> Iterator[IPAddress]:
    """The address, and the IPv4 addresses a transition mechanism would deliver it to: each must be
    allowed."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    low = int(address) & 0xFFFFFFFF
    if any(address in net for net in _NAT64) or (address in _COMPATIBLE and low > 1):
        yield ipaddress.IPv4Address(low)


def site_local(address: IPAddress) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local


def is_local(address: IPAddress) -> bool:
    """Whether the address is one of this machine's: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def normal_host(host: str) -> str:
    # IDNA lets full-width digits and the ideographic full stop stand for ASCII ones, so they must be read
    # alike here.
    host = unicodedata.normalize("NFKC", unquote(host)).replace("。", ".").lower()
    return host.removeprefix("[").removesuffix("]").rstrip(".")


def origin_of(url: str) -> tuple[str, int]:
    """(normal host, port) of an absolute URL; ValueError where there is none."""
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme.lower())
    if not parts.hostname or not port:
        raise ValueError("no host or port")
    host = normal_host(parts.hostname)
    address = literal_address(host)
    return (host if address is None else str(address)), port


def shown(address: IPAddress, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def parse_entry(entry: str, setting: str) -> Entry:
    """An entry of the setting; raises ValueError that names it where it is malformed."""
    text = entry.strip()
    whole = _network(text)
    if whole is not None:
        return Entry(whole, None, None)
    host, colon, port_text = text.rpartition(":")
    if not colon:
        host, port = text, None
    elif port_text.isascii() and port_text.isdigit() and 1 <= int(port_text[:6]) <= 65535:
        port = int(port_text)
    else:
        raise _bad_entry(entry, setting)
    bare = host.removeprefix("[").removesuffix("]")
    network = _network(bare)
    if network is not None:
        return Entry(network, None, port)
    if not _NAME.fullmatch(host) or _NUMERIC.fullmatch(host):
        raise _bad_entry(entry, setting)
    return Entry(None, normal_host(host), port)


def _bad_entry(entry: str, setting: str) -> ValueError:
    return ValueError(
        f"{setting}: {entry!r} is none of an address, a network or a name, each with a port or without"
        " (127.0.0.1:9000, 10.1.0.0/16, [::1]:9000, localhost:9000)"
    )


def _network(text: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None
