"""Series as Prometheus reads them."""

from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from todo_api.core.metrics import Kind, Metric, Series

CONTENT_TYPE = CONTENT_TYPE_LATEST


class SeriesCollector(Collector):
    """What ``read`` returns at the moment of a scrape, for a registry of prometheus_client."""

    def __init__(self, read: Callable[[], Iterable[Series]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Family]:
        families: dict[str, Family] = {}
        for series in sorted(self._read(), key=lambda one: (one.metric.name, one.labels)):
            family = families.setdefault(series.metric.name, _family(series.metric))
            _add(family, series)
        return families.values()


def exposition(series: Iterable[Series]) -> bytes:
    """Return the text for one scrape (of type CONTENT_TYPE)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SeriesCollector(lambda: series))
    return generate_latest(registry)


def _family(metric: Metric) -> Family:
    kinds = {
        Kind.COUNTER: CounterMetricFamily,
        Kind.GAUGE: GaugeMetricFamily,
        Kind.HISTOGRAM: HistogramMetricFamily,
    }
    family: Family = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
    return family


def _add(family: Family, series: Series) -> None:
    if isinstance(family, HistogramMetricFamily):
        *counts, total = series.values
        # Always with a point, as Prometheus 3 writes it: rules name these labels.
        bounds = [*map(floatToGoString, series.metric.buckets), "+Inf"]
        family.add_metric(series.labels, list(zip(bounds, accumulate(counts), strict=True)), total)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(series.labels, series.values[0])
