"""The listeners of a process: its ports, their TLS, and the files that are to be looked at while they are served."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from aiohttp import web

from gateway.certificates import Certificates
from gateway.keys import AppKeys
from gateway.middleware.listening import Runner
from gateway.reloading import WatchedFiles
from gateway.settings import Settings
from gateway.workers import WORKER

REQUEST_SECONDS: Final = 3.0  # what open requests get at a stop; with the drain it stays below Kubernetes's 30 s
HANDSHAKE_SECONDS: Final = 10.0  # as for the head of a request; asyncio's own is a minute


class Listener(NamedTuple):
    """An application on a port of its own. ``admin``: it is for operators alone."""

    app: web.Application
    port: int
    admin: bool


class _Site(web.TCPSite):
    """With a deadline for TLS handshakes, which aiohttp has no word for."""

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._ssl_context else None,
            backlog=self._backlog,
            reuse_port=self._reuse_port,
        )


async def listen(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    listeners: list[Listener],
    add_own: Callable[[str, int], None],
) -> tuple[list[str], list[WatchedFiles]]:
    """Open them until the stack closes. The values are their URLs, and what is to be looked at; ``add_own`` is told
    each address. Raises OSError where a port can't be had."""
    urls = []
    watched: list[WatchedFiles] = []
    for app, port, admin in listeners:
        runner = Runner(app, shutdown_timeout=REQUEST_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        certificates = _certificates(settings, app, admin=admin)
        context = certificates.context if certificates else None
        site = _Site(runner, settings.host, port, ssl_context=context, reuse_port=WORKER in os.environ or None)
        await site.start()
        for address in runner.addresses:
            add_own(str(address[0]), int(address[1]))
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        urls.append(f"{'https' if certificates else 'http'}://{shown}:{runner.addresses[0][1]}")
        watched += app[AppKeys.KEYRING].files if AppKeys.KEYRING in app else ()
        watched += [certificates.files] if certificates else []
    return urls, watched


def _certificates(settings: Settings, app: web.Application, *, admin: bool) -> Certificates | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    # Only a listener that has /admin asks for certificates, and demands them only where nobody else comes: not of
    # clients, nor of what asks --admin-only for its health. There the guards of /admin look for one.
    client_ca = settings.admin_tls_client_ca if AppKeys.KEYRING in app else None
    return Certificates(settings.tls_cert, settings.tls_key, client_ca, required=admin and not settings.admin_only)
