"""`gateway stats` and `gateway top`: all clients at a look, once or live. What is shown is worked out in `picture`."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from gateway.cli.admin_api import AdminApi, Answer
from gateway.cli.output import CallFailed, Json, console, reported
from gateway.cli.picture import Ranking, facts, rankings, trend

Most = Annotated[int, typer.Option("--limit", min=1, max=10, help="at most so many of each")]

_LEAVE = ("q", "Q", "\x04")
_ASCII_BARS = ".:-=+*#@"
_WIDE = 110  # columns; below that the panels stand under each other
_TALL = 36  # lines; below that the trend gives way
_LEAST = 5  # lines of a panel that says something


@reported
def stats(limit: Most = 5, as_json: Json = False) -> None:
    """Show who is refused, what waits, and what fails."""
    with AdminApi() as api:
        answer = _overview(api)
    _print(answer, limit, as_json=as_json)


@reported
def top(
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="seconds between two looks")] = 2.0,
    limit: Most = 5,
    as_json: Json = False,
) -> None:
    """The same live, until q or Ctrl-C. Once where the output is no terminal."""
    with AdminApi() as api:
        answer = _overview(api)
        out = console()
        if as_json or not out.is_terminal:
            _print(answer, limit, as_json=as_json)
            return
        _watch(api, out, answer, interval, limit)


def _overview(api: AdminApi) -> Answer:
    return api.call("GET", "/admin/overview")


def _print(answer: Answer, most: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
        return
    out = console()
    out.print(Text(f"at {answer.data['at']}"), facts(answer.data), sep="\n", highlight=False)
    for ranking in rankings(answer.data, most):
        out.print("", Text(ranking.title, style="bold underline"), ranking.table(), sep="\n", highlight=False)


def _watch(api: AdminApi, out: Console, answer: Answer, interval: float, most: int) -> None:
    """Look again and again; a gateway that is away meanwhile is waited for, with the last figures on the screen."""
    trouble = ""
    # However it ends, the terminal gets its screen and its echo back.
    signal.signal(signal.SIGTERM, _leave)
    live = Live(console=out, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), live, _keys() as key:
        while True:
            live.update(_screen(answer.data, out, trouble, most), refresh=True)
            if key(interval).startswith(_LEAVE):
                return
            try:
                answer, trouble = _overview(api), ""
            except CallFailed as problem:
                trouble = str(problem)


def _leave(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What waits for a key, so many seconds at most; "" where none was hit. Without a terminal to type in it only
    waits."""
    if not sys.stdin.isatty():
        yield _wait
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def key(seconds: float) -> str:
        if not select.select([terminal], [], [], seconds)[0]:
            return ""
        return os.read(terminal, 16).decode(errors="replace") or "q"  # nothing to read: the terminal has gone

    try:
        tty.setcbreak(terminal)
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _screen(seen: dict[str, Any], out: Console, trouble: str, most: int) -> Layout:
    """As much as the terminal has room for; who is refused, who waits and what fails come before the trend."""
    bars = {} if out.encoding.startswith("utf") else {"bars": _ASCII_BARS}
    lines: list[RenderableType] = [facts(seen)]
    if out.height >= _TALL:
        lines += [Rule(style="dim"), trend(seen, out.width - 35, **bars)]
    head = Panel(Group(*lines), title=f"gateway at {seen['at']}", title_align="left")
    size = min(len(out.render_lines(head)), out.height - 1)
    rest = out.height - size - 1
    parts = [Layout(head, size=size), Layout(_footer(seen, trouble), size=1)]
    if rest >= _LEAST:
        parts.insert(1, _body(rankings(seen, most), rest // (most + 3), columns=2 if out.width >= _WIDE else 1))
    screen = Layout()
    screen.split_column(*parts)
    return screen


def _body(found: list[Ranking], stacked: int, *, columns: int) -> Layout:
    """The first ones side by side, at most so many upon each other."""
    panels = [Layout(Panel(ranking.table(), title=ranking.title, title_align="left")) for ranking in found]
    shown = panels[: max(1, stacked) * columns]
    body = Layout()
    body.split_row(*(_stack(shown[side::columns]) for side in range(columns)))
    return body


def _stack(panels: list[Layout]) -> Layout:
    made = Layout()
    made.split_column(*panels)
    return made


def _footer(seen: dict[str, Any], trouble: str) -> Text:
    if trouble:
        return Text(f"figures of {seen['at']}: {trouble}", style="bold red", no_wrap=True, overflow="ellipsis")
    return Text("q or Ctrl-C: leave · any other key: look now", style="dim", no_wrap=True)
