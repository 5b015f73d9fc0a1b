"""The parent of several workers, with small stand-ins for the children and a real embedded Valkey."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from as_user import free_port
from structlog.testing import capture_logs

from gateway import workers
from gateway.workers import heartbeat, supervise

# Runs supervise() in a process of its own, since it lives on signals and an event loop.
PARENT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from gateway import log
from gateway.workers import supervise

given = json.loads(sys.argv[1])
given["gateway_data_dir"] = Path(given["gateway_data_dir"])
log.configure("info", "json", sys.stdout)
sys.exit(supervise(SimpleNamespace(**given), [], command=[sys.executable, "-c", sys.argv[2]]))
"""

# Notes its start, beats, and ends on SIGTERM with a note.
CHILD = """
import asyncio, os, signal
from gateway.workers import heartbeat

def note(text):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{text} {os.environ['GATEWAY_WORKER']} {os.getpid()} {os.environ.get('REDIS_URL')}\\\\n")

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    beats = asyncio.create_task(heartbeat())
    await asyncio.sleep(0)
    note("started")
    await stop.wait()
    note("drained")

asyncio.run(main())
""".replace("\\\\", "\\")


def settings(folder: Path, **changed: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": free_port(),
        "role": "all",
        "admin_only": False,
        "workers": 2,
        "redis_url": "redis://127.0.0.1:1",
        "gateway_data_dir": str(folder / "data"),
        "embedded_redis_port": None,
        "lease_seconds": 30.0,
        "drain_seconds": 5.0,
        **changed,
    }


class Run:
    """One run of the parent and what its children noted."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.output = folder / "output"
        self.process: asyncio.subprocess.Process

    async def start(self, given: dict[str, Any], child: str = CHILD) -> None:
        with self.output.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                PARENT,
                json.dumps(given),
                child,
                env={**os.environ, "NOTES": str(self.notes)},
                stdout=output,
            )

    def noted(self, what: str) -> list[tuple[str, int, str]]:
        text = self.notes.read_text() if self.notes.exists() else ""
        found = re.findall(rf"^{what} (\d+) (\d+) (\S+)$", text, re.MULTILINE)
        return [(index, int(pid), url) for index, pid, url in found]

    def said(self, event: str) -> bool:
        return f'"event":"{event}"' in self.output.read_text()

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.output.read_text()
            await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_every_worker(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM or SIGINT to the parent lets each child drain, then the parent ends with 0."""
    run = Run(tmp_path)
    await run.start(settings(tmp_path))
    await run.until(lambda: len(run.noted("started")) == 2)
    assert await run.end(number) == 0
    assert sorted(run.noted("drained")) == sorted(run.noted("started"))
    assert {index for index, _, _ in run.noted("started")} == {"0", "1"}


async def test_ctrl_c_in_a_terminal_drains_every_worker(tmp_path: Path) -> None:
    """It reaches the parent alone, which drains the children; and these may write to the terminal even where it stops
    who does so from the background (`stty tostop`)."""
    ours, terminal = os.openpty()
    modes = termios.tcgetattr(terminal)
    modes[3] |= termios.TOSTOP
    termios.tcsetattr(terminal, termios.TCSANOW, modes)
    run = Run(tmp_path)
    run.output.touch()
    with os.fdopen(ours, "r+b", buffering=0) as screen, os.fdopen(terminal), run.output.open("ab", 0) as output:
        asyncio.get_running_loop().add_reader(screen, lambda: output.write(screen.read(4096)))
        owning = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR))"  # the terminal is its session's from then on
        run.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            owning + PARENT,
            json.dumps(settings(tmp_path)),
            CHILD.replace('note("started")', 'print("written", flush=True); note("started")'),
            env={**os.environ, "NOTES": str(run.notes)},
            stdin=terminal,
            stdout=terminal,
            start_new_session=True,
        )
        await run.until(lambda: len(run.noted("started")) == 2)
        screen.write(b"\x03")
        assert await asyncio.wait_for(run.process.wait(), 30) == 0
        asyncio.get_running_loop().remove_reader(screen)
    assert sorted(run.noted("drained")) == sorted(run.noted("started"))


