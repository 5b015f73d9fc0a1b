"""Who may take the next free place of the process: lanes of clients with work, their turns, the room.
Plain bookkeeping of one event loop, without I/O; `dispatcher` acts on it.
"""

import asyncio
import math
from collections import deque

from gateway.models import ClaimedTask, Outcome

# At most this many places go to one client in one turn, so that a deep backlog waits for its next turn like
# others.
TURN = 32
# At least so many places are worth a turn of a lane whose calls are short, whoever else waits: what is claimed together
# ends together, and costs Redis a third. Its turn then ends as soon as that of others with a place each.
QUANTUM = 16
SHORT_SECONDS = 0.1
# Where no short call gave up a place for so long, what is kept for newcomers goes to whoever has nothing open.
STUCK_SECONDS = 0.1
# Lanes waiting for a turn; the ready set keeps the names of those past it, and the poll brings them back.
MAX_TURNS = 10_000


class LaneSemaphore(asyncio.Semaphore):
    """A semaphore whose size follows the client's limit; taking places away waits for them to be released."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        self._owed = 0

    def resize(self, size: int) -> None:
        """Make ``size`` places of it, in time that does not grow with the size; never interrupts who holds one."""
        grow, self.size = size - self.size, size
        self._owed -= grow
        waiting = sum(not waiter.done() for waiter in self._waiters or ())
        for _ in range(min(-self._owed, waiting)):
            self._owed += 1
            super().release()
        if self._owed < 0 or not self.locked():
            taken = min(self._owed, self._value)
            self._value -= taken
            self._owed -= taken

    def take(self) -> bool:
        """A place at once, or none: `acquire` without its task, for nearly every call."""
        if self._value <= 0 or self._waiters:
            return False
        self._value -= 1
        return True

    def release(self) -> None:
        if self._owed > 0:
            self._owed -= 1
        elif self._waiters:
            super().release()
        else:
            self._value += 1


def claim_key(task: ClaimedTask) -> tuple[str, str, str, int]:
    """What tells claims apart: one that lapsed and was claimed again here differs in its fence alone."""
    return task.client_id, task.queue, task.entry, task.fence


class Run:
    """One claimed task of this process, from its claim to its end.

    ``proof`` is the monotonic moment at which the claim was last known to be ours: when the request that
    claimed or renewed it was sent, since the lease can't have begun before. ``call`` is what is under way until its
    outcome is known; ``asked_at`` is when the request that stores it was sent, which may bring ``wanted`` tasks.
    """

    __slots__ = ("asked_at", "call", "key", "lane", "lost", "placed", "proof", "since", "task", "wanted")

    def __init__(self, task: ClaimedTask, lane: "Lane", proof: float) -> None:
        self.task = task
        self.key = claim_key(task)
        self.lane = lane
        self.proof = self.since = proof
        self.lost = False
        self.placed = False  # has a place of its lane's semaphore
        self.call: asyncio.Future[Outcome | None] | None = None
        self.asked_at = 0.0
        self.wanted = 0

    def abort(self) -> None:
        """The claim isn't ours any more: stop the call. Its result, if it has one already, is left to the
        fence."""
        if not self.lost:
            self.lost = True
            if self.call is not None:
                self.call.cancel()


class Lane:
    """A client with work in this process: its semaphore, its claimed tasks, its turn."""

    __slots__ = (
        "again",
        "asking",
        "client_id",
        "doubtful",
        "full",
        "gate",
        "held",
        "napping",
        "queued",
        "runs",
    )

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.gate = LaneSemaphore(1)
        self.runs: dict[tuple[str, str, str, int], Run] = {}
        self.queued = False  # waits for its turn
        self.held = math.inf  # seconds that a task of it has its place, of late
        self.asking = 0  # requests in flight whose reply may bring tasks
        self.again = False  # was woken meanwhile
        self.full = False  # the last claim found it at its limit, and nothing has finished here since
        self.napping = False  # an admitted task will be looked for in a moment
        self.doubtful = False  # a reply that may have brought tasks was lost

    @property
    def idle(self) -> bool:
        """Nothing is known of it but its name: it can be dropped."""
        return not (self.runs or self.queued or self.asking or self.again or self.doubtful)

    @property
    def quantum(self) -> int:
        """Places that a turn is worth to it, as far as its limit is known; 0 where its calls are long."""
        return self.places(QUANTUM) if self.held < SHORT_SECONDS else 0

    def places(self, most: int) -> int:
        """So many, or what is left of its limit as far as that is known."""
        return min(most, self.gate.size - len(self.runs))

    def fit(self, limit: int) -> None:
        """Size the semaphore to the bound a claim reported; overrides may have let more in than the limit."""
        size = max(limit, len(self.runs), 1)
        if size != self.gate.size:
            self.gate.resize(size)


class Lanes:
    """All lanes, their turns in order of arrival, and the room of the process.

    A tenth of ``max_in_flight`` is kept for clients that come with nothing open here, so that those who fill the
    process can't delay a newcomer; for clients between two turns, too, while long calls have all the rest.
    """

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.reserve = max_in_flight // 10
        self.open = 0
        self.promised = 0  # room set aside for claims in flight
        self.suspects = 0  # open here, or asked for
        self._by_client: dict[str, Lane] = {}
        # Lanes of clients that had nothing in the process take every other turn, so that who sends little is not behind
        # all who have a backlog: see the new and old flows of FQ-CoDel, RFC 8290.
        self._new: deque[Lane] = deque()
        self._old: deque[Lane] = deque()
        self._new_was_last = False
        self._moved_at = -math.inf  # when a short call gave up a place last that is not one of the kept ones

    def __len__(self) -> int:
        return len(self._by_client)

    def find(self, client_id: str) -> Lane | None:
        """The client's lane, if it has one."""
        return self._by_client.get(client_id)

    def drop_idle(self, lane: Lane) -> None:
        """Forget the lane if nothing keeps it."""
        if lane.idle:
            self._by_client.pop(lane.client_id, None)

    def runs(self) -> list[Run]:
        """Every open run."""
        return [run for lane in self._by_client.values() for run in lane.runs.values()]

    def recount(self) -> tuple[int, int] | None:
        """Count the open runs anew: (noted, counted) where they differed, which is never expected."""
        counted = sum(len(lane.runs) for lane in self._by_client.values())
        if counted == self.open:
            return None
        noted, self.open = self.open, counted
        return noted, counted

    def wake(self, client_id: str) -> bool:
        """The client may have something to claim: queue for a turn, once. True where it newly waits.

        Called for every admitted task, so it must stay a look-up and an append.
        """
        lane, turns = self._by_client.get(client_id), self._old
        if lane is None:
            if len(self._new) + len(self._old) >= MAX_TURNS:
                return False
            lane = self._by_client[client_id] = Lane(client_id)
            turns = self._new
        if lane.asking or lane.doubtful:
            # One claim of a client at a time; what is being claimed now may have missed what this wake-up is
            # about.
            lane.again = True
            return False
        if lane.queued:
            return False
        lane.queued = True
        turns.append(lane)
        return True

    @property
    def _free(self) -> int:
        return self.max_in_flight - self.open - self.promised

    @property
    def waiting(self) -> bool:
        """Whether a lane waits for room, which then goes to it and not to the one that freed it."""
        return bool(self._new or self._old)

    @property
    def may_keep(self) -> bool:
        """Whether the place of a task that ends goes on to its lane's next one: while nobody waits, and never out of
        the places kept for newcomers."""
        return not self.waiting and self._free >= self.reserve

    @property
    def waits_for_kept(self) -> bool:
        """Whether lanes wait that could have the kept places if no other is given up soon."""
        return bool(self._old) and 0 < self._free <= self.reserve

    @property
    def has_room(self) -> bool:
        """Whether a client with work open would be let in now."""
        return self.open + self.promised < self.max_in_flight - self.reserve

    def next_turn(self, now: float) -> tuple[Lane, int] | None:
        """The first lane in line that has room, taken out of the line, and how many it may claim; ``now`` by the loop's
        clock."""
        free = self._free
        if free <= 0:
            return None
        first, second = (self._old, self._new) if self._new_was_last else (self._new, self._old)
        for turns in (first, second):
            room = self._room(free, now, new=turns is self._new)
            if room and (lane := self._first(turns, kept=free <= self.reserve)) is not None:
                self._new_was_last = turns is self._new
                lane.queued = False
                share = max(1, room // (len(self._new) + len(self._old) + 1))
                want = max(share, lane.quantum)
                if room - want < lane.quantum // 2:
                    # What would be left is not worth a turn.
                    want = max(want, lane.places(room))
                return lane, min(room, TURN, want)
        return None

    def _room(self, free: int, now: float, *, new: bool) -> int:
        """Places that one lane may have now: of the kept ones one each, so that they serve many."""
        if free > self.reserve:
            return free - self.reserve
        return int(new or now - self._moved_at >= STUCK_SECONDS)

    @staticmethod
    def _first(turns: deque[Lane], *, kept: bool) -> Lane | None:
        """The first in line; where only ``kept`` places are left, the first with nothing open."""
        skipped: list[Lane] = []
        found: Lane | None = None
        while turns and found is None:
            lane = turns.popleft()
            if lane.doubtful:
                # It was in line before the doubt came up; what is unknown is found out first.
                lane.queued, lane.again = False, True
            elif kept and lane.runs:
                skipped.append(lane)
            else:
                found = lane
        turns.extendleft(reversed(skipped))
        return found

    def add(self, lane: Lane, task: ClaimedTask, proof: float) -> Run:
        """Book a claimed task."""
        run = Run(task, lane, proof)
        lane.runs[run.key] = run
        self.open += 1
        self.suspects += task.suspect
        return run

    def remove(self, run: Run, now: float) -> None:
        """The task is finished, handed back or lost."""
        lane = run.lane
        if lane.runs.pop(run.key, None) is not None:
            held = now - run.since
            if held < SHORT_SECONDS and self._free >= self.reserve:
                self._moved_at = now
            self.open -= 1
            lane.full = False
            lane.held = held if lane.held == math.inf else lane.held + (held - lane.held) / 8
            if run.task.suspect:
                self.suspects -= 1
                lane.again = True  # its client may have the next one
