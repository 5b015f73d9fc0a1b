"""Who is measured: how each is started, and why one can't be."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import ROOT

GATEWAY = "gateway"
FLOOR_SERVER = "aiohttp server"
FLOOR_CLIENT = "aiohttp client"
LEAN_CLIENT = "httptools client"
OPEN = 200  # calls at once, of everybody
BUILD = ROOT / "build" / "bench"
_PEER_PYTHON = BUILD / "python" / "bin" / "python"
_PEER_NODE = BUILD / "node" / "node_modules"


@dataclass(frozen=True)
class Command:
    """What to run, with what on top of a plain environment."""

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)


def gateway(redis: str, port: int, target: str, *, role: str = "all", workers: int = 1) -> Command:
    """The gateway as it is shipped, but for what the scenario asks of every contestant."""
    argv = [sys.executable, "-m", "gateway", "serve", "--role", role, "--workers", str(workers)]
    env = {
        "REDIS_URL": redis,
        "PORT": str(port),
        "OUTBOUND_ALLOW": target.removeprefix("http://"),
        "MAX_IN_FLIGHT": str(OPEN // workers),
        "DRAIN_SECONDS": "1",
    }
    return Command(argv, env)


@dataclass(frozen=True)
class Peer:
    """A queue with a home-made server before it and workers behind it; ``command`` runs its file."""

    name: str
    command: Command
    needs: Path
    missing: str

    def unavailable(self) -> str | None:
        """Why it can't run here, if so."""
        return None if shutil.which(str(self.command.argv[0])) and self.needs.exists() else self.missing

    def serve(self, redis: str, port: int) -> Command:
        """The server alone."""
        return self._run("serve", redis, str(port))

    def work(self, redis: str) -> Command:
        """One worker process."""
        return self._run("work", redis)

    def load(self, redis: str, tasks: int, target: str) -> Command:
        """Queues the tasks, then ends."""
        return self._run("load", redis, str(tasks), target)

    def _run(self, *args: str) -> Command:
        return Command([*self.command.argv, *args], self.command.env)


def _python_peer(name: str, module: str) -> Peer:
    command = Command([_PEER_PYTHON, ROOT / "bench" / "peers" / f"{module}_peer.py"])
    return Peer(name, command, _PEER_PYTHON, "its packages are not installed; `make bench` installs them")


PEERS = (
    _python_peer("arq", "arq"),
    _python_peer("SAQ", "saq"),
    _python_peer("taskiq-redis", "taskiq"),
    _python_peer("streaq", "streaq"),
    Peer(
        "BullMQ",
        Command(["node", ROOT / "bench" / "peers" / "bullmq_peer.js"], {"NODE_PATH": str(_PEER_NODE)}),
        _PEER_NODE,
        "node and npm are needed for it (Debian, Ubuntu: apt-get install nodejs npm)",
    ),
)
PYTHON_PEERS = tuple(peer.name for peer in PEERS if peer.name != "BullMQ")
NAMES = (GATEWAY, FLOOR_SERVER, FLOOR_CLIENT, LEAN_CLIENT, *(peer.name for peer in PEERS))


def floor_server(port: int) -> Command:
    """Bare aiohttp: JSON in, 201 out."""
    return Command([sys.executable, ROOT / "bench" / "floors.py", "server", str(port)])


def floor_client(name: str, target: str, tasks: int) -> Command:
    """A loop that posts to the target."""
    lean = name == LEAN_CLIENT
    # Only the peers' environment is sure to have httptools.
    python = _PEER_PYTHON if lean else sys.executable
    mode = "httptools" if lean else "aiohttp"
    return Command([python, ROOT / "bench" / "floors.py", mode, f"{target}/hook", str(tasks), str(OPEN)])
