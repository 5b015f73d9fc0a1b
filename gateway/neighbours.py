"""Where the other gateways on this Redis listen: no task may call one of them, on whichever machine it is."""

import ipaddress
from collections.abc import Iterable

import ifaddr

from gateway.dispatch.hosts import is_local, literal_address
from gateway.store.replicas import Replica


class Neighbours:
    """What is known of them by now; empty until the first `learn`."""

    def __init__(self) -> None:
        self._listeners: list[tuple[str, int]] = []

    def listeners(self) -> list[tuple[str, int]]:
        """Address and port of each, for the egress rule."""
        return self._listeners

    def learn(self, replicas: Iterable[Replica]) -> None:
        """From what each tells of itself."""
        self._listeners = sorted({listener for replica in replicas for listener in _reached(replica)})


def _reached(replica: Replica) -> Iterable[tuple[str, int]]:
    """By which addresses its listeners are reached from here."""
    addresses = [address for text in replica.addresses if (address := literal_address(text)) is not None]
    # Loopback is each machine's own. That all are here makes it this one: any may be a bridge's, which is on many.
    here = all(map(is_local, addresses))
    for host, port in replica.listeners:
        bound = literal_address(host)
        if bound is None or bound.is_unspecified:
            yield from ((str(address), port) for address in addresses)
            if here:
                yield "127.0.0.1", port
        elif here or not bound.is_loopback:
            yield str(bound), port


def machine_addresses() -> tuple[str, ...]:
    """The addresses by which others may reach this machine."""
    found = set()
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            address = ipaddress.ip_address(each.ip if isinstance(each.ip, str) else each.ip[0])
            if not address.is_loopback and not address.is_link_local:
                found.add(str(address))
    return tuple(sorted(found))
