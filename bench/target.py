"""The target of all contestants: answers 204 to everything and counts, at little cost.

python -m bench.target PORT. `GET /-/reset` forgets, `GET /-/stats` tells how many calls came and when the last one did,
`GET /-/arrivals` when each call with `?n=` came. Times are CLOCK_MONOTONIC in nanoseconds, the same for all processes.
"""

import asyncio
import http.client
import json
import re
import sys
from time import monotonic_ns
from typing import Any

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb"\?n=(\d+)")
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Counts:
    """What arrived since the last reset."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self.arrivals: dict[int, int] = {}

    def note(self, head: bytes) -> None:
        """One call arrived."""
        self.count += 1
        self.last = monotonic_ns()
        number = _NUMBER.search(head, 0, head.find(b"\r\n"))
        if number is not None:
            self.arrivals.setdefault(int(number[1]), self.last)

    def control(self, path: bytes) -> bytes:
        """The answer to a call of the bench itself."""
        told: Any = {"count": self.count, "last": self.last, "now": monotonic_ns()}
        if path.startswith(b"/-/arrivals"):
            told = list(self.arrivals.items())
        elif path.startswith(b"/-/reset"):
            self.__init__()  # type: ignore[misc]
        body = json.dumps(told).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Answering(asyncio.Protocol):
    """One connection; knows as much of HTTP/1.1 as the contestants send: bodies have a Content-Length."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        buffer = self._buffer + data if self._buffer else data
        answers = b""
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(buffer, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(buffer) < whole:
                break
            if buffer.startswith(b"GET /-/"):
                answers += self._counts.control(buffer[4:end])
            else:
                self._counts.note(buffer[:end])
                answers += _ANSWER
            buffer = buffer[whole:]
        self._buffer = buffer
        if answers:
            self._transport.write(answers)


class Target:
    """The bench's side of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, what: str) -> Any:
        """`reset`, `stats` or `arrivals`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/-/{what}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


async def _serve(port: int) -> None:
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: Answering(counts), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
