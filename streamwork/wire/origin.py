"""Where a task message came from, as its headers tell it: the message that sent it, and the trace."""

from __future__ import annotations

from streamwork.wire.message import Options

# The second is the W3C's: version-trace-parent-flags, of which the trace id counts here.
PARENT, TRACE_PARENT = "parent", "traceparent"


def origin_of(options: Options | None) -> tuple[str, str]:
    """Return (id of the parent, trace id); each is empty where no header says it."""
    if options is None or options.headers is None:
        return "", ""
    trace = options.headers.get(TRACE_PARENT, "").split("-")
    return options.headers.get(PARENT, ""), trace[1] if len(trace) >= 4 else ""
