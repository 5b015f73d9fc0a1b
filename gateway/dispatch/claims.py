"""What the dispatcher and its upkeep need of the store, and no more: the consumer owns the interface.
`gateway.store.claims` implements it. Every method raises `StoreUnavailable` when Redis doesn't answer.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from gateway.models import ClaimedTask, Outcome


class Claimed(Protocol):
    """What one claim took: ``limit`` is the client's bound, ``more`` tells that it has more to claim."""

    @property
    def tasks(self) -> Sequence[ClaimedTask]: ...
    @property
    def limit(self) -> int: ...
    @property
    def more(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...


class Finished(Protocol):
    """``owned`` False: the claim had been taken back, nothing changed. ``claimed``: what came in the same
    trip."""

    @property
    def owned(self) -> bool: ...
    @property
    def claimed(self) -> Claimed | None: ...


class Claims(Protocol):
    """For the dispatcher."""

    async def ready(self, limit: int) -> Sequence[str]: ...
    def claim(self, client_id: str, want: int, chances: int) -> Awaitable[Claimed]: ...
    def finish(
        self, task: ClaimedTask, outcome: Outcome, *, retry_in: float | None, want: int = 0
    ) -> Awaitable[Finished]: ...
    async def renew(self, tasks: Sequence[ClaimedTask]) -> Sequence[ClaimedTask]: ...
    async def hand_back(self, tasks: Sequence[ClaimedTask]) -> None: ...
    async def hand_back_unknown(self, client_id: str, known: Collection[ClaimedTask]) -> int: ...
    async def listen(self, on_ready: Callable[[str], None], on_due: Callable[[], None]) -> None: ...


class UpkeepClaims(Protocol):
    """For the upkeep."""

    async def promote_due(self, limit: int) -> float | None: ...
    async def reclaim_lapsed(self, limit: int) -> int: ...


class Violation(Protocol):
    """Two things that must agree and don't."""

    @property
    def client_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Audited(Protocol):
    """One stretch of the audit; ``more``: the round is not at its end."""

    @property
    def violations(self) -> Sequence[Violation]: ...
    @property
    def more(self) -> bool: ...


class Audit(Protocol):
    """For the upkeep, too."""

    async def stretch(self, limit: int) -> Audited: ...
