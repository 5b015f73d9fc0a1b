"""Label children that are looked up once, their bounds, and the sum over workers without what was withdrawn."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

OTHER = "other"
# Values of one label (queue, tier) a client may occupy; further ones are `other`.
MAX_VALUES_PER_CLIENT = 32


class Children:
    """Label children by their values, each looked up once: `.labels()` costs more than the increment."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.cache: dict[tuple[str, ...], Any] = {}

    def __getitem__(self, label_values: tuple[str, ...]) -> Any:
        child = self.cache.get(label_values)
        if child is None:
            child = self.cache[label_values] = self.metric.labels(*label_values)
        return child

    def withdraw(self, label_values: tuple[str, ...], *, shared: bool) -> None:
        """Tell of it no longer, if it is told; ``shared``: other processes read it too (see `Live`)."""
        if label_values not in self.cache:
            return
        if shared:
            self.cache[label_values].set(math.nan)
        else:
            del self.cache[label_values]
            self.metric.remove(*label_values)


class Live(Collector):
    """The sum over worker processes, without what a worker has withdrawn.

    The library can't remove a label child from the files that workers share, so a withdrawn gauge is set
    to NaN there and left out here.
    """

    def __init__(self, folder: Path) -> None:
        self.of_all = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for metric in self.of_all.collect():  # type: ignore[no-untyped-call]
            metric.samples = [sample for sample in metric.samples if not math.isnan(sample.value)]
            yield metric
