"""`gateway stats` and `gateway top` against a whole gateway; `top` in a terminal of its own."""

import asyncio
import contextlib
import doctest
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, DEADLINE, Gateway, GatewayFactory, Target, until
from proxy import proxy_to
from test_overview import work

from gateway.cli import picture
from gateway.store.counting import Booking
from gateway.store.replicas import Replica

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"  # the terminal's other screen
TITLES = ("refused most", "waiting longest", "failures of", "failed most", "failing targets")


@pytest.fixture
async def busy(gateway: GatewayFactory, target: Target) -> Gateway:
    """A gateway with a client that is refused, waits and fails."""
    gw = await gateway()
    await work(gw, target)
    await Booking(gw.store.usages).flush()
    most = gw.settings.max_in_flight
    alive = Replica(name="here-1", version="1", role="all", started_at=0, seen_at=0, in_flight=0, max_in_flight=most)
    await gw.store.replicas.beat(alive)
    return gw


def env(gw: Gateway) -> dict[str, str]:
    return {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}


def test_the_examples_hold() -> None:
    """What the docstrings say."""
    assert doctest.testmod(picture).failed == 0


async def test_one_look(busy: Gateway, target: Target) -> None:
    """Who is refused most, what waits longest and why, and what failed are on one page; --json is what the API
    answered, and top without a terminal is the same page."""
    ran = await run("stats", env=env(busy))
    assert (ran.code, ran.err) == (0, "")
    lines = {line.split("  ")[0].strip(): " ".join(line.split()) for line in ran.out.splitlines()}
    assert lines["tasks"].endswith(f"1 queued, 1 scheduled, 1 of {busy.settings.max_in_flight} in flight, 1 dead")
    assert lines["clients"] == "clients 3 known, 1 disabled, 2 with tasks"
    assert "1 at their concurrency, 1 at their window" in lines["limits"]
    assert lines["last hour"].startswith("last hour 5 admitted, 2 refused, 1 delivered, 1 failed, p50")
    assert "of acme in default waits for" in lines["oldest"]
    assert [title for title in TITLES if title in ran.out] == list(TITLES)
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["acme", "default", "2", "4"] in rows
    assert ["410", "1"] in rows
    assert [target.url.removeprefix("http://"), "1"] in rows
    told = json.loads((await run("stats", "--json", env=env(busy))).out)
    assert told.keys() == (await busy.admin("GET", "/admin/overview"))[1].keys()
    top = await run("top", env=env(busy))
    assert top.code == 0
    assert top.out.splitlines()[1].split() == ran.out.splitlines()[1].split()
    assert json.loads((await run("top", "--json", env=env(busy))).out)["totals"] == told["totals"]


async def test_nobody_answers() -> None:
    """Out of reach from the start: no screen, exit code 3, what to type."""
    ran = await run("top", env={"GATEWAY_URL": "http://127.0.0.1:1"})
    assert (ran.code, ran.out) == (3, "")
    assert "set GATEWAY_URL" in ran.err


class Screen:
    """A terminal with a command in it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, slave: int) -> None:
        self.process = process
        self.slave = slave
        self._master = master
        self.output = bytearray()

    def read(self) -> None:
        """What has come since."""
        with contextlib.suppress(OSError):  # the other side has gone
            self.output += os.read(self._master, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    async def shows(self, *texts: str) -> None:
        """Wait until all of them were printed."""
        await until(lambda: all(text.encode() in self.output for text in texts), 3 * DEADLINE)

    async def left(self) -> int:
        """The exit code; the screen and the terminal's settings are as they were."""
        code = await asyncio.wait_for(asyncio.to_thread(self.process.wait), DEADLINE)
        await until(lambda: self.output.count(LEAVE) == 1)
        assert self.output.count(ENTER) == 1
        assert self.output.rindex(b"\x1b[?25h") > self.output.rindex(b"\x1b[?25l"), "the cursor is shown again"
        assert self.attributes()[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON
        return code

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)


@contextlib.asynccontextmanager
async def terminal(
    gw: Gateway, *arguments: str, lines: int = 45, columns: int = 130, **more: str
) -> AsyncIterator[Screen]:
    """`gateway top` in a terminal of this size, in this environment."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "top", *arguments],
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"} | env(gw) | more,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    screen = Screen(process, master, slave)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, screen.read)
    try:
        yield screen
    finally:
        loop.remove_reader(master)
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


async def test_top_lives_and_leaves(busy: Gateway, target: Target) -> None:
    """The panels fill the terminal, a key makes it look at once, q leaves with the terminal as it was."""
    async with terminal(busy, "--interval", "3600") as screen:
        await screen.shows(*TITLES, "q or Ctrl-C", "a minute", "1 queued")
        assert not screen.attributes()[3] & termios.ECHO
        assert (await busy.enqueue({"client_id": "hooli", "delay": 60, "task": {"url": target.url}}))[0] == 201

        async def looked() -> bool:
            await busy.store.figured.look()
            screen.type(b" ")
            await asyncio.sleep(0.1)
            return b"2 scheduled" in screen.output

        await until(looked)
        screen.type(b"q")
        assert await screen.left() == 0


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
async def test_top_leaves_on_signals(busy: Gateway, how: signal.Signals, code: int) -> None:
    """Ctrl-C is a way out like q, and kill leaves no terminal behind that shows nothing."""
    async with terminal(busy, lines=15, columns=60) as screen:
        await screen.shows("q or Ctrl-C")
        screen.process.send_signal(how)
        assert await screen.left() == code
        assert b"Traceback" not in screen.output


async def test_top_outlives_the_gateway(busy: Gateway) -> None:
    """A gateway that stops answering is said to, with the last figures still on the screen, and is waited for."""
    async with proxy_to(("127.0.0.1", int(busy.url.rpartition(":")[2]))) as line:
        away = f"http://127.0.0.1:{line.port}"
        async with terminal(busy, "--interval", "0.2", GATEWAY_URL=away) as screen:
            await screen.shows("refused most", "q or Ctrl-C")
            line.down = 0
            line.cut()
            await screen.shows(f"no gateway answers at {away}")
            line.down = None
            told = screen.output.count(b"q or Ctrl-C")
            await until(lambda: screen.output.count(b"q or Ctrl-C") > told)
            screen.type(b"q")
            assert await screen.left() == 0
