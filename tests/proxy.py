"""A line between a gateway and its Redis that a test can cut at a byte, hold, or wrap in TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Forwards to a Redis. ``up`` and ``down`` are how many bytes a connection may send either way before it is cut
    (None: all). While ``answering`` is cleared no reply passes, while ``listening`` is, no command."""

    upstream: str | tuple[str, int]
    port: int = 0
    up: int | None = None
    down: int | None = None
    connections: int = 0
    sent: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    open_lines: set[asyncio.StreamWriter] = field(default_factory=set)
    to_gateway: list[asyncio.StreamWriter] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    listening: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection there is."""
        for line in self.open_lines:
            line.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connected = (
            asyncio.open_unix_connection(self.upstream)
            if isinstance(self.upstream, str)
            else asyncio.open_connection(*self.upstream)
        )
        far_reader, far_writer = await connected
        self.open_lines |= {writer, far_writer}
        self.to_gateway.append(writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, self.up, self.sent, self.listening))
                both.create_task(self._pump(far_reader, writer, self.down, self.answered, self.answering))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, far_writer):
                self.open_lines.discard(end)
                end.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        most: int | None,
        seen: bytearray,
        gate: asyncio.Event,
    ) -> None:
        passed = 0
        while True:
            await gate.wait()
            data = await reader.read(65536)
            if not data:
                raise ConnectionResetError("the other side left")
            await gate.wait()
            # Cut by the first byte that is too many, so that what was sent before it may still be answered.
            rest = data if most is None else data[: most - passed]
            passed += len(rest)
            seen += rest
            writer.write(rest)
            await writer.drain()
            if len(rest) < len(data):
                raise ConnectionResetError("cut")


@asynccontextmanager
async def proxy_to(upstream: str | tuple[str, int], tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy on a port of its own; with ``tls`` it speaks that to the gateway."""
    proxy = Proxy(upstream)
    proxy.answering.set()
    proxy.listening.set()
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()
