"""What a claim took, read from the reply of the script that took it."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.models import ClaimedTask
from gateway.store.records import claimed

_ROW: Final = 5


class Claimed(msgspec.Struct, frozen=True):
    """What one claim took. ``more``: there is more to claim; ``limit``: the client's max_concurrent by Redis."""

    tasks: list[ClaimedTask]
    limit: int
    more: bool
    in_flight: int


def read_claimed(client_id: str, reply: list[Any], now: int, ready: Callable[[ClaimedTask], ClaimedTask]) -> Claimed:
    """What claim.lua says of a client at ``now``, Redis's clock in ms; ``ready`` opens each task for its call."""
    limit, in_flight, more = reply[:3]
    tasks = [ready(claimed(client_id, reply[at : at + _ROW], now)) for at in range(3, len(reply), _ROW)]
    return Claimed(tasks, limit, bool(more), in_flight)
