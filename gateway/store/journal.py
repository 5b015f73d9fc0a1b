"""What operators changed, in a capped stream: when, from where, what it was and what it became."""

from typing import Any, Final

import msgspec

from gateway.store.scripts import Runner

KEPT: Final = 10_000  # about; Redis cuts whole blocks
_READS: Final = 3


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change. ``before`` and ``after`` are settings as the API shows them; ``tasks``: to how many it was done."""

    action: str
    address: str
    request_id: str
    key: str | None = None
    client_id: str | None = None
    queue: str | None = None
    before: Any = None
    after: Any = None
    tasks: int | None = None


class Entry(msgspec.Struct, frozen=True):
    """A change as it was noted; ``id`` orders them and begins with the Unix ms of Redis's clock."""

    id: str
    at: int
    change: Change


_decode = msgspec.json.Decoder(Change).decode


class Journal:
    """The audit log."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._key = runner.keyspace.journal

    async def note(self, change: Change) -> None:
        """Add a change; the oldest go."""
        await self._runner.command("XADD", self._key, "MAXLEN", "~", KEPT, "*", "c", msgspec.json.encode(change))

    async def page(self, *, before: str | None, limit: int) -> list[Entry]:
        """The newest first, those older than the entry ``before``."""
        start = "+" if before is None else f"({before}"
        rows = await self._runner.command("XREVRANGE", self._key, start, "-", "COUNT", limit, tries=_READS)
        return [Entry(row[0].decode(), int(row[0].split(b"-")[0]), _decode(row[1][1])) for row in rows]
