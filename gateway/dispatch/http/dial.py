"""Opens connections: name, egress rule, happy eyeballs (RFC 8305), proxy, TLS."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence

from aiohappyeyeballs import start_connection

from gateway.dispatch.egress import EgressGuard, Kind, TargetRefused
from gateway.dispatch.hosts import literal_address
from gateway.dispatch.http.connection import Connection
from gateway.dispatch.http.errors import CallFailed, InvalidRequest
from gateway.dispatch.http.message import Origin
from gateway.dispatch.http.proxy import Proxy
from gateway.dispatch.http.resolver import AddrInfo, Resolver

# RFC 8305, 5: how long an address is given before the next is tried beside it.
_NEXT_ADDRESS_SECONDS = 0.25
_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "host unreachable",
    errno.ETIMEDOUT: "connect timeout",
}


class Dialer:
    """Every address is judged right before it is dialled: what a name resolved to before may have changed since."""

    def __init__(self, guard: EgressGuard, resolver: Resolver, tls: ssl.SSLContext, proxy: Proxy | None) -> None:
        self._guard = guard
        self._resolver = resolver
        self._tls = tls
        self._proxy = proxy

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy, but for loopback and UPSTREAM_URL: on the proxy's machine those are something else."""
        if self._proxy is None or self._guard.is_local(origin.host, origin.port):
            return None
        return self._proxy

    async def dial(
        self, origin: Origin, proxy: Proxy | None, make: Callable[[socket.socket], Connection]
    ) -> Connection:
        """An open connection. Raises `TargetRefused`, `InvalidRequest` and `CallFailed`."""
        try:
            sock = await self._connect(origin, proxy)
            if proxy is not None and origin.tls:
                await self._tunnel(sock, origin, proxy)
            return await self._protect(sock, origin, make)
        except ssl.SSLError as problem:
            raise CallFailed("tls error") from problem
        except OSError as problem:
            raise CallFailed(_REASONS.get(problem.errno or 0, "connection failed")) from problem

    async def _connect(self, origin: Origin, proxy: Proxy | None) -> socket.socket:
        if proxy is not None:
            if origin.rule is not None:  # which address the proxy will find is not known here
                raise TargetRefused(Kind.CLIENT)
            self._guard.check_proxied(origin.host, origin.port)
            return await _race(await self._addresses(proxy.host, proxy.port))
        addresses = await self._addresses(origin.host, origin.port)
        own = [address for host in self._guard.own_hosts(origin.port) for address in await self._own(host, origin.port)]
        return await _race(self._allowed(addresses, origin, own))

    async def _addresses(self, host: str, port: int) -> list[AddrInfo]:
        address = literal_address(host)
        if address is None:
            return await self._resolver.lookup(host, port)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port))]

    async def _own(self, host: str, port: int) -> list[str]:
        """Redis, given by a name, must be refused under its addresses too, whatever they are by now."""
        try:
            return [str(address[0]) for *_, address in await self._addresses(host, port)]
        except (CallFailed, InvalidRequest):
            return []

    def _allowed(self, addresses: Sequence[AddrInfo], origin: Origin, own: Sequence[str]) -> list[AddrInfo]:
        """Refused only if no address of the name is allowed: `localhost` may be ::1 (not allowed) and 127.0.0.1
        (allowed, but down just now), and that is worth another attempt."""
        allowed = []
        refused: TargetRefused | None = None
        for info in addresses:
            try:
                address = str(info[4][0])
                self._guard.check_dial(address, origin.port, origin.host, own)
                if origin.rule is not None and not origin.rule.decides(address, origin.port):
                    raise TargetRefused(Kind.CLIENT)
                allowed.append(info)
            except TargetRefused as problem:
                refused = refused or problem
        if refused is not None and not allowed:
            raise refused
        return allowed

    async def _tunnel(self, sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
        try:
            await proxy.open_tunnel(sock, origin.host, origin.port)
        except BaseException:
            sock.close()
            raise

    async def _protect(
        self, sock: socket.socket, origin: Origin, make: Callable[[socket.socket], Connection]
    ) -> Connection:
        loop = asyncio.get_running_loop()
        name = origin.host.rstrip(".") if origin.tls else None
        tls = self._tls if origin.tls else None
        try:
            _, connection = await loop.create_connection(lambda: make(sock), sock=sock, ssl=tls, server_hostname=name)
        except ssl.SSLError:  # one of them is a ValueError too
            raise
        except ValueError as problem:  # a name that no certificate can hold
            sock.close()
            raise InvalidRequest from problem
        return connection


async def _race(addresses: list[AddrInfo]) -> socket.socket:
    if not addresses:
        raise CallFailed("name not resolved")
    try:
        return await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
    except RuntimeError as problem:  # uvloop's, for a descriptor it still knows
        raise CallFailed("connection failed") from problem
