"""`--workers N`: the parent of N serving processes. Starts, watches and drains them; it serves nothing itself.
The child's side is `heartbeat`, which `gateway.app` runs."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway import metrics
from gateway.reloading import hear_hangup
from gateway.store.embedded import EmbeddedError, EmbeddedValkey

if TYPE_CHECKING:
    from gateway.settings import Settings

log = structlog.get_logger()

WORKER = "GATEWAY_WORKER"
HEARTBEAT_FD = "GATEWAY_HEARTBEAT_FD"
HEARTBEAT_SECONDS = "GATEWAY_HEARTBEAT_SECONDS"

_TICK_SECONDS = 0.1
_FROZEN_SHARE = 0.6  # of a lease: killed by then, a child is gone before another process takes its tasks over
_START_SECONDS = 60.0  # to the first heartbeat; before it a child holds no task
_STEADY_SECONDS = 10.0  # a child that lived this long is started again at once
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


async def heartbeat() -> None:
    """Tell the parent that this process's event loop turns, for as long as it does; without one do nothing.

    A parent that has gone away gets no new workers from anybody: the process then ends itself as on SIGTERM.
    """
    if HEARTBEAT_FD not in os.environ:
        return
    pipe = int(os.environ[HEARTBEAT_FD])
    every = float(os.environ.get(HEARTBEAT_SECONDS, "1"))
    os.set_blocking(pipe, False)
    while True:
        try:
            os.write(pipe, b".")
        except BlockingIOError:
            pass  # the parent is stopped and the pipe is full
        except BrokenPipeError:
            log.error("worker_parent_lost", worker=os.environ.get(WORKER))
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await asyncio.sleep(every)


def supervise(settings: "Settings", argv: list[str], *, command: Sequence[str] | None = None) -> int:
    """Run ``settings.workers`` processes until SIGTERM or SIGINT and return the exit code.

    ``argv`` is what followed `gateway`, from `serve` on; ``command`` replaces the whole child command. Without a Redis
    of the operator's the parent owns the embedded one, and stops it after the children. A second signal ends the drain.
    2: the port can't be shared or opened; a child that fails before any served: its code.
    """
    problem = _port_problem(settings)
    if problem is not None:
        log.error("workers_not_started", message=problem)
        return 2
    child = command or [sys.executable, "-m", "gateway", *argv, "--workers", "1"]
    return asyncio.run(_Supervisor(settings, child).run())


def _port_problem(settings: "Settings") -> str | None:
    """Why the workers can't share the public port, if they can't. Each of them opens it with SO_REUSEPORT, which
    would neither agree on a free number nor notice another gateway's workers."""
    if settings.admin_only or settings.role == "dispatcher":
        return None
    if settings.port == 0:
        return "PORT 0 (any free port) gives each worker another port; set a fixed PORT, or --workers 1"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        return f"PORT {settings.port} on HOST {settings.host} can't be opened: {error.strerror or error}"
    return None


class _Worker:
    """One child and the reading end of its heartbeat."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe = -1
        self.beaten = False
        self.started_at = self.last_beat = 0.0
        self.pause = 0.0
        self.start_at = 0.0

    def start(self, command: Sequence[str], env: dict[str, str], now: float) -> None:
        self.pipe, theirs = os.pipe()
        os.set_blocking(self.pipe, False)
        try:
            # A group of its own: Ctrl-C reaches the parent, which drains the children in order. Not a session, since
            # Linux shares a machine out by sessions first (autogroup): Redis, that of the parent, would get as much as
            # one worker together with whatever else was started there.
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                env={**env, WORKER: str(self.index), HEARTBEAT_FD: str(theirs)},
                pass_fds=(theirs,),
                process_group=0,
            )
        finally:
            os.close(theirs)
        self.beaten = False
        self.started_at = self.last_beat = now

    def read_beats(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.pipe, 4096):
                self.beaten, self.last_beat = True, now

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)  # does nothing once the child was reaped

    def ended(self) -> int | None:
        """The exit code of a child that has just ended, once."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            os.close(self.pipe)
        return code


