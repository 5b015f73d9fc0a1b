"""What clients did since it was last taken, counted in memory; `gateway.store.counting` carries it to Redis."""

from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.metrics.tally import ADMITTED, DELIVERED, FAILED, REFUSED, Tally, bucket, empty
from gateway.models import Outcome, Verdict

# Clients with a tally of their own between two flushes; what further ones do is booked to nobody, and to all.
MOST_CLIENTS: Final = 50_000
MOST_STATUSES: Final = 32
MOST_HOSTS: Final = 32
NOBODY: Final = ""
_OTHER: Final = "other"


class Counted(msgspec.Struct, frozen=True):
    """Tallies by client, `NOBODY` for those past the bound; failed calls by status or kind of error, and by host."""

    tallies: dict[str, Tally]
    statuses: dict[str, int]
    hosts: dict[str, int]


class Counting:
    """The counts of this process."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._statuses: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    def admitted(self, client_id: str) -> None:
        """A task was accepted."""
        self._of(client_id)[ADMITTED] += 1

    def refused(self, client_id: str) -> None:
        """A request was refused by the window."""
        self._of(client_id)[REFUSED] += 1

    def called(self, client_id: str, url: str, outcome: Outcome) -> None:
        """A call to a target ended."""
        tally = self._of(client_id)
        tally[bucket(outcome.attempt.duration_ms / 1000)] += 1
        if outcome.verdict is Verdict.DELIVERED:
            tally[DELIVERED] += 1
            return
        tally[FAILED] += 1
        status = outcome.attempt.status
        # "target not allowed: …" goes on with an address; the kind is what comes before it.
        _count(self._statuses, MOST_STATUSES, str(status or outcome.reason.partition(":")[0][:40]))
        _count(self._hosts, MOST_HOSTS, _host(url))

    def take(self) -> Counted:
        """What was counted since the last time."""
        counted = Counted(self._tallies, self._statuses, self._hosts)
        self._tallies, self._statuses, self._hosts = {}, Counter(), Counter()
        return counted

    def _of(self, client_id: str) -> Tally:
        tally = self._tallies.get(client_id)
        if tally is None:
            if len(self._tallies) >= MOST_CLIENTS:
                client_id = NOBODY
            tally = self._tallies.setdefault(client_id, empty())
        return tally


def _count(counts: Counter[str], most: int, name: str) -> None:
    counts[name if name in counts or len(counts) < most else _OTHER] += 1


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()[:100] or _OTHER
    except ValueError:
        return _OTHER
