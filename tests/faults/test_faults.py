"""The short version of every fault: a few hundred tasks, the fault, the accounts. `make soak` runs each over every
topology; here those do that come between a gateway and its Redis."""

from pathlib import Path

import pytest

from .faults import FAULTS, over_topologies, suffer

EVERYWHERE_HERE = ("gateways_killed_and_terminated", "gateway_cut_off", "replies_dropped", "redis_out_of_memory")
SHORT = [
    (name, topology)
    for name, topology in over_topologies()
    if topology == FAULTS[name].plan.topology or name in EVERYWHERE_HERE
]


@pytest.mark.parametrize(("name", "topology"), SHORT)
async def test_nothing_is_lost_and_no_limit_exceeded(name: str, topology: str, tmp_path: Path) -> None:
    """Accepted is delivered or dead, repeats stay within what the fault cut down, limits and windows hold."""
    accounts = await suffer(FAULTS[name], tmp_path / "run", topology=topology)
    assert accounts.problems() == [], accounts
    assert accounts.delivered > 0
