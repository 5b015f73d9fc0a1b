"""The gateway as a user runs it: real processes, a real shell, HTTP over loopback.

Nothing of the package is imported here; what a test wants to know, it asks the way a user would."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOOPBACK = "127.0.0.1"
START_DEADLINE = 30.0
STOP_DEADLINE = 40.0


# Below those that a system gives to outgoing connections: one of these could take the port before a server has it.
# Processes that test side by side (pytest-xdist) have each their own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = list(range(12_000 + _WORKER, 32_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
random.shuffle(_PORTS)


def free_port() -> int:
    """A port nobody listens on at this moment, and that this process is given once."""
    while True:
        port = _PORTS.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Polls until the condition holds; AssertionError that names it where it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def fetch(
    url: str, *, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """One call: status and text, 0 where nobody answers."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        return 0, str(error)


def plain_environment(**more: str) -> dict[str, str]:
    """A user's environment, none of this process's settings; the venv's commands come first on the PATH."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}"} | more


class Background:
    """A process that runs until it is told to stop; its output goes to a file."""

    def __init__(self, command: list[str], output: Path, env: dict[str, str]) -> None:
        self.output = output
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """As Ctrl-C does it; a process that does not end is killed and fails the test."""
        if self.ended:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"did not stop within {STOP_DEADLINE} s:\n{self.text()}") from None


class Gateway:
    """A gateway with its embedded Valkey on a folder of its own. It can be stopped and started again."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._settings = settings
        self._running: Background | None = None

    def start(self, **settings: str) -> None:
        """Starts it with these settings on top; returns once it is ready."""
        env = plain_environment(
            PORT=str(self.port), GATEWAY_DATA_DIR=str(self._folder / "data"), **(self._settings | settings)
        )
        running = Background([sys.executable, "-m", "gateway", "serve"], self._folder / "gateway.log", env)
        self._running = running
        ready = f"{self.url}/readyz"
        try:
            wait_for(lambda: running.ended or fetch(ready)[0] == 200, "ready", START_DEADLINE)
            assert not running.ended, "the gateway ended at its start"
        except AssertionError as error:
            running.stop()
            raise AssertionError(f"{error}, its log:\n{running.text()}") from None

    def stop(self) -> None:
        """Ctrl-C, and the wait for its end."""
        if self._running is not None:
            self._running.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


class Terminal(contextlib.AbstractContextManager["Terminal"]):
    """One bash that keeps its variables from block to block, as a user's does."""

    _END = "--end-of-block--"

    def __init__(self, env: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, block: str) -> tuple[int, str]:
        """The exit code and the output, both streams, of a block of commands."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{{\n{block}\n}} </dev/null\nprintf '\\n{self._END} %s\\n' $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(self._END):
                return int(line.split()[1]), "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended in this block:\n{block}\n{''.join(lines)}")

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._bash.communicate()
