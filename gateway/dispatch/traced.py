"""Attempts with spans around them: a `Sender` that is put before the real one where traces are exported."""

from typing import TYPE_CHECKING

import msgspec
import structlog

from gateway.dispatch.sender import Sender
from gateway.models import ClaimedTask, Outcome
from gateway.tracing.context import trace_id

if TYPE_CHECKING:
    from gateway.tracing.spans import Spans


class TracedSender:
    """Tells of the wait that is over and of the call, and gives the target the call's own context."""

    def __init__(self, sender: Sender, spans: "Spans") -> None:
        self._sender = sender
        self._spans = spans

    async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
        """One call, as the sender makes it."""
        span = self._spans.attempt(task)
        trace = self._spans.told(span)
        # This is awaited as a task of its own, so nobody else's lines get these.
        structlog.contextvars.bind_contextvars(trace_id=trace_id(trace))
        try:
            outcome = await self._sender.send(msgspec.structs.replace(task, trace=trace), timeout)
        except BaseException:  # the claim was lost, or the process leaves
            self._spans.abandoned(span, "cancelled")
            raise
        self._spans.attempted(span, outcome)
        return outcome
