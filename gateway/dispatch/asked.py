"""Claims on their way: the places that are kept for what one may start, and the answer of one that goes with an
admission."""

import asyncio
from collections.abc import Callable

from gateway.dispatch.claims import Claimed
from gateway.dispatch.lanes import Lane, Lanes

# One more than the task that is admitted: where fewer come than are wanted no more wait, and nobody has to look again.
_WITH_ADMISSION = 2


class Asked:
    """Places of a lane, kept for a claim until it is settled; ``sent`` is the loop's clock before the claim was."""

    __slots__ = ("_lanes", "chances", "lane", "sent", "want")

    def __init__(self, lanes: Lanes, lane: Lane, want: int, now: float) -> None:
        self._lanes = lanes
        self.lane = lane
        self.want = want
        # One suspect at a time: the process dies under the one that kills it, and no other is taken along again.
        self.chances = int(lanes.suspects == 0)
        self.sent = now
        lane.asking += 1
        lanes.promised += want
        lanes.suspects += self.chances

    def settled(self) -> None:
        """It is answered, or lost."""
        self.lane.asking -= 1
        self._lanes.promised -= self.want
        self._lanes.suspects -= self.chances


class AskedWithAdmission:
    """The store's `Places`: what is ``asked`` travels with an admission, whose answer fills them."""

    def __init__(self, asked: Asked, loop: asyncio.AbstractEventLoop) -> None:
        self.asked = asked
        self.want = asked.want
        self.chances = asked.chances
        self._read: asyncio.Future[Callable[[], Claimed | None]] = loop.create_future()

    def fill(self, read: Callable[[], Claimed | None]) -> None:
        """The answer is there; what it started is read in the next turn of the loop, since the caller's comes first."""
        if not self._read.done():  # a drain waits only so long
            self._read.set_result(read)

    async def claimed(self) -> Claimed | None:
        """What was started, None where nothing was looked for."""
        return (await self._read)()


def ask_with_admission(lanes: Lanes, client_id: str, loop: asyncio.AbstractEventLoop) -> AskedWithAdmission | None:
    """Places for a client that has nothing in the process, while nobody else waits for a turn."""
    if lanes.waiting or lanes.find(client_id) is not None or not lanes.wake(client_id):
        return None
    now = loop.time()
    turn = lanes.next_turn(now)
    if turn is None:
        return None
    lane, want = turn
    return AskedWithAdmission(Asked(lanes, lane, min(want, _WITH_ADMISSION), now), loop)
