"""An OTLP receiver that takes everything and keeps nothing, so that sending telemetry costs a worker what it costs."""

from __future__ import annotations

import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Share of traces in each mode; metrics are sent in both.
SHARES = {"telemetry": "0.01", "telemetry_all": "1"}


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@cache
def sink_url() -> str:
    """Return where it listens, in this process and until that ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="sink", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def variables(mode: str) -> dict[str, str]:
    """Return what turns telemetry on for streamwork in one of these modes."""
    if mode not in SHARES:
        return {}
    return {
        "STREAMWORK_TELEMETRY_TRACES": "otlp",
        "STREAMWORK_TELEMETRY_METRICS": "otlp",
        "STREAMWORK_TELEMETRY_PUSH_S": "5",
        "STREAMWORK_TELEMETRY_SAMPLE": SHARES[mode],
        "STREAMWORK_TELEMETRY_OTLP_ENDPOINT": sink_url(),
    }
