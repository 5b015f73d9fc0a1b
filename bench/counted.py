"""Instructions of a process, counted by valgrind's callgrind from one moment to another: the same for the same work,
whatever else the machine does. What the kernel does for the process is not among them."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.contestants import Command
from bench.processes import BenchError, Process

_TOOLS: Final = ("valgrind", "callgrind_control")
_COLLECTED: Final = re.compile(r"Collected : (\d+)")


def missing() -> str | None:
    """Why nothing can be counted here, if so."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{' and '.join(lacking)} is not on the PATH (Debian, Ubuntu: apt-get install valgrind)" if lacking else None


class Counter:
    """Counts in a command that is run as `of` says; how much it came to is told once its process has ended."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"

    def of(self, command: Command) -> Command:
        """The command, under callgrind, which counts nothing yet."""
        options = ("--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null")
        # With the seed of hashes given, dictionaries and sets are the same in each run.
        env = {**command.env, "PYTHONHASHSEED": "1"}
        return Command(["valgrind", *options, f"--log-file={self._log}", *command.argv], env)

    @contextlib.contextmanager
    def counting(self, process: Process) -> Iterator[None]:
        """Count for as long as the context is open."""
        self._switch(process, "on")
        yield
        self._switch(process, "off")

    def collected(self) -> int:
        """Instructions that were counted."""
        return parse_log(self._log.read_text())

    @staticmethod
    def _switch(process: Process, state: str) -> None:
        process.check()
        argv = ["callgrind_control", "-i", state, str(process.popen.pid)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode or "OK" not in done.stdout:
            raise BenchError(f"callgrind_control -i {state} failed: {(done.stdout + done.stderr).strip()}")


@contextlib.contextmanager
def counter() -> Iterator[Counter]:
    """A counter for one process."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Counter(Path(folder))


def parse_log(text: str) -> int:
    """What callgrind says at its end.

    >>> parse_log("==7== Events    : Ir\\n==7== Collected : 133480\\n")
    133480
    """
    found = _COLLECTED.search(text)
    if found is None:
        raise BenchError(f"callgrind told no count: {text.strip()[-200:]}")
    return int(found[1])
