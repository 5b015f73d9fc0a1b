"""What a fault is, and how functions become some."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .run import Plan, Run

Deed = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """``do`` applies it while load runs; it returns once the fault is over."""

    name: str
    do: Deed
    plan: Plan = field(default_factory=Plan)


class Faults(dict[str, Fault]):
    """Some of them, by name."""

    def enter(self, **plan: Any) -> Callable[[Deed], Deed]:
        """Enter a function, with what its plan has of its own."""

        def entered(do: Deed) -> Deed:
            self[do.__name__] = Fault(do.__name__, do, Plan(**plan))
            return do

        return entered
