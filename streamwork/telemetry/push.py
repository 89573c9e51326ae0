"""Metrics of one process by OTLP: a thread sends them out from time to time.

Imported where they are to be sent, and only there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as Sent
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from streamwork.clock import SYSTEM_CLOCK
from streamwork.telemetry.meters import BOUNDS_S, METRICS, Metric, Series
from streamwork.telemetry.setup import SCOPE, missing, resource_of

logger = logging.getLogger(__name__)

_SYSTEM = {"messaging.system": "streamwork"}
_LAST_S = 2.0


class Push:
    """Sends series until it is closed, and once more then.

    Args:
        name: The service's, where ``OTEL_SERVICE_NAME`` says none.
        endpoint: Base URL of the OTLP receiver; None = as the variables of OpenTelemetry say, else localhost.
        every_s: Seconds between two sendings.
        series: Asked for them, in a thread.

    Raises:
        ConfigError: The extra ``otlp`` is not installed.
    """

    def __init__(self, name: str, endpoint: str | None, every_s: float, series: Callable[[], list[Series]]) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        except ImportError as error:
            raise missing("otlp", "telemetry.metrics = 'otlp'") from error
        self._exporter = OTLPMetricExporter(endpoint=None if endpoint is None else endpoint.rstrip("/") + "/v1/metrics")
        self._resource = resource_of(name)
        self._every_s = every_s
        self._series = series
        self._begun_ns = _now_ns()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamwork-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            is_last = self._end.wait(self._every_s)
            try:
                self._exporter.export(to_otlp(self._series(), self._resource, self._begun_ns, _now_ns()))
            except Exception as error:  # noqa: BLE001 - the next sending has all of this one
                logger.warning("metrics are not sent", extra={"error": str(error)})
            if is_last:
                return

    def close(self) -> None:
        """Send them for the last time; blocks for two seconds at most."""
        self._end.set()
        self._thread.join(_LAST_S)


def _now_ns() -> int:
    return SYSTEM_CLOCK.now_ms() * 1_000_000


def to_otlp(series: Iterable[Series], resource: Resource, begun_ns: int, now_ns: int) -> MetricsData:
    """Return series in the form that exporters take; counts began at `begun_ns`."""
    points: dict[str, list[Any]] = {}
    for name, labels, value in series:
        metric = METRICS[name]
        facts = {**dict(zip(metric.attributes, labels, strict=True)), **_SYSTEM}
        points.setdefault(name, []).append(_point(metric, facts, value, begun_ns, now_ns))
    sent = [
        Sent(name=name, description=METRICS[name].help, unit=METRICS[name].unit, data=_data(METRICS[name], found))
        for name, found in points.items()
    ]
    scope = ScopeMetrics(InstrumentationScope(SCOPE), sent, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _point(metric: Metric, facts: dict[str, Any], value: Any, begun_ns: int, now_ns: int) -> Any:
    if metric.kind != "histogram":
        return NumberDataPoint(facts, begun_ns, now_ns, value)
    *counts, total = value
    # Neither the least nor the most is kept: no number says so.
    return HistogramDataPoint(
        facts, begun_ns, now_ns, int(sum(counts)), total, [int(count) for count in counts], BOUNDS_S,
        min=None, max=None,  # type: ignore[arg-type]
    )  # fmt: skip


def _data(metric: Metric, points: list[Any]) -> Any:
    if metric.kind == "histogram":
        return Histogram(points, AggregationTemporality.CUMULATIVE)
    if metric.kind == "gauge":
        return Gauge(points)
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
