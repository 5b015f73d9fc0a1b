"""What happens many thousand times a second: added up in plain dictionaries, and handed to Prometheus's own values,
which cost several times as much, when somebody looks and every few seconds."""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from gateway.metrics.depths import ClientLabels
from gateway.metrics.labels import MAX_VALUES_PER_CLIENT, OTHER, Children

Key = TypeVar("Key", bound=Hashable)
LabelValues = tuple[str, ...]

# Keys that wait to be handed on; then they are, at once.
_MOST: Final = 10_000


class Counts(Generic[Key]):
    """A counter. ``labels`` makes the values of its labels of a key, once in a while instead of each time."""

    def __init__(self, metric: Counter, labels: Callable[[Key], LabelValues]) -> None:
        self._children = Children(metric)
        self._labels = labels
        self._waiting: dict[Key, int] = {}

    def add(self, key: Key, count: int = 1) -> None:
        """It happened."""
        so_far = self._waiting.get(key)
        if so_far is None:
            if len(self._waiting) >= _MOST:
                self.settle()
            so_far = 0
        self._waiting[key] = so_far + count

    def settle(self) -> None:
        """Hand on what was added up."""
        waiting, self._waiting = self._waiting, {}
        for key, count in waiting.items():
            self._children[self._labels(key)].inc(count)


class Durations(Generic[Key]):
    """A histogram of seconds. ``labels`` as of `Counts`."""

    def __init__(self, metric: Histogram, bounds: Sequence[float], labels: Callable[[Key], LabelValues]) -> None:
        self._metric = metric
        self._bounds = tuple(bounds)
        self._labels = labels
        self._waiting: dict[Key, list[float]] = {}

    def observe(self, key: Key, seconds: float) -> None:
        """It took so long."""
        counts = self._waiting.get(key)
        if counts is None:
            counts = self._waiting[key] = [0.0] * (len(self._bounds) + 2)
        counts[bisect_left(self._bounds, seconds)] += 1
        counts[-1] += seconds

    def settle(self) -> None:
        """Hand on what was observed."""
        waiting, self._waiting = self._waiting, {}
        for key, counts in waiting.items():
            labels = self._labels(key)
            child: Any = self._metric.labels(*labels) if labels else self._metric
            # The library has no way to add several observations at once; these two are where `observe` adds one.
            for bucket, count in zip(child._buckets, counts[:-1], strict=True):  # noqa: SLF001
                if count:
                    bucket.inc(count)
            child._sum.inc(counts[-1])  # noqa: SLF001


class Level:
    """A gauge of this process."""

    def __init__(self, metric: Gauge) -> None:
        self._metric = metric
        self.value = 0

    def settle(self) -> None:
        """Hand it on as it is."""
        self._metric.set(self.value)


class ClientValues:
    """Label values by client and one more label: the clients as `ClientLabels` has them, and of the other label at most
    `MAX_VALUES_PER_CLIENT` values each; further ones are `other`."""

    def __init__(self, clients: ClientLabels) -> None:
        self._clients = clients
        self._known: set[tuple[str, str]] = set()
        self._counts: dict[str, int] = {}

    def of(self, key: tuple[str, str]) -> LabelValues:
        """The labels of a client and a value."""
        client, value = self._clients.of(key[0]), key[1]
        if (client, value) in self._known:
            return client, value
        count = self._counts.get(client, 0)
        if count >= MAX_VALUES_PER_CLIENT:
            return client, OTHER
        self._counts[client] = count + 1
        self._known.add((client, value))
        return client, value
