"""Processes of a run: started one by one, measured through /proc, ended by their pid. Linux only."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 30.0
STOP_SECONDS = 8.0
_TICKS = os.sysconf("SC_CLK_TCK")
_KEPT = ("PATH", "HOME", "LANG")


class BenchError(Exception):
    """A contestant or a tool did not do its part; the text says which and how."""


class Process:
    """A started process, together with all that it started."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.popen = popen
        self._log = log

    def cpu(self) -> float:
        """CPU seconds so far, user and system, of it and its living descendants."""
        return sum(_cpu(pid) for pid in self.family())

    def rss(self) -> int:
        """Resident bytes of it and its descendants; pages that they share count for each."""
        return sum(_rss(pid) for pid in self.family())

    def family(self) -> list[int]:
        """Its pid and its descendants'."""
        found = [self.popen.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def check(self) -> None:
        """Raise `BenchError` with the end of its output where it has ended."""
        if self.popen.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise BenchError(f"{self.name} ended with code {self.popen.returncode}: {' | '.join(said[-4:])}")


@contextlib.contextmanager
def started(name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a command for as long as the context is open, with a plain environment and ``env`` on top."""
    whole = {key: os.environ[key] for key in _KEPT if key in os.environ} | dict(env or {})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "output"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(part) for part in argv],
                cwd=ROOT,
                env=whole,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process = Process(name, popen, log)
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: Process) -> None:
    family = process.family()
    process.popen.terminate()
    try:
        process.popen.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in family:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
        process.popen.wait()


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(process: Process, port: int, seconds: float = START_SECONDS) -> None:
    """Wait until the process accepts connections on the port."""
    end = time.monotonic() + seconds
    while True:
        process.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end:
            raise BenchError(f"{process.name} does not listen after {seconds:g} s")
        time.sleep(0.02)
