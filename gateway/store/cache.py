"""What a process remembers of Redis for a minute, and drops at once where a change was announced."""

from time import monotonic
from typing import Final, Generic, TypeVar

CACHE_SECONDS: Final = 60.0
_CACHED: Final = 20_000

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by client. A value that was read before a change was announced is not kept."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, T]] = {}
        self.generation = 0

    def get(self, client_id: str) -> T | None:
        """What is remembered, None where that is nothing or too old."""
        found = self._values.get(client_id)
        return found[1] if found is not None and found[0] > monotonic() else None

    def put(self, client_id: str, value: T, generation: int) -> None:
        """Remember what was read; ``generation`` is the one from before the read."""
        if generation != self.generation:
            return
        if len(self._values) >= _CACHED:
            self._values.clear()
        self._values[client_id] = monotonic() + CACHE_SECONDS, value

    def forget(self, client_id: str | None = None) -> None:
        """Drop one client's, or all."""
        self.generation += 1
        if client_id is None:
            self._values.clear()
        else:
            self._values.pop(client_id, None)
