"""The short version of every fault: a few hundred tasks, the fault, the accounts. Over every topology they are in
`make soak`; here what kills gateways is enough."""

from pathlib import Path

import pytest

from .faults import FAULTS, over_topologies, suffer

SHORT = [
    (name, topology)
    for name, topology in over_topologies()
    if topology == FAULTS[name].plan.topology or name == "gateways_killed_and_terminated"
]


@pytest.mark.parametrize(("name", "topology"), SHORT)
async def test_nothing_is_lost_and_no_limit_exceeded(name: str, topology: str, tmp_path: Path) -> None:
    """Accepted is delivered or dead, repeats stay within what the fault cut down, limits and windows hold."""
    accounts = await suffer(FAULTS[name], tmp_path / "run", topology=topology)
    assert accounts.problems() == [], accounts
    assert accounts.delivered > 0
