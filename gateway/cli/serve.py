"""`gateway serve`, and the flags that it and `gateway check` take: one for each row of the settings table.
What is served is put together in `gateway.app`."""

import errno
import functools
import inspect
import os
import socket
import sys
from collections.abc import Callable
from typing import Annotated, Any

import structlog
import typer
import uvloop

from gateway import parsing, redaction
from gateway.cli.flags import flag, with_flags
from gateway.cli.output import CallFailed, Misused, reported
from gateway.settings import SETTINGS, Setting, Settings, SettingsError
from gateway.store.embedded import EmbeddedError

# What would be right where a port can't be had.
_OTHER_HOST = "HOST to an address of this machine"
_CANNOT_LISTEN = {
    errno.EADDRINUSE: "PORT or ADMIN_PORT to a free one",
    errno.EACCES: "PORT or ADMIN_PORT to one that this user may open (1024 and more)",
    errno.EADDRNOTAVAIL: _OTHER_HOST,
}


def with_settings_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting; its first argument is those typed, by setting name."""
    settings = {setting.name.lower(): setting for setting in SETTINGS}

    @functools.wraps(command)
    def run(typed: dict[str, Any], **own: Any) -> None:
        flags = {
            settings[name].name: str(value).lower() if isinstance(value, bool) else value
            for name, value in typed.items()
        }
        command(flags, **own)

    return with_flags(run, [_flag(name, setting) for name, setting in settings.items()])


def _flag(name: str, setting: Setting) -> inspect.Parameter:
    # Its default is not typer's: what is not typed is left to the environment, and to the table after it.
    shown = f"{setting.help} [{setting.default}]" if setting.default else setting.help
    kind: Any = str | None
    metavar: str | None = "TEXT"
    declared = setting.flag
    if setting.parse is parsing.boolean:
        kind, metavar = bool | None, None
        declared = setting.flag if setting.flag_only else f"{setting.flag}/--no-{setting.flag[2:]}"
    return flag(name, Annotated[kind, typer.Option(declared, help=shown, show_default=False, metavar=metavar)])


def load(flags: dict[str, str]) -> Settings:
    """The settings of the environment and the flags; raises `Misused` with every mistake."""
    try:
        settings = Settings.load(os.environ, flags, terminal=sys.stderr.isatty())
    except SettingsError as problem:
        lines = "\n  ".join(problem.mistakes)
        msg = f"these settings can't be used:\n  {lines}"
        raise Misused(msg) from None
    redaction.protect(settings.secrets)
    return settings


@with_settings_flags
@reported
def serve(flags: dict[str, str]) -> None:
    """Run the gateway. Every flag is also an environment variable (--max-in-flight is MAX_IN_FLIGHT)."""
    settings = load(flags)
    # Imported here: no other command should take the time to load the server.
    from gateway import log  # noqa: PLC0415 - see above
    from gateway.app import serve as serve_until_stopped  # noqa: PLC0415 - see above
    from gateway.workers import supervise  # noqa: PLC0415 - see above

    log.configure(settings.log_level, settings.log_format)
    for warning in settings.warnings:
        structlog.get_logger().warning("setting_ignored", message=warning)
    try:
        if settings.workers > 1:
            code = supervise(settings, sys.argv[1:])
        else:
            code = 0
            uvloop.run(serve_until_stopped(settings))
    except EmbeddedError as problem:
        raise CallFailed(str(problem)) from None
    except OSError as problem:
        # Others are no mistake of the operator's: their traceback is needed.
        right = _OTHER_HOST if isinstance(problem, socket.gaierror) else _CANNOT_LISTEN.get(problem.errno or 0)
        if right is None or problem.filename is not None:
            raise
        where = f"{settings.host}:{settings.port}" + (f" or port {settings.admin_port}" if settings.admin_port else "")
        msg = f"can't listen on {where} ({problem.strerror}); set {right}"
        raise CallFailed(msg) from None
    raise typer.Exit(code)
