"""The short version of every fault: a few hundred tasks, the fault, the accounts."""

from pathlib import Path

import pytest

from .faults import FAULTS, suffer


@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_is_lost_and_no_limit_exceeded(name: str, tmp_path: Path) -> None:
    """Accepted is delivered or dead, repeats stay within what the fault cut down, limits and windows hold."""
    accounts = await suffer(FAULTS[name], tmp_path / "run")
    assert accounts.problems() == [], accounts
    assert accounts.delivered > 0
