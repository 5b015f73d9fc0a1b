"""Which addresses a task's call may reach. Asked twice: at enqueue for literal addresses, and at every dial
for the address really dialled, since a name may resolve to anything at any moment. Nothing here opens a
connection.
"""

import enum
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from gateway.dispatch.allowed import AllowedHosts, allowed_hosts, decided
from gateway.dispatch.hosts import (
    IPAddress,
    IPNetwork,
    is_local,
    literal_address,
    normal_host,
    origin_of,
    parse_entry,
    readings,
    shown,
    site_local,
)

_ORIGIN = re.compile(r"[^/?#]*//[^/?#]{1,255}")  # all of a URL that says where it leads
_REMEMBERED = 4096  # origins judged


class Kind(enum.StrEnum):
    """Why a target is refused: the value in words, for people, the name in metrics."""

    METADATA = "cloud metadata address"
    LINK_LOCAL = "link-local address"
    MULTICAST = "multicast address"
    UNSPECIFIED = "unspecified address"
    BROADCAST = "broadcast address"
    LOOPBACK = "loopback address"
    PRIVATE = "private address"
    DENIED = "denied address"
    OWN = "listener of the gateway itself or its Redis"
    CLIENT = "host that the client's allowed_hosts do not name"
    MALFORMED = "not an IP address"

    @property
    def label(self) -> str:
        """As metrics have it."""
        return self.name.lower()


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NEVER: tuple[tuple[Kind, tuple[IPNetwork, ...]], ...] = (
    (
        Kind.METADATA,
        _networks(
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::23",
            "fd00:ec2::254",
            "fd20:ce::254",
        ),
    ),
    (Kind.LINK_LOCAL, _networks("169.254.0.0/16", "fe80::/10")),
    (Kind.MULTICAST, _networks("224.0.0.0/4", "ff00::/8")),
    # All of 0/8 means "this host" on one system or another.
    (Kind.UNSPECIFIED, _networks("0.0.0.0/8", "::/128")),
    (Kind.BROADCAST, _networks("255.255.255.255")),
)
# Behind a proxy a name is all there is to judge by.
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_WILDCARDS = (str(ipaddress.IPv4Address(0)), str(ipaddress.IPv6Address(0)))


_remembered_origin = lru_cache(maxsize=_REMEMBERED)(origin_of)


class Refusal(NamedTuple):
    """Why a URL is refused, and that in words, with the setting that decides it."""

    kind: Kind
    message: str


