"""Enqueues at a steady pace and notes when each 201 came, by the clock the target uses.

python -m bench.arrivals PORT PATH RATE FILE posts the bodies of FILE, RATE a second, and prints a JSON list of
CLOCK_MONOTONIC nanoseconds, one a body.
"""

import asyncio
import json
import sys
from pathlib import Path
from time import monotonic_ns

import uvloop

_CONNECTIONS = 16


class Caller:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: str) -> int:
        """Post, and return the moment at which the head of the 201 was there."""
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        moment = monotonic_ns()
        status = head.split(b" ", 2)[1]
        lines = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:-1])
        await self._reader.readexactly(int(lines.get(b"content-length", b"0")))
        if status != b"201":
            raise SystemExit(f"answered {status.decode()}, not 201")
        return moment


async def _run(port: int, path: str, rate: float, bodies: list[str]) -> list[int]:
    idle: asyncio.Queue[Caller] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        idle.put_nowait(Caller(*await asyncio.open_connection("127.0.0.1", port)))

    async def one(body: str) -> int:
        caller = await idle.get()
        moment = await caller.post(path, body)
        idle.put_nowait(caller)
        return moment

    loop = asyncio.get_running_loop()
    start = loop.time()
    calls = []
    for number, body in enumerate(bodies):
        # An open loop: a slow answer does not hold the next request back.
        await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
        calls.append(asyncio.create_task(one(body)))
    return list(await asyncio.gather(*calls))


if __name__ == "__main__":
    moments = uvloop.run(_run(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]).read_text().split()))
    sys.stdout.write(json.dumps(moments))
