"""What callers may take of one listener at once: connections of an address, and requests that are being answered."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway import metrics
from gateway.addresses import Network
from gateway.errors import ServiceUnavailable
from gateway.middleware.callers import parse_address, place_of, within

log = structlog.get_logger()

# What balancers, orchestrators and Prometheus ask must be answered above all where much is asked.
PROBES: Final = frozenset({"/health", "/livez", "/readyz", "/metrics"})
TELL_SECONDS: Final = 10.0  # between two lines of the log about refused connections


class Limits:
    """Counts both. Loopback and ``exempt`` networks (trusted proxies, which bring everybody's) may have any number of
    connections; the addresses of an IPv6 /64 have one number together. ``most``: connections in all, whoever has them,
    for which the process may open files (None: any number)."""

    def __init__(
        self,
        per_address: int,
        open_requests: int,
        exempt: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
        *,
        most: int | None = None,
    ) -> None:
        self._per_address = per_address
        self._open_requests = open_requests
        self._exempt = exempt
        self._clock = clock
        self._most = most
        self._open = 0
        self._connections: dict[str, int] = {}
        self._requests = 0
        self._untold = 0
        self._told_at = float("-inf")

    def connected(self, peer: str | None) -> str | None:
        """A connection from ``peer``; the value is for `disconnected` at its end, None where its address is not
        counted. Raises `ServiceUnavailable` where that address has as many as it may, or all together have."""
        if self._most is not None and self._open >= self._most:
            metrics.connection_refused("files")
            self._tell("all together")
            msg = (
                f"there are {self._open} connections already, for which this process may open no more files; "
                "an operator raises `ulimit -n`"
            )
            raise ServiceUnavailable(msg)
        place = self._of_address(peer)
        self._open += 1
        return place

    def _of_address(self, peer: str | None) -> str | None:
        address = parse_address(peer)
        if address is None or address.is_loopback or within(address, self._exempt):
            return None
        place = place_of(str(address))
        count = self._connections.get(place, 0)
        if count >= self._per_address:
            metrics.connection_refused("too_many")
            self._tell(place)
            msg = (
                f"{place} has {count} connections already, which is all that one address may have "
                "(MAX_CONNECTIONS_PER_ADDRESS)"
            )
            raise ServiceUnavailable(msg)
        self._connections[place] = count + 1
        return place

    def disconnected(self, place: str | None) -> None:
        """The connection has ended."""
        self._open -= 1
        if place is None:
            return
        left = self._connections[place] - 1
        if left:
            self._connections[place] = left
        else:
            del self._connections[place]

    def enter(self, path: str) -> None:
        """A request begins; `leave` ends it. Raises `ServiceUnavailable` where too many are open, but for probes."""
        if self._requests >= self._open_requests and path not in PROBES:
            msg = f"{self._requests} requests are being answered, which is all that may be (MAX_OPEN_REQUESTS)"
            raise ServiceUnavailable(msg)
        self._requests += 1

    def leave(self) -> None:
        """It has been answered."""
        self._requests -= 1

    def _tell(self, place: str) -> None:
        """A line now and then: whoever opens connections in a loop must not fill the log."""
        self._untold += 1
        now = self._clock()
        if now - self._told_at >= TELL_SECONDS:
            log.warning("connections_refused", address=place, refused=self._untold, limit=self._per_address)
            self._untold, self._told_at = 0, now
