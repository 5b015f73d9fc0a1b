"""Calls of one script that are asked for in the same turn of the event loop travel as one: what a script costs before
it does anything is then paid once. Each caller gets its own answer. A group that is full does not wait for the turn to
end: Redis works on it while the other callers are read."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from gateway.errors import StoreUnavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Tell = Callable[[Answer | StoreUnavailable], None]

# Items of a group, and groups under way at a time. With one large one, Redis and this process would wait for each
# other; many small ones cost more each. Of groups of 16, 24, 32, 40 and 50, two of 32 did best with 64 callers.
MOST: Final = 32
AT_ONCE: Final = 2
# Beside a group of so many, the next one is sent only when it is full: callers would else fall into two halves that
# never meet, each with all that a call costs. Where fewer ask, nobody waits for that.
MANY: Final = 8
# What waits for replicas is long under way, and is collected by its link.
_CONFIRMED_AT_ONCE: Final = 1000
_AWAY: Final = "Redis does not answer; nothing was stored. Try again shortly."


def at_once(*, confirmed: bool) -> int:
    """Groups of a partition under way at a time, of what waits for replicas or disks (DURABILITY) or does not."""
    return _CONFIRMED_AT_ONCE if confirmed else AT_ONCE


class _Waiting(msgspec.Struct, frozen=True):
    client_id: str
    item: Any
    tell: Tell[Any]


class _Queue:
    """What waits for one partition."""

    __slots__ = ("asked", "partition", "scheduled", "under_way", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.waiting: list[_Waiting] = []
        self.under_way = 0  # groups
        self.asked = 0  # items of these
        self.scheduled = False  # the next one is about to be sent


class Merger(Generic[Item, Answer]):
    """Collects items and has them carried out in groups.

    ``carry_out`` is given a partition and the items of each client in the order of `submit`, and had better ask
    Redis before it returns; the answers to come are in the order of the items, client by client; one may be the
    StoreUnavailable of that item alone. It may raise StoreUnavailable, which then all of the group hear; and where
    that took more than ``patience`` seconds, also those that waited meanwhile, so that a Redis that does not answer
    keeps nobody twice. ``at_once``: groups of a partition under way at a time. While they are, what comes in waits,
    and travels together; up to `AT_ONCE` it waits beside `MANY` for a full group, too. ``together``: so many items
    more may go with a group where they are of its last client: what is done once for a client would else be done
    twice.
    """

    def __init__(
        self,
        partition_of: Callable[[str], int],
        carry_out: Callable[[int, dict[str, list[Item]]], Awaitable[Sequence[Answer | StoreUnavailable]]],
        *,
        patience: float,
        at_once: int = AT_ONCE,
        together: int = 0,
    ) -> None:
        self._partition_of = partition_of
        self._carry_out = carry_out
        self._patience = patience
        self._at_once = at_once
        self._gathers = at_once <= AT_ONCE
        self._together = together
        self._full = MOST + together
        self._loop = asyncio.get_running_loop()
        self._clean = contextvars.Context()  # what is done for many must not inherit one request's log fields
        self._queues: dict[int, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, client_id: str, item: Item) -> "asyncio.Future[Answer]":
        """The answer to come; what is submitted is carried out, also where nobody waits for it any more."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self.hand_in(client_id, item, partial(_settle, answer))
        return answer

    def hand_in(self, client_id: str, item: Item, tell: Tell[Answer]) -> None:
        """The same without a future, which costs its own turn of the loop: ``tell`` is called with the answer."""
        partition = self._partition_of(client_id)
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = _Queue(partition)
        queue.waiting.append(_Waiting(client_id, item, tell))
        if queue.under_way and not self._may_begin(queue):
            return
        if len(queue.waiting) >= self._full:
            self._clean.run(self._flush, queue)
        else:
            self._schedule(queue)

    def _may_begin(self, queue: _Queue) -> bool:
        """Whether the next group need not wait for those that are under way."""
        if queue.under_way >= self._at_once:
            return False
        return not self._gathers or queue.asked < MANY or len(queue.waiting) >= self._full

    def _schedule(self, queue: _Queue) -> None:
        if queue.waiting and not queue.scheduled:
            queue.scheduled = True
            self._loop.call_soon(self._end_turn, queue, context=self._clean)

    def _end_turn(self, queue: _Queue) -> None:
        queue.scheduled = False
        self._flush(queue)

    def _flush(self, queue: _Queue) -> None:
        while queue.waiting and self._may_begin(queue):
            end = self._end(queue.waiting)
            group, queue.waiting = queue.waiting[:end], queue.waiting[end:]
            queue.under_way += 1
            queue.asked += len(group)
            by_client: dict[str, list[_Waiting]] = {}
            for one in group:
                by_client.setdefault(one.client_id, []).append(one)
            ordered = [one for ones in by_client.values() for one in ones]
            items = {name: [one.item for one in ones] for name, ones in by_client.items()}
            task = self._loop.create_task(self._run(queue, ordered, self._begin(queue.partition, items)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _end(self, waiting: list[_Waiting]) -> int:
        """How many of those that wait the next group has."""
        end = MOST
        most = min(MOST + self._together, len(waiting))
        while end < most and waiting[end].client_id == waiting[MOST - 1].client_id:
            end += 1
        return end

    def _begin(self, partition: int, items: dict[str, list[Item]]) -> Awaitable[Sequence[Answer | StoreUnavailable]]:
        try:
            return self._carry_out(partition, items)
        except Exception as error:
            failed: asyncio.Future[Any] = self._loop.create_future()
            failed.set_exception(error)
            return failed

    async def _run(
        self, queue: _Queue, group: list[_Waiting], begun: Awaitable[Sequence[Answer | StoreUnavailable]]
    ) -> None:
        started = self._loop.time()
        try:
            answered = list(zip(group, await begun, strict=True))  # or nobody was told yet
        except BaseException as error:
            self._fail(group, error)
            if self._loop.time() - started > self._patience:
                waited, queue.waiting = queue.waiting, []
                self._fail(waited, StoreUnavailable(_AWAY))
            if not isinstance(error, StoreUnavailable):
                raise  # a defect, or the end of the process
        else:
            for one, answer in answered:
                self._tell(one, answer)
        finally:
            queue.under_way -= 1
            queue.asked -= len(group)
            self._schedule(queue)

    def _fail(self, group: list[_Waiting], error: BaseException) -> None:
        """Nobody may wait for ever, whatever it is."""
        unknown = not isinstance(error, StoreUnavailable) or error.unknown
        message = error.message if isinstance(error, StoreUnavailable) else "The gateway failed; see its log."
        for one in group:
            self._tell(one, StoreUnavailable(message, unknown=unknown))

    def _tell(self, one: _Waiting, answer: Any) -> None:
        """What goes wrong with one answer keeps nobody else from theirs."""
        try:
            one.tell(answer)
        except Exception as error:
            self._loop.call_exception_handler({"message": "An answer could not be given.", "exception": error})


def _settle(waiting: "asyncio.Future[Any]", answer: Any) -> None:
    if waiting.done():
        return
    if isinstance(answer, StoreUnavailable):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
