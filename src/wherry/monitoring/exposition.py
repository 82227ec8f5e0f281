"""Exposition: snapshots of workers in the text format that Prometheus reads.

`prometheus_client` is met here and nowhere else; it is an extra, ``wherry[metrics]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from .snapshot import METRICS, Snapshot

PREFIX = "wherry_"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def expose(snapshots: Mapping[str, Snapshot]) -> str:
    """The text of all metrics.

    Args:
        snapshots: worker -> its numbers; the worker "" is the only one, and is not named.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Workers(snapshots))
    return generate_latest(registry).decode()


class _Workers(Collector):
    """Shows snapshots as families, each with a sample, or some, for each worker."""

    def __init__(self, snapshots: Mapping[str, Snapshot]) -> None:
        self._snapshots = snapshots
        self._names = ["namespace"] if list(snapshots) == [""] else ["namespace", "worker"]

    def describe(self) -> Iterable[Metric]:
        """Nothing: it would have to collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for name, metric in METRICS.items():
            if name == "messages_total":
                yield self._messages(name, metric.about)
            elif metric.kind == "histogram":
                yield self._histogram(name, metric.about)
            else:
                family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                yield self._plain(family(PREFIX + name, metric.about, labels=self._names), name)
        yield from self._processes()

    def _labels(self, worker: str, snapshot: Snapshot) -> list[str]:
        return [snapshot.namespace, worker][: len(self._names)]

    def _messages(self, name: str, about: str) -> Metric:
        family = CounterMetricFamily(PREFIX + name, about, labels=[*self._names, "outcome"])
        for worker, one in self._snapshots.items():
            for outcome, count in one.outcomes.items():
                family.add_metric([*self._labels(worker, one), outcome], count)
        return family

    def _plain(self, family: CounterMetricFamily | GaugeMetricFamily, name: str) -> Metric:
        for worker, one in self._snapshots.items():
            if name in one.numbers:
                family.add_metric(self._labels(worker, one), one.numbers[name])
        return family

    def _histogram(self, name: str, about: str) -> Metric:
        family = HistogramMetricFamily(PREFIX + name, about, labels=self._names)
        for worker, one in self._snapshots.items():
            if name in one.histograms:
                bounds, counts, total = one.histograms[name]
                family.add_metric(self._labels(worker, one), _buckets(bounds, counts), total)
        return family

    def _processes(self) -> Iterator[Metric]:
        """What prometheus-client tells of a process, of each of them."""
        families: dict[str, Metric] = {}
        for worker, one in self._snapshots.items():
            labels = dict(zip(self._names, self._labels(worker, one), strict=True))
            for found in _process(one.pid):
                family = families.get(found.name)
                if family is None:
                    family = Metric(found.name, found.documentation, found.type)
                    families[found.name] = family
                for sample in found.samples:
                    family.add_sample(sample.name, labels, sample.value)
        yield from families.values()


def _process(pid: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: pid, registry=None).collect()


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    names = [f"{bound:g}" for bound in bounds]
    return list(zip([*names, "+Inf"], counts, strict=True))
