"""What a test builds of several Redis servers: a Cluster, and a primary with replicas under Sentinels."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import redis
from as_user import free_port
from certificates import Authority
from redis_servers import Server, binary_for, eventually, on_free_port, short_folder

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
            self.nodes.append(Server(folder, *options, *self._options, port=port, binary=binary_for(self._tls)))
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
DOWN_AFTER = 1000  # ms until a Sentinel takes a server for down; short, for tests in which one dies


class Sentinels:
    """A primary with two replicas, which three Sentinels watch over."""

    def __init__(self, folder: Path, *options: str, tls: Authority | None = None, down_after: int = DOWN_AFTER) -> None:
        self._folder = folder
        self._options = options
        self._tls = tls
        self._down_after = down_after
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

            def begun() -> bool:
                # Not while another one runs, nor while no replica has answered of late.
                with contextlib.suppress(redis.ResponseError):
                    return bool(client.execute_command("SENTINEL", "FAILOVER", SERVICE))
                return self.primary() is not before

            eventually(begun)
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
        return Server(folder, *options, port=port, binary=binary_for(self._tls))

    def _sentinel(self, folder: Path, port: int) -> Server:
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        tls = self._tls.options(port) if self._tls else ()
        return Server(folder, *tls, port=port, sentinel=config, binary=binary_for(self._tls))


def _online(info: dict[str, object]) -> int:
    """How many replicas have caught up, by INFO replication."""
    return sum(str(line).find("online") > 0 for name, line in info.items() if name.startswith("slave"))


@contextmanager
def sentinels(*options: str, tls: Authority | None = None) -> Iterator[Sentinels]:
    """A primary under Sentinels, gone at the end. None of its servers is taken for down for being slow, on a busy
    machine."""
    with short_folder() as folder:
        made = Sentinels(folder, *options, tls=tls, down_after=60_000)
        try:
            yield made
        finally:
            made.kill()
