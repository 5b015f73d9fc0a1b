"""docs/security.md: every line of the threat model names tests that are there, and what it says of warnings is so."""

import re

import pytest
from as_user import ROOT

from gateway.settings import SETTINGS

PAGE = (ROOT / "docs/security.md").read_text()
MODEL = PAGE.split("## Threat model", 1)[1].split("### What it does not hold against", 1)[0]


def lines() -> list[str]:
    """The rows of the threat model's tables, without heads."""
    rows = [row for row in MODEL.splitlines() if row.startswith("| ")]
    return [row for row in rows if not row.startswith(("| ---", "| tries |"))]


@pytest.mark.parametrize("line", lines(), ids=lambda line: line[2:60])
def test_each_line_is_attacked(line: str) -> None:
    """The last column names tests, and each of them exists under that name."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", line.split("|")[-2])
    assert named
    for file, test in named:
        source = (ROOT / "tests" / file).read_text()
        assert re.search(rf"^(?:async )?def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_every_position_has_its_lines() -> None:
    """Clients, targets, neighbours, a leaked read-only key and readers of Redis each have a table."""
    assert len(MODEL.split("\n### ")) - 1 == 5
    assert all(part.count("\n| ") >= 5 for part in MODEL.split("\n### ")[1:])


def test_the_page_lists_every_warning_of_the_start() -> None:
    """Each event that a start may warn with is on the page, and no other is."""
    events = set(re.findall(r'Exposure\(\s*"(\w+)"', (ROOT / "gateway/exposure.py").read_text()))
    listed = PAGE.split("Whatever opens more says so at the start", 1)[1].split("No such line", 1)[0]
    assert len(events) > 10
    assert set(re.findall(r"`([a-z_]+)`", listed)) == events


def test_the_settings_of_the_page_exist() -> None:
    """What a reader is told to set can be set."""
    known = {setting.name for setting in SETTINGS}
    named = set(re.findall(r"`([A-Z][A-Z_]+[A-Z])(?:=\S*)?`", PAGE))
    assert len(named) > 15
    assert named <= known, named - known
