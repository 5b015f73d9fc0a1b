"""What a claim took, read from the reply of the script that took it."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from gateway.models import ClaimedTask
from gateway.store.records import claimed, unreadable

log = structlog.get_logger()

_ROW: Final = 5


class Claimed(msgspec.Struct, frozen=True):
    """What one claim took. ``more``: there is more to claim; ``limit``: the client's max_concurrent by Redis."""

    tasks: list[ClaimedTask]
    limit: int
    more: bool
    in_flight: int


def read_claimed(client_id: str, reply: list[Any], now: int, ready: Callable[[ClaimedTask], ClaimedTask]) -> Claimed:
    """What claim.lua says of a client at ``now``, Redis's clock in ms; ``ready`` opens each task for its call. One that
    can't be read is a task that can't be called, and nobody else's affair."""
    limit, in_flight, more = reply[:3]
    tasks = []
    for at in range(3, len(reply), _ROW):
        row = reply[at : at + _ROW]
        try:
            task = ready(claimed(client_id, row, now))
        except ValueError as error:
            task = unreadable(client_id, row, now)
            log.error("task_unreadable", client=client_id, task=task.task_id, error=str(error))
        tasks.append(task)
    return Claimed(tasks, limit, bool(more), in_flight)
