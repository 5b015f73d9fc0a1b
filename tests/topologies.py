"""Redis servers of a test: single ones with any options, here; what is built of several, below."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from as_user import free_port
from conftest import valkey_server

START_SECONDS = 20.0


def binaries() -> dict[str, str]:
    """The servers there are on this machine: the embedded Valkey, and redis-server where it is on the PATH."""
    found = {"valkey": valkey_server()}
    if (redis_server := shutil.which("redis-server")) is not None:
        found["redis"] = redis_server
    return found


class Server:
    """One server on a port of its own, its data in a folder; it can be killed, frozen and started again."""

    def __init__(self, folder: Path, *options: str, binary: str | None = None, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.socket = folder / f"{self.port}.sock"
        self.binary = binary or valkey_server()
        self._command = [
            self.binary,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, redis.ConnectionError), self.client() as client:
                with contextlib.suppress(redis.ResponseError):
                    client.ping()
                return
            assert self.process.poll() is None, (self.folder / f"{self.port}.log").read_text()
            assert time.monotonic() < end, "the server did not answer"
            time.sleep(0.01)

    def client(self, **arguments: object) -> redis.Redis:
        """A client as an operator has one, over the socket, which asks for no TLS."""
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, **arguments)  # type: ignore[arg-type]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a socket's name (108 bytes in all)."""
    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(*options: str, binary: str | None = None) -> Iterator[Server]:
    """A server with these options, gone at the end."""
    with short_folder() as folder:
        made = Server(folder, *options, binary=binary)
        try:
            yield made
        finally:
            made.kill()
