"""Prometheus's text format, in pieces of a millisecond or two: a thousand clients make thousands of lines."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_LINES: Final = 200


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        yield self._metric


def pieces(collector: Collector) -> Iterator[bytes]:
    """The exposition, to be joined. The values of a metric are of one moment, those of two are not where others have
    their turn in between."""
    for metric in collector.collect():
        samples = metric.samples
        yield b""
        for start in range(0, max(len(samples), 1), _LINES):
            metric.samples = samples[start : start + _LINES]
            text = generate_latest(_One(metric))
            yield text if start == 0 else text.split(b"\n", 2)[2]  # its help and its type are told once
