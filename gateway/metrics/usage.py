"""What clients did since it was last taken, counted in memory; `gateway.store.counting` carries it to Redis."""

from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.metrics.tally import ADMITTED, REFUSED, Tally, empty
from gateway.models import Outcome

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


class Tallies(dict[str, Tally]):
    """By client, as `Counted` has them; one that is not there yet is made when it is looked up."""

    def __missing__(self, client_id: str) -> Tally:
        if len(self) >= MOST_CLIENTS:
            client_id = NOBODY
        return self.setdefault(client_id, empty())


class Counting:
    """The counts of this process; calls are counted in ``tallies`` by who counts them elsewhere too."""

    def __init__(self) -> None:
        self.tallies = Tallies()
        self._statuses: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    def admitted(self, client_id: str, count: int) -> None:
        """So many tasks were accepted."""
        self.tallies[client_id][ADMITTED] += count

    def refused(self, client_id: str, count: int) -> None:
        """So many requests were refused by the window."""
        self.tallies[client_id][REFUSED] += count

    def failed(self, url: str, outcome: Outcome) -> None:
        """A call to a target did not do what it was to do."""
        status = outcome.attempt.status
        # "target not allowed: …" goes on with an address; the kind is what comes before it.
        _count(self._statuses, MOST_STATUSES, str(status or outcome.reason.partition(":")[0][:40]))
        _count(self._hosts, MOST_HOSTS, _host(url))

    def take(self) -> Counted:
        """What was counted since the last time."""
        counted = Counted(self.tallies, self._statuses, self._hosts)
        self.tallies, self._statuses, self._hosts = Tallies(), Counter(), Counter()
        return counted


def _count(counts: Counter[str], most: int, name: str) -> None:
    counts[name if name in counts or len(counts) < most else _OTHER] += 1


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()[:100] or _OTHER
    except ValueError:
        return _OTHER
