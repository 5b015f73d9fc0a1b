"""What operators have done to many tasks at once. Which, `listing` finds; each that is not in the state for it any more
is passed over."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from gateway.models import WAITING, State, TaskDetail
from gateway.store.listing import Listing, parse_cursor
from gateway.store.scripts import Runner
from gateway.task_filter import TaskFilter

Action = Literal["cancel", "run", "replay", "purge"]

CHUNK: Final = 100
STATES: Final[dict[Action, frozenset[State]]] = {
    "cancel": WAITING,
    "run": frozenset({State.SCHEDULED, State.RETRYING}),
    "replay": frozenset({State.DEAD}),
    "purge": frozenset({State.DEAD}),
}
_SCRIPTS: Final = {"run": "run_now", "replay": "replay", "purge": "forget"}


class Steering:
    """Cancels, hurries, replays and removes."""

    def __init__(self, runner: Runner, listing: Listing) -> None:
        self._runner = runner
        self._listing = listing

    async def apply(self, action: Action, tasks: Sequence[TaskDetail]) -> int:
        """Do it to these; returns to how many it was done."""
        if action == "cancel":
            replies = await asyncio.gather(
                *(self._runner.run("cancel", task.view.client_id, task.view.task_id) for task in tasks)
            )
            return sum(bool(reply and reply[0]) for reply in replies)
        of: dict[str, list[str]] = defaultdict(list)
        for task in tasks:
            of[task.view.client_id].append(task.view.task_id)
        done = await asyncio.gather(
            *(self._runner.run(_SCRIPTS[action], client_id, *ids) for client_id, ids in of.items())
        )
        return sum(done)

    async def all(self, action: Action, wanted: TaskFilter) -> int:
        """Do it to all that are wanted and are as they are by now, oldest first; returns to how many. Raises
        StoreUnavailable in its midst, and may be called again."""
        chosen = narrowed(action, wanted, await self._runner.now() + 1)
        done, cursor = 0, None
        while True:
            page = await self._listing.page(chosen, cursor=cursor, limit=CHUNK, newest=False)
            done += await self.apply(action, page.tasks)
            if page.next_cursor is None:
                return done
            cursor = parse_cursor(page.next_cursor)


def narrowed(action: Action, wanted: TaskFilter, before: int) -> TaskFilter:
    """The filter with what the action can be done to; what changes meanwhile is not met again. Raises ValueError
    where it can be done to none of the states that are wanted.

    >>> sorted(narrowed("run", TaskFilter(states=frozenset({State.QUEUED, State.RETRYING})), 5).states)
    [<State.RETRYING: 'retrying'>]
    """
    states = (wanted.states or STATES[action]) & STATES[action]
    if not states:
        raise ValueError(action)
    return msgspec.structs.replace(wanted, states=states, untouched_since=before)
