"""One client's backlog is not another's wait."""

from pathlib import Path

import pytest

from .isolation import beside


@pytest.mark.parametrize("at_cap", [False, True])
async def test_a_stuck_backlog_holds_nobody_up(tmp_path: Path, at_cap: bool) -> None:
    """A client's tasks all start while others' calls hang: beside one deep backlog, in a process that five fill."""
    # The tenth that is kept for clients with nothing open must be more than the five that fill the process.
    _, crowded = await beside(tmp_path / "run", backlog=500, samples=20, interval=0.05, at_cap=at_cap, in_flight=100)
    assert len(crowded.seconds) == 20
