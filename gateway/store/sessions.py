"""Which sessions of the dashboard were left before their time, and what signs them; `gateway.middleware.sessions` says
what one is."""

from secrets import token_hex
from typing import Final

from gateway.store.scripts import Runner

_READS: Final = 3


class Sessions:
    """The ids of those that hold no more, and the secret of all replicas."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def end(self, session_id: str, seconds: int) -> None:
        """It holds no more on any replica; forgotten after ``seconds``, when it would have ended by itself."""
        await self._runner.command("SET", self._runner.keyspace.ended_session(session_id), 1, "EX", seconds)

    async def has_ended(self, session_id: str) -> bool:
        """Whether it was ended."""
        key = self._runner.keyspace.ended_session(session_id)
        return bool(await self._runner.command("EXISTS", key, tries=_READS))

    async def secret(self) -> bytes:
        """The same on every replica, made by the first that asks."""
        key = self._runner.keyspace.session_secret()
        known = await self._runner.command("GET", key, tries=_READS)
        if known is None:
            fresh = token_hex(32)
            known = await self._runner.command("SET", key, fresh, "NX", "GET", tries=_READS) or fresh.encode()
        return bytes(known)
