"""Hosts and addresses read as the system's resolver reads them, and the entries of OUTBOUND_ALLOW and OUTBOUND_DENY."""

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from yarl import URL

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_NAME = 255
_DEFAULT_PORTS = {"http": 80, "https": 443}
# inet_aton's spellings: one to four decimal, octal or hexadecimal parts, the last of which fills the rest.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
# Where an IPv4 address is in a translated one, by the length of the network's own prefix (RFC 6052, 2.2).
_EMBEDDED = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
# NAT64, IPv4-compatible, and IPv4-translated (RFC 2765, 2.1).
_LAST_FOUR = tuple(ipaddress.IPv6Network(net) for net in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))
_ISATAP = frozenset({b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"})  # before the last four (RFC 5214, 6.1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of OUTBOUND_ALLOW, OUTBOUND_DENY or a client's `allowed_hosts`: a network or a name (`*.` before it:
    all names below it, not itself), with a port or (None) any."""

    network: IPNetwork | None
    name: str | None
    port: int | None

    def names(self, host: str, port: int) -> bool:
        """Whether it is this name, or one that the wildcard stands for."""
        if self.name is None or self.port not in {None, port}:
            return False
        return self.name == host or (self.name.startswith("*.") and host.endswith(self.name[1:]))

    def covers(self, address: IPAddress, port: int, host: str) -> bool:
        if self.network is None or self.port not in {None, port}:
            return self.names(host, port)
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
    packed = address.packed
    if address in _LOCAL_NAT64:
        # Which of the prefixes below it the network uses is not known here. At a wrong length it reads as 0.x.y.z.
        found = (bytes(packed[place] for place in places) for places in _EMBEDDED)
        yield from (ipaddress.IPv4Address(each) for each in found if each[0])
    elif packed[8:12] in _ISATAP or (int(address) > 1 and any(address in net for net in _LAST_FOUR)):
        yield ipaddress.IPv4Address(packed[12:])


def site_local(address: IPAddress) -> bool:
    """Whether it is of fec0::/10, private networks before fc00::/7 was."""
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
    """The one spelling of a host by which it is compared, looked up and judged."""
    # What is longer is no name, and would fill the memory.
    return _normal_host(host) if len(host) <= LONGEST_NAME else _normal_host.__wrapped__(host)


@lru_cache(maxsize=4096)
def _normal_host(host: str) -> str:
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
    if not host.isascii():  # as it is dialled
        host = URL.build(scheme="http", host=host).raw_host or host
    address = literal_address(host)
    return (host if address is None else str(address)), port


def shown(address: IPAddress, port: int) -> str:
    """As a URL writes it."""
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
