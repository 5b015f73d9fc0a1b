"""What happens many thousand times a second: added up in plain dictionaries, and handed to Prometheus's own values,
which cost several times as much, when somebody looks and every few seconds."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from gateway.metrics.depths import ClientLabels
from gateway.metrics.labels import MAX_VALUES_PER_CLIENT, OTHER, Children

Key = TypeVar("Key", bound=Hashable)
LabelValues = tuple[str, ...]
Also = Callable[[Key, int], None]

# Clients whose counts wait to be handed on; then they are, at once.
_MOST: Final = 10_000


class Counts(dict[str, int]):
    """A counter by one label: ``counts[value] += 1``."""

    def __init__(self, metric: Counter) -> None:
        super().__init__()
        self._children = Children(metric)

    def __missing__(self, _: str) -> int:
        return 0

    def settle(self) -> None:
        """Hand on what was added up."""
        for value, count in self.items():
            self._children[(value,)].inc(count)
        self.clear()


class ClientCounts(dict[str, dict[str, int]]):
    """A counter by client and one more label: ``counts[client_id][value] += 1``, since to hash a tuple costs several
    times as much. The labels are made once in a while instead of each time; ``also`` is told then how often it was
    counted for a client."""

    def __init__(self, metric: Counter, clients: ClientLabels, also: Callable[[str, int], None]) -> None:
        super().__init__()
        self._children = Children(metric)
        self._labels = ClientValues(clients).of
        self._also = also

    def __missing__(self, client_id: str) -> dict[str, int]:
        if len(self) >= _MOST:
            self.settle()
        counts = self[client_id] = defaultdict(int)
        return counts

    def settle(self) -> None:
        """Hand on what was added up."""
        waiting = [*self.items()]
        self.clear()
        for client_id, counts in waiting:
            self._also(client_id, sum(counts.values()))
            for value, count in counts.items():
                self._children[self._labels(client_id, value)].inc(count)


class Durations(dict[Key, list[float]]):
    """A histogram of seconds: ``durations[key].append(seconds)``. They are put into buckets together, which costs a
    third of doing so one by one; a list stays its key's, for who looks it up once. ``labels`` makes the values of its
    labels of a key; ``also`` is told how many there were."""

    def __init__(
        self, metric: Histogram, bounds: Sequence[float], labels: Callable[[Key], LabelValues], also: Also[Key]
    ) -> None:
        super().__init__()
        self._metric = metric
        self._bounds = bounds
        self._labels = labels
        self._also = also

    def __missing__(self, key: Key) -> list[float]:
        made: list[float] = []
        self[key] = made
        return made

    def settle(self) -> None:
        """Hand on what was observed."""
        for key, seconds in self.items():
            if not seconds:
                continue
            seconds.sort()
            labels = self._labels(key)
            child: Any = self._metric.labels(*labels) if labels else self._metric
            below = 0
            # The library has no way to add several observations at once; these two are where `observe` adds one.
            for bucket, bound in zip(child._buckets, (*self._bounds, math.inf), strict=True):  # noqa: SLF001
                at = bisect_right(seconds, bound, below)
                if at > below:
                    bucket.inc(at - below)
                    below = at
            child._sum.inc(sum(seconds))  # noqa: SLF001
            self._also(key, len(seconds))
            seconds.clear()


class Level:
    """A gauge of this process, read when somebody looks."""

    def __init__(self, metric: Gauge) -> None:
        self._metric = metric
        self.read: Callable[[], int] = lambda: 0

    def settle(self) -> None:
        """Hand it on as it is."""
        self._metric.set(self.read())


class ClientValues:
    """Label values by client and one more label: the clients as `ClientLabels` has them, and of the other label at most
    `MAX_VALUES_PER_CLIENT` values each; further ones are `other`."""

    def __init__(self, clients: ClientLabels) -> None:
        self._clients = clients
        self._known: set[tuple[str, str]] = set()
        self._counts: dict[str, int] = {}

    def of(self, client_id: str, value: str) -> LabelValues:
        """The labels of a client and a value."""
        client = self._clients.of(client_id)
        if (client, value) in self._known:
            return client, value
        count = self._counts.get(client, 0)
        if count >= MAX_VALUES_PER_CLIENT:
            return client, OTHER
        self._counts[client] = count + 1
        self._known.add((client, value))
        return client, value
