"""What an answer waits for beside Redis's own reply: DURABILITY, as WAIT or WAITAOF on a connection of its own.

WAIT does nothing inside a script, and it holds up what comes after it on its connection. So admissions and claims have
links that end each flush with one, and finishing and renewing never share them.
"""

from typing import Any

from gateway.settings import Settings
from gateway.store.link import Confirmation


def confirmation(settings: Settings) -> Confirmation | None:
    """How a flush ends under these settings, None where Redis's reply is enough."""
    replicas, milliseconds = settings.durability_replicas, int(settings.durability_timeout * 1000)
    if settings.durability == "none":
        return None

    def by_replicas(reply: Any) -> bool:
        return bool(reply >= replicas)

    def by_disks(reply: Any) -> bool:
        return bool(reply[0] >= 1 and reply[1] >= replicas)

    # Both count from this connection's last write: where an answer tells what another wrote, its script writes, too.
    if settings.durability == "wait":
        return Confirmation(("WAIT", replicas, milliseconds), by_replicas, settings.durability_timeout)
    return Confirmation(("WAITAOF", 1, replicas, milliseconds), by_disks, settings.durability_timeout)
