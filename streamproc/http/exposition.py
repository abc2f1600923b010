"""Our metrics in Prometheus' text format, by its own client library.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """Every metric of the table with its help and type, those without a series too. `jobs`: label values to a box of metrics."""

    def __init__(self, jobs: Mapping[tuple[str, ...], Metrics], *labels: str) -> None:
        self._jobs, self._labels = jobs, labels

    def collect(self) -> Iterator[Family]:
        families = {metric.name: _family(metric, self._labels) for metric in METRICS}
        for job, metrics in self._jobs.items():
            for metric, labels, value, counts in metrics.samples():
                _add(families[metric.name], (*job, *labels), value, counts)
        yield from families.values()


def exposition(metrics: Metrics) -> bytes:
    """The whole page of one job at this moment."""
    return _page(MetricsCollector({(): metrics}))


def exposition_of_jobs(jobs: Mapping[str, Metrics]) -> bytes:
    """The whole page of several jobs, by name: each series with the label `job`."""
    return _page(MetricsCollector({(job,): metrics for job, metrics in jobs.items()}, "job"))


def _page(collector: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _family(metric: Metric, labels: tuple[str, ...]) -> Family:
    return _FAMILIES[metric.kind](metric.name, metric.help, labels=(*labels, *metric.labels))


def _add(family: Family, labels: tuple[str, ...], value: float, counts: list[int] | None) -> None:
    if isinstance(family, HistogramMetricFamily):
        cumulative = accumulate(counts or [0] * len(_BOUNDS))
        family.add_metric(labels, buckets=list(zip(_BOUNDS, map(float, cumulative), strict=True)), sum_value=value)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(labels, value)
