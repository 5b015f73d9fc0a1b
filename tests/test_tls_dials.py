"""Connections to Redis over TLS that were given up: no descriptor is left of them, whatever the other side does."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from certificates import Authority
from conftest import until

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.connection import SingleRedis
from gateway.store.link import Dial

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
DIALS = 20
TURNS = range(16)  # of the loop; by then a dial on loopback waits for the server's first answer
MORE_THAN_ENOUGH = 20  # seconds; both kinds of loop would wait 30 for TLS to be closed in order


class Stalled:
    """A server that takes connections, begins TLS on them where ``speaks`` is set, and does nothing more ever."""

    def __init__(self, authority: Authority, *, speaks: bool) -> None:
        self._context = authority.context if speaks else None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.kept: list[socket.socket] = []
        self.left = 0
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):  # the listener is shut
            while True:
                taken, _ = self._listener.accept()
                taken.settimeout(MORE_THAN_ENOUGH)
                try:
                    self.kept.append(self._context.wrap_socket(taken, server_side=True) if self._context else taken)
                except (OSError, ssl.SSLError):  # it was given up before TLS had begun
                    taken.close()
                    self.left += 1

    def taken(self) -> int:
        """How many have been dialled so far."""
        return len(self.kept) + self.left

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (*self.kept, self._listener):
            each.close()


@contextlib.contextmanager
def stalled(authority: Authority, *, speaks: bool) -> Iterator[Stalled]:
    made = Stalled(authority, speaks=speaks)
    try:
        yield made
    finally:
        made.close()


async def dialling(server: Stalled, authority: Authority, patience: float) -> Dial:
    """What dials the server as the gateway does, for so many seconds."""
    url = f"rediss://127.0.0.1:{server.port}"
    settings = Settings.load({"REDIS_URL": url, "REDIS_CONNECT_TIMEOUT": str(patience), **authority.environment})
    [(dial, _)] = await SingleRedis(settings, url).homes(["any"])
    return dial


async def ready(server: Stalled, authority: Authority) -> int:
    """How many descriptors there are before it begins; a loop opens some for itself when they are first needed."""
    await give_up(await dialling(server, authority, 0.2))
    return ours(server)


async def give_up(dial: Dial) -> None:
    """Dial until the deadline."""
    with pytest.raises((TimeoutError, StoreUnavailable)):
        await dial()


def ours(server: Stalled) -> int:
    """How many descriptors this process has open, but for the server's."""
    return len(os.listdir("/proc/self/fd")) - len(server.kept)


async def gone(server: Stalled, before: int) -> None:
    """Wait until there are no more descriptors than before."""
    await until(lambda: ours(server) <= before, MORE_THAN_ENOUGH, lambda: f"{ours(server) - before} are left")


async def run_into_the_deadline(server: Stalled, authority: Authority) -> None:
    before = await ready(server, authority)
    dial = await dialling(server, authority, 0.2)
    await asyncio.gather(*(give_up(dial) for _ in range(DIALS)))
    await until(lambda: server.taken() == 1 + DIALS, MORE_THAN_ENOUGH)
    await gone(server, before)


async def be_cancelled(server: Stalled, authority: Authority) -> None:
    before = await ready(server, authority)
    dial = await dialling(server, authority, 2 * MORE_THAN_ENOUGH)
    for turns in TURNS:
        task = asyncio.ensure_future(dial())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await gone(server, before)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("speaks", [False, True])
@pytest.mark.parametrize("end", [run_into_the_deadline, be_cancelled])
def test_a_dial_that_is_given_up_leaves_no_descriptor(tmp_path: Path, loop: Any, end: Any, *, speaks: bool) -> None:
    """By its deadline or from outside, in the handshake or after it: the socket is closed at once, and is not kept for
    the half minute that closing TLS in order may take."""
    authority = Authority(tmp_path)
    with stalled(authority, speaks=speaks) as server, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(end(server, authority))
