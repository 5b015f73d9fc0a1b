"""How many wrong keys came of late, counted over all processes on this Redis. Asked only once a key was wrong: a right
one costs nothing here. What is done about it is `gateway.middleware.guesses`' affair."""

from gateway.store.scripts import Runner

_MINUTE_US = 60_000_000


class WrongKeys:
    """A bucket for each caller, and for each caller and client."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def count(self, place: str, client_id: str, per_minute: int) -> float:
        """One more came from there, for a client's key or ("") an operator's; in how many seconds the bucket of
        ``per_minute`` will be full again. Raises StoreUnavailable."""
        key = self._runner.keyspace.wrong_keys(place, client_id)
        return int(await self._runner.run_alone("wrong_key", (key,), _MINUTE_US // per_minute)) / 1_000_000
