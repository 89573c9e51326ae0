"""Who makes the spans of this process: the app's own TracerProvider, or one of ours that sends them out by OTLP.

Imported where traces are on, and only there.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

from streamwork.errors import ConfigError
from streamwork.telemetry import logs, tracing
from streamwork.telemetry.tracing import Spans

logger = logging.getLogger(__name__)

SCOPE = "streamwork"
_made: Spans | None = None
_flushing: threading.Thread | None = None


def spans(name: str, *, is_exported: bool, share: float, endpoint: str | None) -> Spans:
    """Return what makes this process's spans; made at the first call, whose arguments count.

    Args:
        name: The service's, where ``OTEL_SERVICE_NAME`` says none.
        is_exported: Send them out, unless the app has a TracerProvider by now.
        share: Of the traces begun here, how many are kept.
        endpoint: Base URL of the OTLP receiver; None = as the variables of OpenTelemetry say, else localhost.

    Raises:
        ConfigError: The extra ``otlp`` is not installed.
    """
    global _made  # noqa: PLW0603 - a process has one global TracerProvider
    if _made is None:
        tracer = None
        if is_exported and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            tracer = _provide(resource_of(name), share, endpoint).get_tracer(SCOPE)
        # The app's own sampler decides about those that our share lets through.
        _made = Spans(tracer or trace.get_tracer(SCOPE), share)
        logs.trace_of = tracing.current_ids
    return _made


def _provide(resource: Resource, share: float, endpoint: str | None) -> TracerProvider:
    """Make the process's TracerProvider, and return one beside it that keeps all it is asked for."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise missing("otlp", "telemetry.traces = 'otlp'") from error
    url = None if endpoint is None else endpoint.rstrip("/") + "/v1/traces"
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=url))
    # What bodies begin by themselves is sampled here; of ours it was decided before, at a tenth of the price.
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=resource)
    beside = TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=resource, shutdown_on_exit=False)
    for each in (provider, beside):
        each.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return beside


def resource_of(name: str) -> Resource:
    """Return what all that this process sends out says of it; variables of OpenTelemetry win."""
    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: name}))
    if SERVICE_INSTANCE_ID not in found.attributes:
        found = found.merge(Resource({SERVICE_INSTANCE_ID: f"{socket.gethostname()}-{os.getpid()}"}))
    return found


def missing(extra: str, setting: str) -> ConfigError:
    """Return what is said where a package is not there."""
    return ConfigError(f"{setting} needs the extra {extra}: pip install '<path to the clone>[{extra}]'")


def flush(within_s: float) -> None:
    """Send out the spans that wait, also those of the app's own provider; blocks for that long at most.

    While an earlier one still tries, because the receiver is away, this does nothing.
    """
    global _flushing  # noqa: PLW0603 - for the process's one provider
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "force_flush") and (_flushing is None or not _flushing.is_alive()):
        # Its own limit does not hold while a receiver is tried again.
        _flushing = threading.Thread(target=provider.force_flush, name="streamwork-flush", daemon=True)
        _flushing.start()
        _flushing.join(within_s)
