"""Series in the text form of Prometheus, by its own client library (extra ``prometheus``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from streamwork.errors import ConfigError
from streamwork.telemetry.meters import BOUNDS_S, METRICS, Metric, Series


def require_prometheus() -> None:
    """Raise ConfigError where the extra ``prometheus`` is not installed."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError(
            "telemetry.metrics_port (--metrics-port) needs the extra prometheus: "
            "pip install '<path to the clone>[prometheus]'"
        )


def exposition(series: Iterable[Series], accept: str) -> tuple[bytes, str]:
    """Return the text of series and its content type, in the form that a scraper asks for."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(_Once(list(series))), content_type


class _Once:
    """What the encoders take for a registry."""

    def __init__(self, series: list[Series]) -> None:
        self._series = series

    def collect(self) -> Iterator[Any]:
        by_name: dict[str, list[Series]] = {}
        for one in self._series:
            by_name.setdefault(one.name, []).append(one)
        for name, found in by_name.items():
            yield _family(METRICS[name], found)


def _family(metric: Metric, found: list[Series]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    labels = [name.replace(".", "_") for name in metric.attributes]
    family: Any = kinds[metric.kind](metric.prometheus_name, metric.help, labels=labels)
    for _, values, number in found:
        if metric.kind != "histogram":
            family.add_metric(values, number)
            continue
        *counts, total = number
        bounds = [*(f"{float(bound)}" for bound in BOUNDS_S), "+Inf"]
        family.add_metric(values, list(zip(bounds, accumulate(counts), strict=True)), total)
    return family
