"""An OTLP receiver in this process: real HTTP, the protobuf decoded, and what came kept."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Receiver:
    """Listens until it is closed; `spans` and `metrics` are what came, flat and in plain values."""

    def __init__(self):
        self.traces, self.sums = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}[self.path]
                (outer.traces if self.path == "/v1/traces" else outer.sums).append(kind.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self):
        """All spans so far."""
        return [
            SimpleNamespace(
                name=span.name, kind=span.kind, trace_id=span.trace_id.hex(), span_id=span.span_id.hex(),
                parent=span.parent_span_id.hex(), facts=_facts(span.attributes), status=span.status.code,
                links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                events=[_facts(event.attributes) for event in span.events], resource=_facts(part.resource.attributes),
            )
            for request in list(self.traces) for part in request.resource_spans
            for scope in part.scope_spans for span in scope.spans
        ]  # fmt: skip

    @property
    def metrics(self):
        """The last points of every metric and process: {(instance, name): metric}."""
        return {
            (_facts(part.resource.attributes)["service.instance.id"], metric.name): metric
            for request in list(self.sums) for part in request.resource_metrics
            for scope in part.scope_metrics for metric in scope.metrics
        }  # fmt: skip


def _facts(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
