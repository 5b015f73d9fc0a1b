"""Admitting, looking at and cancelling tasks: what the API does with them. How they are admitted is in `admission`;
claiming is in `claims`."""

from typing import Final

from gateway.models import Standing, TaskDetail, TaskView
from gateway.store.admission import Admissions
from gateway.store.payload import Payloads
from gateway.store.records import detail, view
from gateway.store.scripts import Runner

_COUNTED: Final = 100  # tasks ahead of one that is explained
_NAMED: Final = 10  # tasks in flight


class Tasks:
    """The tasks of clients, as their API sees them."""

    def __init__(self, runner: Runner, admissions: Admissions, payloads: Payloads) -> None:
        self._runner = runner
        self._opened = payloads.opened
        self.admissions = admissions
        self.admit = admissions.admit
        self.submit = admissions.submit
        self.admit_many = admissions.admit_many

    async def view(self, client_id: str, task_id: str) -> TaskView | None:
        """The client's task as it stands, None where it has no such task."""
        reply = await self._runner.run("status", client_id, task_id)
        return self._opened(view(task_id, reply[1], running=bool(reply[0]))) if reply else None

    async def detail(self, client_id: str, task_id: str) -> TaskDetail | None:
        """The same with all that operators may see."""
        reply = await self._runner.run("status", client_id, task_id)
        return self._opened(detail(task_id, reply[1], running=bool(reply[0]))) if reply else None

    async def explain(self, client_id: str, task_id: str) -> Standing | None:
        """Where the task stands and what stands before it, None where the client has no such task."""
        reply = await self._runner.run("explain", client_id, task_id, _COUNTED, _NAMED)
        if not reply:
            return None
        running, packed, paused, full, in_flight, bound, ahead, more, *holders = reply
        task = detail(task_id, packed, running=bool(running))
        return Standing(
            view=task.view,
            due_at=task.due_at,
            paused=paused or None,
            full=full or None,
            in_flight=in_flight,
            bound=bound,
            ahead=ahead,
            more=bool(more),
            holders=[name.decode() for name in holders],
        )

    async def cancel(self, client_id: str, task_id: str) -> tuple[TaskView, bool] | None:
        """Cancel what waits. The flag says whether it was cancelled now; False: it runs or has ended."""
        reply = await self._runner.run("cancel", client_id, task_id)
        if not reply:
            return None
        cancelled, running, packed = reply
        return self._opened(view(task_id, packed, running=bool(running))), bool(cancelled)
