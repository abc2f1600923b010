"""Our metrics in Prometheus' text format, by its own client library.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from streamproc.metrics import BUCKETS_S, METRICS, Metric, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_BOUNDS = [*map(str, BUCKETS_S), "+Inf"]


class MetricsCollector(Collector):
    """Every metric of the table with its help and type, those without a series too."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        families = {metric.name: _family(metric) for metric in METRICS}
        for metric, labels, value, counts in self._metrics.samples():
            _add(families[metric.name], labels, value, counts)
        yield from families.values()


def exposition(metrics: Metrics) -> bytes:
    """The whole page at this moment."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(metrics))
    return generate_latest(registry)


def _family(metric: Metric) -> Family:
    return _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)


def _add(family: Family, labels: tuple[str, ...], value: float, counts: list[int] | None) -> None:
    if isinstance(family, HistogramMetricFamily):
        cumulative = accumulate(counts or [0] * len(_BOUNDS))
        family.add_metric(labels, buckets=list(zip(_BOUNDS, map(float, cumulative), strict=True)), sum_value=value)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(labels, value)
