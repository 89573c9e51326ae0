"""Where a task message came from, as its headers tell it: the message that sent it, and the trace."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streamwork.wire.message import Options

# The second and third are the W3C's: version-trace-parent-flags, of which the trace id counts here, and what tracing
# systems add to it. The last is the second of the message that this one repeats.
PARENT, TRACE_PARENT, TRACE_STATE = "parent", "traceparent", "tracestate"
TRACE_LINK = "tracelink"


def origin_of(options: Options | None) -> tuple[str, str]:
    """Return (id of the parent, trace id); each is empty where no header says it."""
    if options is None or options.headers is None:
        return "", ""
    return options.headers.get(PARENT, ""), trace_id_in(options.headers.get(TRACE_PARENT, ""))


def trace_id_in(traceparent: str) -> str:
    """Return the trace id in a ``traceparent``; empty where it is none."""
    trace = traceparent.split("-")
    return trace[1] if len(trace) >= 4 else ""


def stamped(options: Options, origin: Mapping[str, str]) -> Options:
    """Return the options of a message that is sent from there; headers that it has already stay."""
    return msgspec.structs.replace(options, headers={**origin, **(options.headers or {})})


def repeated(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the headers of a message that repeats one with these: its origin is another, and its trace a link."""
    if headers is None:
        return None
    kept = {name: text for name, text in headers.items() if name not in (PARENT, TRACE_PARENT, TRACE_STATE)}
    if TRACE_PARENT in headers:
        kept[TRACE_LINK] = headers[TRACE_PARENT]
    return kept or None
