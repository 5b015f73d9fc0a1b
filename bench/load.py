"""What goes in: wrk's runs, and the gateway's queues filled through its batch call."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, Self

from bench.payload import batch, task
from bench.processes import ROOT, BenchError
from bench.valkey import client_id

_FILL_BATCH = 1000
_ANSWER_SECONDS = 120.0
_MISSING_WRK = (
    "wrk is missing; it makes the load (Debian, Ubuntu: apt-get install wrk; macOS has no /proc to measure by)"
)


def spread(known: int, active: int) -> list[str]:
    """``active`` of the ``known`` clients, evenly spread."""
    return [client_id(number * known // active) for number in range(active)]


class Load(NamedTuple):
    """What wrk saw; times in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@contextlib.contextmanager
def bodies_file(bodies: Iterable[str]) -> Iterator[Path]:
    """The bodies in a file, one a line, as enqueue.lua reads them."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", prefix="bench-") as file:
        file.writelines(f"{body}\n" for body in bodies)
        file.flush()
        yield Path(file.name)


def wrk(url: str, bodies: Path, connections: int, seconds: float) -> Load:
    """Run wrk; raises `BenchError` where any request failed."""
    program = shutil.which("wrk")
    if program is None:
        raise BenchError(_MISSING_WRK)
    script = ROOT / "bench" / "enqueue.lua"
    # wrk takes whole seconds only.
    duration = f"-d{max(1, round(seconds))}s"
    argv = [program, "-t1", f"-c{connections}", duration, "-s", str(script), url, "--", str(bodies)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr.strip()}")
    return parse_wrk(done.stdout)


def parse_wrk(output: str) -> Load:
    """wrk's output with the line that enqueue.lua adds to it."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchError(f"wrk said nothing of its run: {output.strip()[-200:]}")
    told = json.loads(lines[-1])
    if told["failed"] or not told["requests"]:
        raise BenchError(f"of {told['requests']} requests {told['failed']} failed")
    return Load(told["requests"], told["seconds"], told["p50"], told["p99"])


def post(port: int, path: str, body: str) -> tuple[int, bytes]:
    """Status and body of one call."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def require_201(port: int, path: str, body: str) -> None:
    """wrk takes any status below 400 for success; this is the proof that it is a 201."""
    status, answer = post(port, path, body)
    if status != 201:
        raise BenchError(f"{path} answered {status}: {answer.decode(errors='replace')[:200]}")


def fill(port: int, clients: list[str], target: str, total: int) -> None:
    """Enqueue ``total`` tasks at the gateway through its batch call, spread evenly over ``clients``."""
    each, rest = divmod(total, len(clients))
    for number, client in enumerate(clients):
        left = each + (number < rest)
        while left > 0:
            size = min(left, _FILL_BATCH)
            require_201(port, "/v1/enqueue/batch", batch(client, task(target), size))
            left -= size


class Callers:
    """Connections that ask all at once, then hear their answers; a context that closes them."""

    def __init__(self, port: int, path: str, bodies: Sequence[bytes], count: int) -> None:
        head = "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._requests = cycle((head % (path, len(body))).encode() + body for body in bodies)
        self._sockets = [socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()

    def ask(self) -> None:
        """One request on each."""
        for connection in self._sockets:
            connection.sendall(next(self._requests))

    def hear(self) -> None:
        """The answer of each, which must be a 201."""
        for connection in self._sockets:
            answer = http.client.HTTPResponse(connection, method="POST")
            answer.begin()
            body = answer.read()
            if answer.status != 201:
                raise BenchError(f"answered {answer.status}: {body.decode(errors='replace')[:200]}")
