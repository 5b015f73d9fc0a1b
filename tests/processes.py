"""Real processes of a test: a Valkey that keeps an AOF, gateways that serve. They can be killed and started again."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio as redis
from as_user import ROOT, free_port, plain_environment
from redis_servers import valkey_server
from waiting import until

GENEROUS = 40.0


class Server:
    """A Valkey with an AOF on a port of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        self.process = subprocess.Popen(
            [valkey_server(), *options, "--appendfsync", "always", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            restore_signals=False,  # see redis_servers.Server
        )
        await until(self.answers, GENEROUS)

    async def answers(self) -> bool:
        async with redis.Redis.from_url(self.url) as client:
            with contextlib.suppress(redis.RedisError, OSError):
                return bool(await client.ping())
        return False

    def signal(self, number: signal.Signals) -> None:
        """Stop it in its tracks, or let it go on."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Process:
    """One `gateway serve`, and a session to call it with. ``files``: how many it may have open; 0: as many as we."""

    def __init__(
        self, session: aiohttp.ClientSession, log: Path, arguments: list[str], *, files: int = 0, **settings: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._session = session
        self._log = log
        env = plain_environment(PORT=str(self.port), OUTBOUND_ALLOW="127.0.0.1", ADMIN_API_KEY="key", **settings)
        command = [sys.executable, "-m", "gateway", "serve", *arguments]
        if files:
            command = ["bash", "-c", f'ulimit -n {files} && exec "$@"', "bash", *command]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON (text where it is none); 0 where nobody answers."""
        headers = {"X-Admin-Key": "key"} if path.startswith("/admin") else {}
        try:
            async with self._session.request(method, self.url + path, json=body, headers=headers) as answer:
                is_json = answer.content_type == "application/json"
                return answer.status, await (answer.json() if is_json else answer.text())
        except aiohttp.ClientError:
            return 0, None

    async def status(self, path: str) -> int:
        return (await self.call("GET", path))[0]

    async def ready(self) -> "Process":
        async def is_ready() -> bool:
            assert self.process.poll() is None, self.log()
            return await self.status("/readyz") == 200

        await until(is_ready, GENEROUS)
        return self

    def log(self) -> str:
        return self._log.read_text()

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after the signal."""
        self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, GENEROUS)
