"""`gateway serve` as the command line describes it: every setting is a flag, and the flags win."""

import errno
import json
import socket
import sys
from types import SimpleNamespace

import pytest
import typer
from commands import run
from typer.testing import CliRunner

from gateway.cli import app as cli
from gateway.cli.serve import with_settings_flags
from gateway.settings import SETTINGS, Settings


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
    """serve runs the app with flags over environment, workers under their parent."""
    served: list[Settings] = []

    async def serve_until_stopped(settings: Settings) -> None:
        served.append(settings)

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


@pytest.mark.parametrize(
    ("problem", "right"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "set PORT or ADMIN_PORT to a free one"),
        (PermissionError(errno.EACCES, "not you"), "set PORT or ADMIN_PORT to one that this user may open"),
        (OSError(errno.EADDRNOTAVAIL, "not here"), "set HOST to an address of this machine"),
        (socket.gaierror(socket.EAI_NONAME, "not known"), "set HOST to an address of this machine"),
    ],
)
def test_a_port_that_can_not_be_had_is_told(monkeypatch: pytest.MonkeyPatch, problem: OSError, right: str) -> None:
    """Which setting it is, and what would be right; a file that can't be read is no mistake in a port."""

    async def serve_until_stopped(_settings: Settings) -> None:
        raise problem

    monkeypatch.setitem(sys.modules, "gateway.app", SimpleNamespace(serve=serve_until_stopped))
    monkeypatch.setattr("gateway.log.configure", lambda *_: None)
    told = CliRunner().invoke(cli, ["serve", "--port", "1"])
    assert told.exit_code == 1
    assert told.output.startswith(f"gateway: can't listen on 127.0.0.1:1 ({problem.strerror}); {right}")
    problem.filename = "/a/file"
    assert CliRunner().invoke(cli, ["serve", "--port", "1"]).exception is problem


async def test_version() -> None:
    """version prints it, and as JSON with --json."""
    assert (await run("version")).out == "gateway 0.1.0\n"
    assert json.loads((await run("version", "--json")).out) == {"version": "0.1.0"}
