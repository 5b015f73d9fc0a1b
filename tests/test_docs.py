"""The documents, followed as a reader would: every command in them is run, in order, against a real gateway.

What they promise is looked for: in a block, a comment `# → text` is what its output has to contain."""

import re
import sys
import textwrap
import time
from pathlib import Path
from typing import Self

import pytest
from as_user import ROOT, Background, Gateway, Terminal, fetch, free_port, plain_environment, wait_for

from gateway.settings import SETTINGS

FOLLOWED = ("README.md", "docs/migration.md", "docs/troubleshooting.md")
ALL = (
    *FOLLOWED,
    "docs/api.md",
    "docs/internals.md",
    "docs/guarantees.md",
    "docs/monitoring.md",
    "docs/cli.md",
    "docs/security.md",
    "CHANGELOG.md",
)
PROMISE = "# → "
LOOK_AGAIN_SECONDS = 15.0

_BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_GATEWAY = re.compile(r"((?:[A-Z_]+=\S+ )*)make run")
_TARGET = "python3 deploy/target.py 9000"
_CHANGES_SOMETHING = re.compile(r" -X | -d |seed_clients")
_ARRIVES = re.compile(r"`(POST /[^`]+)`")


def blocks(document: str) -> list[str]:
    """The document's shell blocks, in order."""
    text = (ROOT / document).read_text()
    return [textwrap.dedent(found[2]).strip() for found in _BLOCK.finditer(text)]


def squeezed(text: str) -> str:
    """JSON with or without a space after the colon is the same to a reader."""
    return text.replace('": ', '":')


class Reader:
    """Someone with three terminals: one for the target, one for the gateway, one for everything else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._target_port = free_port()
        self._gateway = Gateway(folder)
        self._target: Background | None = None
        self._terminal = Terminal(
            plain_environment(GATEWAY_URL=self._gateway.url, GATEWAY_DATA_DIR=str(folder / "data"))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.__exit__(None, None, None)
        try:
            self._gateway.stop()
        finally:
            if self._target is not None:
                self._target.stop()

    def here(self, text: str) -> str:
        """The text with the ports of this run in place of the documents' ones."""
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self._gateway.port}")
        return text.replace("127.0.0.1:9000", f"127.0.0.1:{self._target_port}")

    def follow(self, block: str) -> None:
        """Does what one block says, and looks for what it promises."""
        if started := _GATEWAY.fullmatch(block):
            self._gateway.stop()
            self._gateway.start(**dict(part.split("=", 1) for part in self.here(started[1]).split()))
        elif block == _TARGET:
            command = [sys.executable, "deploy/target.py", str(self._target_port)]
            target = self._target = Background(command, self._folder / "target.log", plain_environment())
            url = f"http://127.0.0.1:{self._target_port}/"
            wait_for(lambda: target.ended or fetch(url)[0] == 200, "the target answers")
        else:
            self._type(block)

    def _type(self, block: str) -> None:
        promised = [line.removeprefix(PROMISE) for line in block.splitlines() if line.startswith(PROMISE)]
        command = self.here(block)
        deadline = time.monotonic() + LOOK_AGAIN_SECONDS
        while True:
            code, output = self._terminal.run(command)
            kept = code == 0 and all(squeezed(text) in squeezed(output) for text in promised)
            # A reader who only looks may look again a moment later; one who changes something does it once.
            if kept or _CHANGES_SOMETHING.search(block) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert kept, f"exit code {code} of\n{block}\nprinted\n{output}"

    def received(self) -> str:
        """What the target has printed."""
        return self._target.text() if self._target is not None else ""


@pytest.mark.parametrize("document", FOLLOWED)
def test_every_command_of_a_document_does_what_it_says(document: str, tmp_path: Path) -> None:
    """A reader who types every command, in order, sees what the page promises, also at the target."""
    with Reader(tmp_path) as reader:
        for block in blocks(document):
            reader.follow(block)
        for call in _ARRIVES.findall((ROOT / document).read_text()):
            wait_for(lambda call=call: call in reader.received(), f"the target prints {call}")  # type: ignore[misc]


def test_readme_delivers_refuses_and_restarts() -> None:
    """The README's five minutes contain a delivery, a refused eleventh request and a restart with a task
    waiting, so that following them proves these."""
    text = (ROOT / "README.md").read_text()
    assert len(_ARRIVES.findall(text)) >= 2
    assert f"{PROMISE}{'201 ' * 10}429" in text
    assert sum(bool(_GATEWAY.fullmatch(block)) for block in blocks("README.md")) == 2


@pytest.mark.parametrize("document", FOLLOWED)
def test_every_block_promises_something(document: str) -> None:
    """No command is shown without what it prints, except starts and one that only fills a variable."""
    for block in blocks(document):
        starts = _GATEWAY.fullmatch(block) or block == _TARGET
        assert starts or PROMISE in block or "=$(" in block or '"delay"' in block, block


@pytest.mark.parametrize("document", ALL)
def test_links_lead_somewhere(document: str) -> None:
    """Every relative link of the documents names a file of the repository."""
    place = ROOT / document
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", place.read_text()):
        if "://" not in link:
            assert (place.parent / link).exists(), link


def table_of_settings(document: str) -> list[str]:
    """Its rows below the head; a link leads to the same page from wherever it stands."""
    table = (ROOT / document).read_text().split("| setting | default |", 1)[1].split("\n\n", 1)[0]
    return [row.replace("](docs/", "](") for row in table.splitlines() if row.startswith("| `")]


def settings_in(document: str) -> set[str]:
    """The names in the first column of the table of settings."""
    first_columns = [row.split("|")[1] for row in table_of_settings(document)]
    return {name for cell in first_columns for name in re.findall(r"`([A-Z_]+)`", cell)}


def test_readme_and_contract_say_the_same_of_settings() -> None:
    """The README's table of settings has not drifted from the contract's, in no word."""
    assert table_of_settings("README.md") == table_of_settings("docs/api.md")


def test_every_setting_of_the_table_exists() -> None:
    """A reader who sets what the table names sets something that the gateway reads."""
    source = (ROOT / "gateway/settings/table.py").read_text().lower()
    missing = [name for name in sorted(settings_in("README.md")) if name.lower() not in source]
    assert not missing


def test_every_setting_is_in_the_readme() -> None:
    """A reader finds there whatever can be set, flags that are no settings too."""
    text = (ROOT / "README.md").read_text()
    named = {setting: setting.flag if setting.flag_only else f"`{setting.name}`" for setting in SETTINGS}
    assert [setting.name for setting, shown in named.items() if shown not in text] == []


def test_make_targets_of_the_readme_exist() -> None:
    """`make` knows every target that the documents mention."""
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in FOLLOWED for name in re.findall(r"`make ([a-z]+)`", (ROOT / page).read_text())}
    assert named <= known, named - known
