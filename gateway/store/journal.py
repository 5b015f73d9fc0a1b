"""What operators changed, in a capped stream: when, from where, what it was and what it became."""

from typing import Any, Final

import msgspec

from gateway.store.scripts import Runner

KEPT: Final = 10_000  # about; Redis cuts whole blocks
LOOKED_AT: Final = 2_000  # entries, for one page of those that match
_STEP: Final = 500
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


class ChangeFilter(msgspec.Struct, frozen=True):
    """Which changes: all that is given is the same."""

    client_id: str | None = None
    action: str | None = None
    key: str | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything is given."""
        return self != ChangeFilter()

    def matches(self, change: Change) -> bool:
        """Whether the change is one of these."""
        return (
            self.client_id in (None, change.client_id)
            and self.action in (None, change.action)
            and self.key in (None, change.key)
        )


class Entry(msgspec.Struct, frozen=True):
    """A change as it was noted; ``id`` orders them and begins with the Unix ms of Redis's clock."""

    id: str
    at: int
    change: Change


_ALL: Final = ChangeFilter()
_decode = msgspec.json.Decoder(Change).decode


class Journal:
    """The audit log."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._key = runner.keyspace.journal

    async def note(self, change: Change) -> None:
        """Add a change; the oldest go."""
        await self._runner.command("XADD", self._key, "MAXLEN", "~", KEPT, "*", "c", msgspec.json.encode(change))

    async def page(
        self, *, before: str | None, limit: int, chosen: ChangeFilter = _ALL
    ) -> tuple[list[Entry], str | None]:
        """The newest first, those older than the entry ``before``; and where the next page goes on, None at the end. A
        page looks at `LOOKED_AT` entries at most, so it may be short and have a next one."""
        step = _STEP if chosen.narrows else limit
        found: list[Entry] = []
        looked_at = 0
        while looked_at < LOOKED_AT:
            start = "+" if before is None else f"({before}"
            rows = await self._runner.command("XREVRANGE", self._key, start, "-", "COUNT", step, tries=_READS)
            for row in rows:
                before = row[0].decode()
                change = _decode(row[1][1])
                if chosen.matches(change):
                    found.append(Entry(before, int(before.split("-")[0]), change))
                    if len(found) == limit:
                        return found, before
            if len(rows) < step:
                return found, None
            looked_at += step
        return found, before
