"""A connection over TLS whose end is at once: nothing that was given up keeps its descriptor.

asyncio and uvloop close TLS in order: they say so and wait up to 30 s for the other side to say so too. redis-py closes
that way by itself, wherever it is cancelled or runs into a deadline, and out of our reach. Against a Redis that stalls,
each try would hold a descriptor for as long, and a loop that ends meanwhile would leave it to the garbage collector.
"""

import asyncio
import socket
from collections.abc import Mapping

from redis.asyncio.connection import SSLConnection


class TlsConnection(SSLConnection):
    """redis-py's, over a socket that is dialled in the clear first, so that it is at hand while TLS begins."""

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Stream(reader, loop=loop)
        async with asyncio.timeout(self.socket_connect_timeout):
            plain, _ = await loop.create_connection(asyncio.Protocol, self.host, self.port)
            try:
                self._keep_alive(plain.get_extra_info("socket"))
                secure = await loop.start_tls(plain, protocol, self.ssl_context.get(), server_hostname=self.host)
            except BaseException:
                plain.abort()
                raise
        assert secure is not None  # as only another transport's refusal would have it
        protocol.connection_made(secure)
        self._reader, self._writer = reader, _Abrupt(secure, protocol, reader, loop)

    def _keep_alive(self, line: socket.socket) -> None:
        """What redis-py does of itself: a peer that is gone without a word is noticed."""
        options = self.socket_keepalive_options
        if self.socket_keepalive and isinstance(options, Mapping):
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in options.items():
                line.setsockopt(socket.IPPROTO_TCP, option, value)


class _Stream(asyncio.StreamReaderProtocol):
    """Hears of its transport only after TLS has begun, and must know before that there is no half of it to keep."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class _Abrupt(asyncio.StreamWriter):
    """A writer for which to close is to abort."""

    def close(self) -> None:
        self.transport.abort()