class _Supervisor:
    """The state of one run."""

    def __init__(self, settings: "Settings", command: Sequence[str]) -> None:
        self.settings = settings
        self.command = command
        self.frozen_after = settings.lease_seconds * _FROZEN_SHARE
        self.workers = [_Worker(index) for index in range(settings.workers)]
        self.signals = 0
        self.signalled = asyncio.Event()
        self.any_beat = False
        self.last_tick = time.monotonic()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        main = asyncio.create_task(self._serve())
        serving = asyncio.create_task(self.signalled.wait())

        def on_signal() -> None:
            self.signals += 1
            self.signalled.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        hear_hangup(self._reread)
        # Inherited: the children are in the background of a terminal, and may write there where `stty tostop` is set.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        await asyncio.wait({main, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not main.done() and not any(worker.process for worker in self.workers):
            main.cancel()  # the embedded Valkey is still loading: nothing to drain
        serving.cancel()
        try:
            return await main
        except asyncio.CancelledError:
            return 0
        except EmbeddedError as error:
            log.error("embedded_redis_failed", message=str(error))
            return 1

    async def _serve(self) -> int:
        env = {**os.environ, HEARTBEAT_SECONDS: str(min(1.0, self.frozen_after / 5))}
        async with contextlib.AsyncExitStack() as stack:
            if self.settings.redis_url is None:
                own = EmbeddedValkey(self.settings.gateway_data_dir, self.settings.embedded_redis_port)
                server = await stack.enter_async_context(own)
                log.info("embedded_redis_started", url=server.url, cli=server.cli)
                env["REDIS_URL"] = server.url
            folder = Path(tempfile.mkdtemp(prefix="gateway-metrics-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            env["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            try:
                code = await self._watch(env, folder)
                await self._drain()
            finally:
                self._kill_all()
            return code

    async def _watch(self, env: dict[str, str], folder: Path) -> int:
        while not self.signals:
            now = time.monotonic()
            # Stopped and continued, the parent must not blame the children for its own silence.
            late = now - self.last_tick > 10 * _TICK_SECONDS
            self.last_tick = now
            for worker in self.workers:
                code = self._tick(worker, env, folder, now, late=late)
                if code is not None:
                    return code
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self.signalled.wait()
        return 0

    def _tick(self, worker: _Worker, env: dict[str, str], folder: Path, now: float, *, late: bool) -> int | None:
        """Look after one worker; a number ends the run with it."""
        if worker.process is None:
            if now >= worker.start_at:
                worker.start(self.command, env, now)
                log.info("worker_started", worker=worker.index, pid=worker.process and worker.process.pid)
            return None
        worker.read_beats(now)
        self.any_beat = self.any_beat or worker.beaten
        code = worker.ended()
        if code is None:
            self._kill_if_frozen(worker, now, late=late)
            return None
        lived = now - worker.started_at
        if not self.any_beat:
            # The very start failed, and would again: its message is in the log above.
            log.error("worker_start_failed", worker=worker.index, code=code)
            metrics.forget_process(worker.process.pid, folder)
            worker.process = None
            return code if code > 0 else 128 - code if code < 0 else 1
        worker.pause = 0.0 if lived >= _STEADY_SECONDS else min(max(_FIRST_PAUSE, worker.pause * 2), _LONGEST_PAUSE)
        worker.start_at = now + worker.pause
        log.error("worker_exited", worker=worker.index, pid=worker.process.pid, code=code, again=worker.pause)
        metrics.forget_process(worker.process.pid, folder)
        worker.process = None
        return None

    def _kill_if_frozen(self, worker: _Worker, now: float, *, late: bool) -> None:
        if late:
            worker.last_beat = now
        silent = now - worker.last_beat
        if silent > (self.frozen_after if worker.beaten else _START_SECONDS):
            log.error("worker_frozen", worker=worker.index, silent_seconds=round(silent, 1))
            worker.send(signal.SIGKILL)

    def _reread(self) -> None:
        """Have the children read again what they watch; one that does not serve yet would only be ended by it."""
        for worker in self.workers:
            if worker.beaten:
                worker.send(signal.SIGHUP)

    async def _drain(self) -> None:
        asked = self.signals
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        deadline = time.monotonic() + self.settings.drain_seconds + 5
        while any(worker.process and worker.process.poll() is None for worker in self.workers):
            if time.monotonic() > deadline or self.signals > max(asked, 1):
                log.warning("workers_killed", reason="drain time is over or a second signal came")
                return
            await asyncio.sleep(_TICK_SECONDS / 2)

    def _kill_all(self) -> None:
        for worker in self.workers:
            if worker.process is not None:
                worker.send(signal.SIGKILL)
                worker.process.wait()
                os.close(worker.pipe)
                worker.process = None
