"""How commands answer: tables and JSON on stdout, errors on stderr without a traceback, and the exit codes
(0 ok, 1 refused, not found or found wrong, 2 usage, 3 out of reach). What is shown is worked out by the commands."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

FAILED = 1
USAGE = 2
UNREACHABLE = 3

Json = Annotated[bool, typer.Option("--json", help="print what the API answered, as JSON")]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class CallFailed(Exception):
    """The call failed; the message says what did and what to type. ``answer`` is the API's body, if any."""

    exit_code = FAILED

    def __init__(self, message: str, *, answer: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.answer = answer
        self.status = status


class Unreachable(CallFailed):
    """Nobody answers, or not now: the same call may go through later."""

    exit_code = UNREACHABLE


class Misused(Exception):
    """The command line is wrong in a way that only the command itself can see."""


def reported(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn the errors of a command into a line on stderr and its exit code."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except CallFailed as problem:
            if kwargs.get("as_json") and problem.answer:
                typer.echo(problem.answer)
            complain(str(problem))
            raise typer.Exit(problem.exit_code) from None
        except Misused as problem:
            complain(str(problem))
            raise typer.Exit(USAGE) from None

    return run


def done(message: str, *, as_json: bool) -> None:
    """What a call did that the API answers with nothing, which is then what ``--json`` prints."""
    if not as_json:
        typer.echo(message)


def show_once(text: str, made: Mapping[str, str], name: str, *, as_json: bool) -> None:
    """A key or secret that was just made (``text`` is the API's answer): alone on standard output, to be piped on."""
    if as_json:
        typer.echo(text)
        return
    typer.echo(made[name])
    typer.echo(f"{made[f'{name}_id']}: keep the {name}, it is not shown again", err=True)


def complain(message: str) -> None:
    """One error, on stderr."""
    typer.echo(f"gateway: {message}", err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal; piped, nothing is cut or wrapped."""
    console().print(grid(columns, rows), highlight=False)


def console() -> Console:
    """Standard output; where it is no terminal, so wide that nothing is cut."""
    made = Console(soft_wrap=False)
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(width=400)


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The table itself, for those who put it beside others."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        # Values come from others: "[red]" in one is text, not markup.
        made.add_row(*(Text(cell) for cell in row))
    return made
