"""Names to addresses, without a pool of threads that slow names could fill."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from gateway.dispatch.http.errors import CallFailed, InvalidRequest

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str | int, ...]]

# Long enough that a target without keep-alive does not cost a look-up a call, short enough for a failover by DNS. What
# is dialled is judged at every dial, so an address that changes meanwhile opens nothing.
KNOWN_SECONDS = 5.0
_KNOWN_NAMES = 1024


class Resolver:
    """getaddrinfo(3) in a daemon thread a look-up: a name that hangs holds up nobody else's, and not the exit either.

    Calls that ask for one name share a look-up, so there are at most ``limit`` of them, the number of open calls;
    past it, where callers gave up and their look-ups still run, names are not resolved until some have ended.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, tuple[float, Sequence[AddrInfo]]] = {}
        self._running: dict[str, asyncio.Future[Sequence[AddrInfo] | Exception]] = {}

    async def lookup(self, host: str, port: int) -> list[AddrInfo]:
        """The addresses to dial, in the system's order. Raises `CallFailed`, and `InvalidRequest` for what can't be a
        name."""
        loop = asyncio.get_running_loop()
        expires_at, found = self._known.get(host, (0.0, ()))
        if expires_at <= loop.time():
            # Shielded, since others wait for it too.
            answer = await asyncio.shield(self._running.get(host) or self._ask(loop, host))
            if isinstance(answer, UnicodeError):
                raise InvalidRequest from answer
            if isinstance(answer, Exception):
                raise CallFailed("name not resolved") from answer
            found = answer
        return [(*rest, (address[0], port, *address[2:])) for *rest, address in found]  # type: ignore[misc]

    def _ask(self, loop: asyncio.AbstractEventLoop, host: str) -> asyncio.Future[Sequence[AddrInfo] | Exception]:
        if len(self._running) >= self._limit:
            raise CallFailed("name not resolved")
        asked = self._running[host] = loop.create_future()
        try:
            threading.Thread(target=self._resolve, args=(loop, host), name="resolver", daemon=True).start()
        except RuntimeError as problem:
            del self._running[host]
            raise CallFailed("name not resolved") from problem
        return asked

    def _resolve(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        answer: Any  # typeshed's type of an address is wider than what AI_ADDRCONFIG and SOCK_STREAM leave
        try:
            answer = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except (OSError, UnicodeError) as problem:
            answer = problem
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._answered, loop, host, answer)

    def _answered(self, loop: asyncio.AbstractEventLoop, host: str, answer: Sequence[AddrInfo] | Exception) -> None:
        self._running.pop(host).set_result(answer)
        if not isinstance(answer, Exception):
            self._known.pop(host, None)
            while len(self._known) >= _KNOWN_NAMES:
                del self._known[next(iter(self._known))]
            self._known[host] = (loop.time() + KNOWN_SECONDS, answer)
