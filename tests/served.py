"""Gateways and a Redis that a test starts as real processes, and tasks for them."""

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from processes import GENEROUS, Process, Server
from waiting import until

if TYPE_CHECKING:
    from conftest import Target

Start = Callable[..., Process]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts gateway processes; those that still run are killed at the end."""
    started: list[Process] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(GENEROUS)) as session:

        def make(*arguments: str, **settings: str) -> Process:
            process = Process(session, tmp_path / f"gateway-{len(started)}.log", list(arguments), **settings)
            started.append(process)
            return process

        yield make
        for process in started:
            if process.process.poll() is None:
                process.process.send_signal(signal.SIGCONT)
                await process.end()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A Valkey with an AOF, in a process of its own."""
    (tmp_path / "redis").mkdir()
    made = Server(tmp_path / "redis")
    await made.start()
    yield made
    made.kill()


def task(target: "Target", path: str = "/hook", **fields: Any) -> dict[str, Any]:
    return {"task": {"url": target.url + path}, **fields}


def ids(target: "Target") -> list[str]:
    return [call["headers"]["X-Task-ID"] for call in target.calls]


async def settled(target: "Target", count: int) -> None:
    """All ``count`` tasks have arrived and none of their calls is open."""
    await until(lambda: len(set(ids(target))) >= count and target.open == 0, GENEROUS)


async def set_client(process: Process, **fields: Any) -> None:
    status, body = await process.call("PUT", "/admin/clients/set", fields)
    assert status == 200, body


async def enqueue(process: Process, body: dict[str, Any], client_id: str = "acme") -> str:
    status, answer = await process.call("POST", "/v1/enqueue", {"client_id": client_id, **body})
    assert status == 201, answer
    return str(answer["task_id"])