class TargetRefused(Exception):
    """The address may not be dialled. ``reason`` is short and stable, for the dead letter."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.reason = f"target not allowed: {kind.value}"
        super().__init__(self.reason)


class EgressGuard:
    """Decides about targets; holds no state but the operator's settings and the gateway's own addresses.

    ``allow``: entries of OUTBOUND_ALLOW, each an address, a network or a name, with a port or without (an
    IPv6 one in brackets then: ``[::1]:9000``). A name's entry holds for URLs that carry that very name.
    ``deny``: the same of OUTBOUND_DENY, which wins over ``allow``.
    ``upstream``: UPSTREAM_URL, whose origin is always allowed. ``own``: (host, port) of the gateway's Redis, refused
    always, by UPSTREAM_URL too; where it is this machine, on each of its addresses. Listeners are added with `add_own`
    once they are bound. ``nodes`` tells what comes and goes: a Cluster's nodes, listeners of other processes. A
    malformed entry raises ValueError naming the setting.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        allow_private: bool = True,
        upstream: str | None = None,
        own: Collection[tuple[str, int]] = (),
        nodes: Callable[[], Iterable[tuple[str, int]]] = tuple,
        *,
        deny: Iterable[str] = (),
    ) -> None:
        self._allow = tuple(parse_entry(entry, "OUTBOUND_ALLOW") for entry in allow)
        self._deny = tuple(parse_entry(entry, "OUTBOUND_DENY") for entry in deny)
        self._allow_private = allow_private
        self._upstream = origin_of(upstream) if upstream else None
        self._nodes = nodes
        self._own: set[tuple[str, int]] = set()
        self._judged: dict[str, Refusal | None] = {}
        for host, port in own:
            address = literal_address(host)
            self.add_own("::" if address is not None and is_local(address) else host, port)

    def add_own(self, host: str, port: int) -> None:
        """Never dial this either. A wildcard host (``0.0.0.0``, ``::``) stands for every address of this
        machine, a name for URLs that carry it (and ``localhost`` for both loopback addresses): what it resolves
        to is asked at the dial, see `own_hosts`."""
        if not host:
            host = "::"
        address = literal_address(host)
        self._own.add((normal_host(host) if address is None else str(address), port))
        if normal_host(host) == "localhost":
            self._own |= {("127.0.0.1", port), ("::1", port)}
        self._judged.clear()

    def check_literal(self, url: str) -> Refusal | None:
        """Why a URL whose host is a literal address is refused, with the setting that decides it; None where
        it is fine.

        Every notation the system's resolver takes counts as the address it dials: ``http://2130706433/``,
        ``http://0x7f.1/``. A name is fine here: it is judged by what it resolves to, at the dial.
        """
        found = _ORIGIN.match(url)
        origin = found[0] if found else url
        # Remembered, since tasks go to few origins and judging one costs as much as storing a task; an answer that
        # grew old, by a new address of this machine, is corrected at the dial.
        if origin not in self._judged:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[origin] = self._judge(origin)
        return self._judged[origin]

    def _judge(self, url: str) -> Refusal | None:
        try:
            host, port = origin_of(url)
        except ValueError:
            return Refusal(Kind.MALFORMED, "is not a URL with a host and a port from 1 to 65535")
        address = literal_address(host)
        if address is None:
            told = f"{host} is denied: OUTBOUND_DENY names it"
            return Refusal(Kind.DENIED, told) if self._denies_name(host, port) else None
        refused = self._refuse(address, port, host)
        if refused is None:
            return None
        kind, advice = refused
        return Refusal(kind, f"{address} is a {kind.value}: {advice}")

    def check_allowed(self, url: str, allowed: tuple[str, ...]) -> Refusal | None:
        """Why a URL is refused by the ``allowed_hosts`` of its client; None where they name it, and where its name may
        turn out to have an address that they name: that is judged at the dial."""
        found = _ORIGIN.match(url)
        try:
            host, port = _remembered_origin(found[0] if found else url)
        except ValueError:
            return None  # `check_literal` says what is wrong with it
        if (host, port) == self._upstream or decided(allowed, host, port) is not False:
            return None
        return Refusal(Kind.CLIENT, f"{host}:{port} is none of the hosts that the client may call")

    def narrowed(self, host: str, port: int, allowed: tuple[str, ...]) -> AllowedHosts | None:
        """The rule that the address which this name turns out to have must pass, None where the ``allowed_hosts``
        name the host itself. Raises `TargetRefused` where they allow no address of it."""
        host = normal_host(host)
        if (host, port) == self._upstream:
            return None
        may = decided(allowed, host, port)
        if may is False:
            raise TargetRefused(Kind.CLIENT)
        return None if may else allowed_hosts(allowed)

    def check_dial(self, address: str, port: int, host: str | None = None, own: Collection[str] = ()) -> None:
        """Raise `TargetRefused` unless this very address may be dialled; ``host`` is the URL's host, ``own`` what the
        `own_hosts` of this port resolve to."""
        parsed = literal_address(address)
        if parsed is None:
            raise TargetRefused(Kind.MALFORMED)
        if own and self._is_one_of(parsed, own):
            raise TargetRefused(Kind.OWN)
        refused = self._refuse(parsed, port, normal_host(host or address))
        if refused is not None:
            raise TargetRefused(refused[0])

    def check_proxied(self, host: str, port: int) -> None:
        """The same where a proxy will dial: an address is judged as ever, of a name only that it is neither the
        gateway's own nor cloud metadata's, since what it resolves to is the proxy's affair."""
        own = self.own_hosts(port)
        if literal_address(host) is not None:
            self.check_dial(host, port, own=[each for each in own if literal_address(each) is not None])
        elif normal_host(host) in own:
            raise TargetRefused(Kind.OWN)
        elif normal_host(host) in _METADATA_NAMES:
            raise TargetRefused(Kind.METADATA)
        elif self._denies_name(normal_host(host), port):
            raise TargetRefused(Kind.DENIED)

    def own_hosts(self, port: int) -> list[str]:
        """What is the gateway's own on this port and may have other addresses by now: names, and a Cluster's nodes.
        What they resolve to is for `check_dial`."""
        names = [host for host, own_port in self._own if own_port == port and literal_address(host) is None]
        return names + [normal_host(host) for host, node_port in self._nodes() if node_port == port]

    def is_local(self, host: str, port: int) -> bool:
        """Whether the target is UPSTREAM_URL or on loopback by its text: never called through a proxy."""
        host = normal_host(host)
        address = literal_address(host)
        if address is not None:
            host = str(address)
        named = host in _LOOPBACK_NAMES or host.endswith(".localhost")
        return (host, port) == self._upstream or named or (address is not None and address.is_loopback)

    @staticmethod
    def _is_one_of(address: IPAddress, own: Collection[str]) -> bool:
        """Whether it is one of these, or like one of these on this machine: a server is likely to answer on each of
        its machine's addresses."""
        views = set(readings(address))
        parsed = {literal_address(each) for each in own}
        here = any(each is not None and is_local(each) for each in parsed)
        return not parsed.isdisjoint(views) or (here and any(map(is_local, views)))

    def _refuse(self, address: IPAddress, port: int, host: str) -> tuple[Kind, str] | None:
        """(what it is, which setting decides) where it is refused."""
        views = tuple(readings(address))
        if any(self._is_own(view, port, host) for view in views):
            return Kind.OWN, "OUTBOUND_ALLOW can't open it"
        if self._upstream is not None and self._upstream in {(host, port), (str(views[0]), port)}:
            return None
        for view in views:
            refused = self._refuse_view(view, port, host)
            if refused is not None:
                return refused
        return None

    def _denies_name(self, host: str, port: int) -> bool:
        return (host, port) != self._upstream and any(entry.names(host, port) for entry in self._deny)

    def _refuse_view(self, address: IPAddress, port: int, host: str) -> tuple[Kind, str] | None:
        if any(entry.covers(address, port, host) for entry in self._deny):
            return Kind.DENIED, "OUTBOUND_DENY names it"
        for kind, networks in _NEVER:
            if any(address.version == net.version and address in net for net in networks):
                return kind, "OUTBOUND_ALLOW can't open it"
        if any(entry.covers(address, port, host) for entry in self._allow):
            return None
        if address.is_loopback:
            return Kind.LOOPBACK, f"name it in OUTBOUND_ALLOW ({shown(address, port)}) to allow it"
        if not self._allow_private and (not address.is_global or site_local(address)):
            return (
                Kind.PRIVATE,
                "OUTBOUND_ALLOW_PRIVATE=false closes private networks; name it in OUTBOUND_ALLOW to allow it",
            )
        return None

    def _is_own(self, address: IPAddress, port: int, host: str) -> bool:
        if (str(address), port) in self._own or (host, port) in self._own:
            return True
        # A wildcard listener answers on every local address; asked only where the port is the listener's.
        return not self._own.isdisjoint({(wild, port) for wild in _WILDCARDS}) and is_local(address)
