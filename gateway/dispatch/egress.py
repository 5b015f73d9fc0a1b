"""Which addresses a task's call may reach. Asked twice: at enqueue for literal addresses, and at every dial
for the address really dialled, since a name may resolve to anything at any moment. Nothing here opens a
connection.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable

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

_NEVER: tuple[tuple[str, tuple[IPNetwork, ...]], ...] = (
    (
        "cloud metadata address",
        tuple(
            ipaddress.ip_network(net)
            for net in (
                "169.254.169.254",
                "100.100.100.200",
                "168.63.129.16",
                "fd00:ec2::254",
                "fd20:ce::254",
            )
        ),
    ),
    ("link-local address", (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))),
    ("multicast address", (ipaddress.ip_network("224.0.0.0/4"), ipaddress.ip_network("ff00::/8"))),
    # All of 0/8 means "this host" on one system or another.
    ("unspecified address", (ipaddress.ip_network("0.0.0.0/8"), ipaddress.ip_network("::/128"))),
    ("broadcast address", (ipaddress.ip_network("255.255.255.255"),)),
)
_WILDCARDS = (str(ipaddress.IPv4Address(0)), str(ipaddress.IPv6Address(0)))
_DENIED = "denied address"
_OWN = "listener of the gateway itself or its Redis"


class TargetRefused(Exception):
    """The address may not be dialled. ``reason`` is short and stable, for the dead letter."""

    def __init__(self, what: str) -> None:
        self.reason = f"target not allowed: {what}"
        super().__init__(self.reason)


class EgressGuard:
    """Decides about targets; holds no state but the operator's settings and the gateway's own addresses.

    ``allow``: entries of OUTBOUND_ALLOW, each an address, a network or a name, with a port or without (an
    IPv6 one in brackets then: ``[::1]:9000``). A name's entry holds for URLs that carry that very name.
    ``deny``: the same of OUTBOUND_DENY, which wins over ``allow``.
    ``upstream``: UPSTREAM_URL, whose origin is always allowed. ``own``: (host, port) of every listener of
    the gateway and of its Redis, refused always, by UPSTREAM_URL too; add what is only known later with
    `add_own`. ``nodes`` tells the same of a Cluster's nodes, which come and go. A malformed entry raises ValueError
    naming the setting.
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
        self._judged: dict[str, str | None] = {}
        for host, port in own:
            self.add_own(host, port)

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

    def check_literal(self, url: str) -> str | None:
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

    def _judge(self, url: str) -> str | None:
        try:
            host, port = origin_of(url)
        except ValueError:
            return "is not a URL with a host and a port from 1 to 65535"
        address = literal_address(host)
        if address is None:
            return f"{host} is denied: OUTBOUND_DENY names it" if self._denies_name(host, port) else None
        refused = self._refuse(address, port, host)
        if refused is None:
            return None
        kind, advice = refused
        return f"{address} is a {kind}: {advice}"

    def check_dial(self, address: str, port: int, host: str | None = None, own: Collection[str] = ()) -> None:
        """Raise `TargetRefused` unless this very address may be dialled; ``host`` is the URL's host, ``own`` what the
        `own_hosts` of this port resolve to."""
        parsed = literal_address(address)
        if parsed is None:
            raise TargetRefused("not an IP address")
        if own and not {literal_address(each) for each in own}.isdisjoint(readings(parsed)):
            raise TargetRefused(_OWN)
        refused = self._refuse(parsed, port, normal_host(host or address))
        if refused is not None:
            raise TargetRefused(refused[0])

    def check_proxied(self, host: str, port: int) -> None:
        """The same where a proxy will dial: an address is judged as ever, of a name only that it is not the gateway's
        own, since what it resolves to is the proxy's affair."""
        own = self.own_hosts(port)
        if literal_address(host) is not None:
            self.check_dial(host, port, own=[each for each in own if literal_address(each) is not None])
        elif normal_host(host) in own:
            raise TargetRefused(_OWN)
        elif self._denies_name(normal_host(host), port):
            raise TargetRefused(_DENIED)

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
        return (host, port) == self._upstream or host == "localhost" or (address is not None and address.is_loopback)

    def _refuse(self, address: IPAddress, port: int, host: str) -> tuple[str, str] | None:
        """(what it is, which setting decides) where it is refused."""
        views = tuple(readings(address))
        if any(self._is_own(view, port, host) for view in views):
            return _OWN, "OUTBOUND_ALLOW can't open it"
        if self._upstream is not None and self._upstream in {(host, port), (str(views[0]), port)}:
            return None
        for view in views:
            refused = self._refuse_view(view, port, host)
            if refused is not None:
                return refused
        return None

    def _denies_name(self, host: str, port: int) -> bool:
        return (host, port) != self._upstream and any(entry.names(host, port) for entry in self._deny)

    def _refuse_view(self, address: IPAddress, port: int, host: str) -> tuple[str, str] | None:
        if any(entry.covers(address, port, host) for entry in self._deny):
            return _DENIED, "OUTBOUND_DENY names it"
        for kind, networks in _NEVER:
            if any(address.version == net.version and address in net for net in networks):
                return kind, "OUTBOUND_ALLOW can't open it"
        if any(entry.covers(address, port, host) for entry in self._allow):
            return None
        if address.is_loopback:
            return "loopback address", f"name it in OUTBOUND_ALLOW ({shown(address, port)}) to allow it"
        if not self._allow_private and (not address.is_global or site_local(address)):
            return (
                "private address",
                "OUTBOUND_ALLOW_PRIVATE=false closes private networks; name it in OUTBOUND_ALLOW to allow it",
            )
        return None

    def _is_own(self, address: IPAddress, port: int, host: str) -> bool:
        if (str(address), port) in self._own or (host, port) in self._own:
            return True
        # A wildcard listener answers on every local address; asked only where the port is the listener's.
        return not self._own.isdisjoint({(wild, port) for wild in _WILDCARDS}) and is_local(address)
