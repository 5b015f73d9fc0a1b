"""The command line as a whole: its document, its completion in real shells, its help."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from as_user import BIN, ROOT, plain_environment

from gateway.cli import app

ROW = re.compile(r"^\| `gateway ([^`]*)` \|", re.MULTILINE)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, by the words that lead to it."""
    if path and (not hasattr(group, "commands") or group.invoke_without_command):
        yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def parsed(words: list[str]) -> tuple[str, ...]:
    """The command that these words call, every flag and argument of it checked; nothing is run."""
    command: Any = typer.main.get_command(app)
    path: tuple[str, ...] = ()
    parent = None
    while hasattr(command, "commands") and words and words[0] in command.commands:
        path = (*path, words[0])
        command, words = command.commands[words[0]], words[1:]
    with command.make_context(" ".join(path), words, parent):
        return path


def test_the_document_lists_every_command() -> None:
    """docs/cli.md has an example of each command there is, each is one that would be understood, and there are no
    others."""
    shown = [shlex.split(row) for row in ROW.findall((ROOT / "docs/cli.md").read_text())]
    assert {parsed(words) for words in shown} == set(commands(typer.main.get_command(app)))


def test_every_command_that_asks_the_api_has_json() -> None:
    """--json is everywhere but where a service runs."""
    root: Any = typer.main.get_command(app)
    for path in commands(root):
        command = root
        for name in path:
            command = command.commands[name]
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert ("--json" in flags) == (path != ("serve",)), path


def script(shell: str) -> str:
    """The completion script as a package would make it."""
    done = subprocess.run(
        [BIN / "gateway"],
        env=plain_environment(_GATEWAY_COMPLETE=f"source_{shell}"),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def typed(shell: list[str], text: str) -> str:
    """What the shell prints of these lines, both streams."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    done = subprocess.run(
        shell,
        input=text,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [("gateway clients p", "pause"), ("gateway tasks list --state queued,r", "queued,running queued,retrying")],
)
def test_bash_completes(line: str, offered: str) -> None:
    """What a user gets who types this and the tab key: commands, and the states of tasks."""
    last = len(line.split()) - 1
    words = f"COMP_WORDS=({line}); COMP_CWORD={last}; _gateway_completion gateway; echo ${{COMPREPLY[@]}}"
    assert typed(["bash", "--norc"], f"{script('bash')}\n{words}\n") == f"{offered}\n"


def test_bash_shows_its_script() -> None:
    """What --show-completion prints there is what completes."""
    assert "complete -o default -F _gateway_completion gateway" in typed(["bash", "-i"], "gateway --show-completion\n")


def test_fish_completes() -> None:
    """The same in fish, which asks with its own command."""
    told = typed(["fish", "--no-config"], f"{script('fish')}\ncomplete --do-complete 'gateway clients p'\n")
    assert [line.split("\t")[0] for line in told.splitlines()] == ["pause"]


def test_zsh_takes_the_script() -> None:
    """zsh parses it and registers the function for the command."""
    lines = f"autoload -U compinit && compinit -D\n{script('zsh')}\nprint $_comps[gateway]\n"
    assert typed(["zsh", "-f"], lines).splitlines()[-1:] == ["_gateway_completion"]
