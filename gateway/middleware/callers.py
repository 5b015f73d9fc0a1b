"""Where a request comes from: whose address that is behind proxies, and which addresses are one caller."""

import ipaddress
from collections.abc import Sequence

from aiohttp import hdrs, web

from gateway.addresses import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str | None) -> Address | None:
    """An address, an IPv4 one inside IPv6 undone; None where there is none (a Unix socket) or it is malformed."""
    try:
        address = ipaddress.ip_address((text or "").strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in network for network in networks)


def caller_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The address a request comes from: the peer's, or, where the peer is a trusted proxy, the right-most of
    `X-Forwarded-For` that is not one itself. Anything further left is the caller's own claim.

    >>> trusted = [ipaddress.ip_network("10.0.0.0/8")]
    >>> str(caller_address("10.0.0.1", ["1.1.1.1, 2.2.2.2", "10.0.0.2"], trusted))
    '2.2.2.2'
    """
    address = parse_address(peer)
    hops = [hop for line in forwarded for hop in line.split(",")]
    while address is not None and hops and within(address, trusted):
        address = parse_address(hops.pop())
    return address


def address_of(request: web.Request, trusted: Sequence[Network]) -> Address | None:
    """The same of a request; None where the peer has no address (a Unix socket), or a proxy tells of none."""
    return caller_address(request.remote, request.headers.getall(hdrs.X_FORWARDED_FOR, []), trusted)


def place_of(address: str) -> str:
    """What is counted as one caller: an IPv4 address, the /64 of an IPv6 one, or the text where it is neither.

    >>> place_of("2001:db8::7"), place_of("::ffff:10.0.0.1"), place_of("10.0.0.1")
    ('2001:db8::/64', '10.0.0.1', '10.0.0.1')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
