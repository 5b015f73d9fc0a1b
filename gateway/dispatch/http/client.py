"""One call: a connection from the pool or a new one, one request, one answer."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http.answer import Answer
from gateway.dispatch.http.connection import Connection, Ended, Outbox
from gateway.dispatch.http.dial import Dialer
from gateway.dispatch.http.errors import CallFailed
from gateway.dispatch.http.message import Origin, Request, encode, parse_url
from gateway.dispatch.http.pool import Pool
from gateway.dispatch.http.proxy import Proxy
from gateway.dispatch.http.resolver import Resolver

# A host that swallows packets would otherwise hold one of the caller's slots for the whole of a long timeout.
CONNECT_SECONDS = 30.0


class Client:
    """``limit``: calls open at once, which the caller keeps to; ``proxy``: see `Proxy.parse`. Belongs to one loop."""

    def __init__(self, guard: EgressGuard, limit: int, tls: ssl.SSLContext, proxy: Proxy | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._guard = guard
        self._pool = Pool(limit)
        self._outbox = Outbox(self._loop)
        self._dialer = Dialer(guard, Resolver(limit), tls, proxy)

    def call(
        self,
        method: str,
        url: str,
        *,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
        answer: Answer,
        timeout: float,
        ended: Ended,
        allowed: tuple[str, ...] | None = None,
    ) -> Callable[[], object]:
        """Exactly one request on the wire, at most ``timeout`` seconds from the name look-up to the last byte read, to
        one of the hosts ``allowed`` (None: any). Fills ``answer`` as far as it comes, then tells ``ended``: None, or a
        `CallFailed` or `TargetRefused`. Raises `CallFailed` and `InvalidRequest`. Returns what breaks it off, untold.
        """
        deadline = self._loop.time() + timeout
        target = parse_url(url)
        origin = target.origin
        proxy = self._dialer.proxy_for(origin)
        request = encode(method, target, headers, body, via=None if origin.tls else proxy)
        if allowed is not None:
            # Kept apart from what others opened, which may lead to an address that this client may not call.
            origin = origin._replace(rule=self._guard.narrowed(origin.host, origin.port, allowed))
        connection = self._pool.take(origin)
        if connection is None:
            dial = partial(self._dial, origin, proxy, timeout)
            return _Dialled(dial, request, answer, deadline, ended).stop
        connection.exchange(request, answer, deadline, ended)
        return partial(connection.break_off, ended)

    async def _dial(self, origin: Origin, proxy: Proxy | None, timeout: float) -> Connection:
        self._pool.make_room()
        try:
            async with asyncio.timeout(min(timeout, CONNECT_SECONDS)):
                return await self._dialer.dial(
                    origin, proxy, lambda sock: Connection(self._loop, origin, sock, self._pool, self._outbox)
                )
        except TimeoutError:
            raise CallFailed("timeout" if timeout <= CONNECT_SECONDS else "connect timeout") from None

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()


class _Dialled:
    """A call whose connection is opened first."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[Connection]],
        request: Request,
        answer: Answer,
        deadline: float,
        ended: Ended,
    ) -> None:
        self._dial = dial
        self._request = request
        self._answer = answer
        self._deadline = deadline
        self._ended = ended
        self._connection: Connection | None = None
        self._dialling = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        try:
            connection = await self._dial()
            connection.exchange(self._request, self._answer, self._deadline, self._ended)
            self._connection = connection
        except Exception as error:
            self._ended(error)
        except asyncio.CancelledError:
            self._ended(CallFailed("connection closed"))  # heard where it was not the caller who broke it off
            raise

    def stop(self) -> None:
        """Break it off."""
        if self._connection is None:
            self._dialling.cancel()
        else:
            self._connection.break_off(self._ended)
