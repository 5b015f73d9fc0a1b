"""Commands whose flags come from a table: to typer each is a parameter, to the command all of them are one argument."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any


def flag(name: str, annotation: Any) -> inspect.Parameter:
    """A flag as typer reads it, None where it is not typed."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def with_flags(command: Callable[..., None], flags: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """The command with these flags besides its own; its first argument is the values of those that were typed, by
    name."""
    names = {each.name for each in flags}
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        typed = {name: value for name, value in given.items() if name in names and value is not None}
        command(typed, **{name: value for name, value in given.items() if name not in names})

    # typer reads a command's options from its signature and its annotations.
    before = [each for each in own if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    after = [each for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY]
    run.__signature__ = inspect.Signature([*before, *flags, *after])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*before, *flags, *after)}
    return run
