"""Calls of one script that are asked for in the same turn of the event loop travel as one: what a script costs before
it does anything is then paid once. Each caller gets its own answer."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from gateway.errors import StoreUnavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Items of a group, and groups under way at a time. With one large one, Redis and this process would wait for each
# other; many small ones cost more each. Of groups of 16, 24, 32, 40 and 50, two of 32 did best with 64 callers.
MOST: Final = 32
AT_ONCE: Final = 2
# What waits for replicas is long under way, and is collected by its link.
_CONFIRMED_AT_ONCE: Final = 1000
_AWAY: Final = "Redis does not answer; nothing was stored. Try again shortly."


def at_once(*, confirmed: bool) -> int:
    """Groups of a partition under way at a time, of what waits for replicas or disks (DURABILITY) or does not."""
    return _CONFIRMED_AT_ONCE if confirmed else AT_ONCE


class _Waiting(NamedTuple):
    client_id: str
    item: Any
    answer: "asyncio.Future[Any]"


class _Queue:
    """What waits for one partition."""

    __slots__ = ("partition", "scheduled", "under_way", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.waiting: list[_Waiting] = []
        self.under_way = 0  # groups
        self.scheduled = False  # the next one is about to be sent


class Merger(Generic[Item, Answer]):
    """Collects items and has them carried out in groups.

    ``carry_out`` is given a partition and the items of each client in the order of `submit`; its answers are in the
    order of the items, client by client; one may be the StoreUnavailable of that item alone. It may raise
    StoreUnavailable, which then all of the group hear; and where that took more than ``patience`` seconds, also those
    that waited meanwhile, so that a Redis that does not answer keeps nobody twice. ``at_once``: groups of a partition
    under way at a time. While one is, what comes in waits, and travels together.
    """

    def __init__(
        self,
        partition_of: Callable[[str], int],
        carry_out: Callable[[int, dict[str, list[Item]]], Awaitable[Sequence[Answer | StoreUnavailable]]],
        *,
        patience: float,
        at_once: int = AT_ONCE,
    ) -> None:
        self._partition_of = partition_of
        self._carry_out = carry_out
        self._patience = patience
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._queues: dict[int, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, client_id: str, item: Item) -> "asyncio.Future[Answer]":
        """The answer to come; what is submitted is carried out, also where nobody waits for it any more."""
        partition = self._partition_of(client_id)
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = _Queue(partition)
        answer: asyncio.Future[Answer] = self._loop.create_future()
        queue.waiting.append(_Waiting(client_id, item, answer))
        if queue.under_way < self._at_once:
            self._schedule(queue)
        return answer

    def _schedule(self, queue: _Queue) -> None:
        if queue.waiting and not queue.scheduled:
            queue.scheduled = True
            self._loop.call_soon(self._flush, queue)

    def _flush(self, queue: _Queue) -> None:
        queue.scheduled = False
        while queue.waiting and queue.under_way < self._at_once:
            group, queue.waiting = queue.waiting[:MOST], queue.waiting[MOST:]
            queue.under_way += 1
            task = self._loop.create_task(self._run(queue, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, queue: _Queue, group: list[_Waiting]) -> None:
        by_client: dict[str, list[_Waiting]] = defaultdict(list)
        for one in group:
            by_client[one.client_id].append(one)
        ordered = [one for ones in by_client.values() for one in ones]
        started = self._loop.time()
        try:
            answers = await self._carry_out(
                queue.partition, {name: [one.item for one in ones] for name, ones in by_client.items()}
            )
            for one, answer in zip(ordered, answers, strict=True):
                _settle(one, answer)
        except BaseException as error:
            _fail(ordered, error)
            if self._loop.time() - started > self._patience:
                waited, queue.waiting = queue.waiting, []
                _fail(waited, StoreUnavailable(_AWAY))
            if not isinstance(error, StoreUnavailable):
                raise  # a defect, or the end of the process
        finally:
            queue.under_way -= 1
            self._schedule(queue)


def _settle(one: _Waiting, answer: Any) -> None:
    if one.answer.done():
        return
    if isinstance(answer, StoreUnavailable):
        one.answer.set_exception(answer)
    else:
        one.answer.set_result(answer)


def _fail(group: list[_Waiting], error: BaseException) -> None:
    """Nobody may wait for ever, whatever it is."""
    unknown = not isinstance(error, StoreUnavailable) or error.unknown
    message = error.message if isinstance(error, StoreUnavailable) else "The gateway failed; see its log."
    for one in group:
        if not one.answer.done():
            one.answer.set_exception(StoreUnavailable(message, unknown=unknown))