async def test_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    """A killed child is replaced under its index, and the log says so."""
    run = Run(tmp_path)
    await run.start(settings(tmp_path))
    await run.until(lambda: len(run.noted("started")) == 2)
    await asyncio.to_thread(os.kill, run.noted("started")[0][1], signal.SIGKILL)
    await run.until(lambda: len(run.noted("started")) == 3)
    assert run.noted("started")[2][0] == run.noted("started")[0][0]
    assert run.said("worker_exited")
    assert await run.end() == 0


async def test_frozen_worker_is_killed_before_its_leases_end(tmp_path: Path) -> None:
    """A child that is stopped (SIGSTOP) is replaced within its lease, and the others are left alone."""
    run = Run(tmp_path)
    await run.start(settings(tmp_path, lease_seconds=4.0))
    await run.until(lambda: len(run.noted("started")) == 2)
    os.kill(run.noted("started")[0][1], signal.SIGSTOP)
    stopped_at = time.monotonic()
    await run.until(lambda: run.said("worker_frozen"))
    assert time.monotonic() - stopped_at < 4.0
    await run.until(lambda: len(run.noted("started")) == 3)
    assert await run.end() == 0
    assert len(run.noted("drained")) == 2


async def test_children_share_the_parents_embedded_valkey(tmp_path: Path) -> None:
    """Without a Redis the parent starts one, the children get its address, and it ends after them."""
    run = Run(tmp_path)
    await run.start(settings(tmp_path, redis_url=None))
    await run.until(lambda: len(run.noted("started")) == 2)
    sock = tmp_path / "data" / "valkey.sock"
    assert {url for _, _, url in run.noted("started")} == {f"unix://{sock}"}
    assert sock.exists()
    assert await run.end() == 0
    assert not sock.exists()


async def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the parent leaves no worker behind: each notices and drains."""
    run = Run(tmp_path)
    await run.start(settings(tmp_path, lease_seconds=2.0))
    await run.until(lambda: len(run.noted("started")) == 2)
    await run.end(signal.SIGKILL)
    await run.until(lambda: len(run.noted("drained")) == 2)


async def test_start_that_fails_ends_the_run(tmp_path: Path) -> None:
    """A child that fails before any has served ends the parent with its code instead of a restart loop."""
    run = Run(tmp_path)
    await run.start(settings(tmp_path), child="raise SystemExit(7)")
    assert await asyncio.wait_for(run.process.wait(), 30) == 7
    assert run.said("worker_start_failed")


async def test_worker_that_will_not_end_is_killed_by_a_second_signal(tmp_path: Path) -> None:
    """A second signal ends a drain that hangs."""
    run = Run(tmp_path)
    stubborn = 'await stop.wait(); note("asked"); await asyncio.Event().wait()'
    await run.start(settings(tmp_path, drain_seconds=600.0), CHILD.replace("await stop.wait()", stubborn))
    await run.until(lambda: len(run.noted("started")) == 2)
    run.process.send_signal(signal.SIGTERM)
    await run.until(lambda: len(run.noted("asked")) == 2)
    assert await run.end() == 0
    assert run.said("workers_killed")


def test_port_0_is_a_mistake(tmp_path: Path) -> None:
    """Workers can't agree on a free port, and the message says what to set."""
    with capture_logs() as logs:
        assert supervise(SimpleNamespace(**settings(tmp_path, port=0)), []) == 2  # type: ignore[arg-type]
    assert "PORT 0" in logs[0]["message"]
    assert "--workers 1" in logs[0]["message"]


def test_port_in_use_is_told(tmp_path: Path) -> None:
    """A port that another program has, even one that shares it, is told before any worker starts."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = settings(tmp_path, port=taken.getsockname()[1])
        with capture_logs() as logs:
            assert supervise(SimpleNamespace(**given), []) == 2  # type: ignore[arg-type]
    assert f"PORT {given['port']}" in logs[0]["message"]


async def test_heartbeat_without_a_parent_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that nobody supervises beats nowhere."""
    monkeypatch.delenv(workers.HEARTBEAT_FD, raising=False)
    await asyncio.wait_for(heartbeat(), 5)
