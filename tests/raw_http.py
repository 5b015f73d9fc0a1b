"""Targets byte by byte, for the tests of the sender: what they receive, and exactly what they answer."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.sender import HttpSender
from gateway.models import ClaimedTask, Outcome

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


LOOPBACK = ["127.0.0.0/8", "::1"]
NOT_ALLOWED = "target not allowed: host that the client's allowed_hosts do not name"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def a_task(url: str, **changes: object) -> ClaimedTask:
    """The second attempt of a task; ``changes`` are fields of it."""
    fields: dict[str, object] = {
        "task_id": "task-1",
        "client_id": "client-1",
        "queue": "default",
        "entry": "1-0",
        "fence": 1,
        "attempt": 2,
        "failures": 0,
        "max_retry": 5,
        "timeout": 10.0,
        "method": "POST",
        "url": url,
        "headers": {},
        "body": None,
        "due_at": 0,
        "claimed_at": 0,
    }
    return ClaimedTask(**(fields | changes))  # type: ignore[arg-type]


class Target:
    """A server that keeps every request as it came and answers with fixed bytes."""

    def __init__(self, answer: bytes, *, then_close: bool) -> None:
        self.answer = answer
        self.then_close = then_close
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                self.requests.append(await read_request(reader))
                writer.write(self.answer)
                await writer.drain()
                if self.then_close:
                    return
        finally:
            self.open -= 1


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request as it came, head and body. Raises IncompleteReadError where none comes any more."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(
    handle: Handler, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server of raw connections; the value is its port."""
    writers: list[asyncio.StreamWriter] = []

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


@asynccontextmanager
async def target(answer: bytes = OK, *, then_close: bool = False) -> AsyncIterator[Target]:
    """A server that answers everything with the same bytes."""
    made = Target(answer, then_close=then_close)
    async with serving(made.handle) as port:
        made.port = port
        yield made


async def send(url: str, guard: EgressGuard | None = None, timeout: float = 5, **kwargs: Any) -> Outcome:
    """One attempt by a sender of its own; loopback is allowed unless a guard says otherwise."""
    async with HttpSender(guard or EgressGuard(LOOPBACK), 10, **kwargs) as sender:
        return await sender.send(a_task(url), timeout)


def resolving(monkeypatch: pytest.MonkeyPatch, known: dict[str, list[str]]) -> list[str]:
    """These names, and no others, have these addresses; the answer grows with every name that is asked for."""
    asked: list[str] = []

    def answer(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        found = []
        for address in known[host]:
            family, rest = (socket.AF_INET6, (0, 0)) if ":" in address else (socket.AF_INET, ())
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, *rest)))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def tls_contexts(authority: trustme.CA, *identities: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for these names, and a client's that trusts its authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*identities).configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting
