"""Spans by OpenTelemetry's conventions for messaging: one where a message is sent, one for each run of its body.

Imported where traces are on, and only there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, cast

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streamwork.errors import RetryLater, Skip

SYSTEM = "streamwork"
# The conventions are still being developed: these are their names as of 1.37 (2025), in one place.
_SYSTEM, _QUEUE, _MESSAGE = "messaging.system", "messaging.destination.name", "messaging.message.id"
_OPERATION, _OPERATION_TYPE = "messaging.operation.name", "messaging.operation.type"
_COUNT, _ERROR = "messaging.batch.message_count", "error.type"
_CLIENT = "messaging.client.id"
# And ours.
_TASK, _ATTEMPT, _OUTCOME = "streamwork.task", "streamwork.attempt", "streamwork.outcome"
_REPLAY_OF = "streamwork.replay_of"

# Of a message id the last 32 bits are random.
_IDS = 2**32
_FAILED = frozenset({"dead", "retried", "crashed"})
_propagator = TraceContextTextMapPropagator()


class Spans:
    """The spans of one process.

    Args:
        tracer: Makes them.
        share: Of the traces begun here, how many are; the others cost next to nothing and leave nothing.
    """

    def __init__(self, tracer: Tracer, share: float) -> None:
        self._tracer = tracer
        # Compared as text, which every run of an unsampled message pays for; "g" is more than any digit.
        self._keeps_below = f"{round(share * _IDS):08x}" if share < 1 else "g"

    def keeps(self, task_id: str) -> bool:
        """Whether this message gets a trace of its own where it is in none: all who have the same share agree."""
        return task_id[-8:] < self._keeps_below

    def send(self, queue: str, task: str, task_id: str) -> Sending | None:
        """Return the span of sending one message; None where it belongs to no trace."""
        if not _is_inside() and not self.keeps(task_id):
            return None
        attributes = {
            _SYSTEM: SYSTEM, _OPERATION: "send", _OPERATION_TYPE: "send", _QUEUE: queue, _TASK: task, _MESSAGE: task_id
        }  # fmt: skip
        sending = Sending(self._tracer, f"send {queue}", attributes)
        sending.begin()
        return sending

    def send_many(self) -> Sending:
        """Return the span of sending many; where it is in no trace it begins with the first message that has one."""
        sending = Sending(self._tracer, "send", {_SYSTEM: SYSTEM, _OPERATION: "send", _OPERATION_TYPE: "send"}, self)
        if _is_inside():
            sending.begin()
        return sending

    def process(
        self, queue: str, task: str, task_id: str, attempt: int, headers: Mapping[str, str], *,
        consumer: str = "", replay_of: str | None = None, link: str = "",
    ) -> Processing | None:  # fmt: skip
        """Return the span of one run, begun now; None where it belongs to no trace.

        Args:
            consumer: Who runs it.
            headers: Of the message; its ``traceparent`` is the parent.
            replay_of: Id of the message that it repeats.
            link: The ``traceparent`` of that one.
        """
        parent = _propagator.extract(headers, contexts.Context()) if "traceparent" in headers else None
        if parent is None and not self.keeps(task_id):
            return None
        attributes: dict[str, Any] = {
            _SYSTEM: SYSTEM, _QUEUE: queue, _OPERATION: "process", _OPERATION_TYPE: "process", _MESSAGE: task_id,
            _CLIENT: consumer, _TASK: task, _ATTEMPT: attempt,
        }  # fmt: skip
        if replay_of:
            attributes[_REPLAY_OF] = replay_of
        links = [Link(linked)] if (linked := _span_in(link)) is not None else None
        # An empty context, not None: what is current here is nothing of this message.
        inside = contexts.Context() if parent is None else parent
        span = self._tracer.start_span(
            f"process {queue}", inside, kind=SpanKind.CONSUMER, attributes=attributes, links=links
        )
        return Processing(span, inside)


def _is_inside() -> bool:
    # The first is empty almost always, and ten times cheaper.
    return bool(contexts.get_current()) and trace.get_current_span().get_span_context().is_valid


def _span_in(traceparent: str) -> SpanContext | None:
    if not traceparent:
        return None
    found = trace.get_current_span(_propagator.extract({"traceparent": traceparent}, contexts.Context()))
    return found.get_span_context() if found.get_span_context().is_valid else None


def current_ids() -> tuple[str, str] | None:
    """Return (trace id, span id) of the current span in hex, or None outside of any."""
    found = trace.get_current_span().get_span_context()
    return (f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else None


class Sending:
    """The span of a sending, current in its block; what is sent asks for its headers there.

    Args:
        tracer: Makes it.
        name, attributes: Its own.
        share: Says which messages begin it, where it has not begun; None = it has.
    """

    def __init__(self, tracer: Tracer, name: str, attributes: dict[str, Any], share: Spans | None = None) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._share = share
        self._span: Span | None = None
        self._headers: dict[str, str] = {}
        self._token: Any = None

    def begin(self) -> None:
        """Begin it."""
        self._share = None
        self._span = self._tracer.start_span(self._name, kind=SpanKind.PRODUCER, attributes=self._attributes)
        _propagator.inject(self._headers, trace.set_span_in_context(self._span))

    def headers(self, task_id: str) -> dict[str, str]:
        """Return what a message says of it; nothing where that one is in no trace."""
        if self._share is None:
            return self._headers
        if not self._share.keeps(task_id):
            return {}
        if self._span is None:
            share = self._share
            self.begin()
            self._share = share
        return self._headers

    def sent(self, count: int) -> None:
        """Note how many were sent."""
        if self._span is not None:
            self._span.set_attribute(_COUNT, count)

    def __enter__(self) -> Sending:
        if self._span is not None:
            self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            contexts.detach(self._token)
        if self._span is None:
            return
        if error is not None and kind is not None:
            self._span.set_attribute(_ERROR, kind.__qualname__)
            self._span.record_exception(error)
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()


class Processing:
    """The span of one run, current in its block, which is where the body runs; `end` comes with the outcome.

    Attributes:
        traceparent: What tells of it in another process.
    """

    __slots__ = ("_context", "_span", "_token", "traceparent")

    def __init__(self, span: Span, inside: contexts.Context) -> None:
        self._span = span
        self._context = trace.set_span_in_context(span, inside)
        self._token: Any = None
        headers: dict[str, str] = {}
        _propagator.inject(headers, self._context)
        self.traceparent = headers.get("traceparent", "")

    def __enter__(self) -> None:
        self._token = contexts.attach(self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:  # a body that was left behind ends in another context, if ever
            contexts.detach(self._token)
        is_failure = isinstance(error, Exception) and not isinstance(error, (Skip, RetryLater))
        if is_failure and self._span.is_recording():  # a thread that was abandoned comes after the end
            self._span.record_exception(cast(Exception, error))

    def end(self, outcome: str, error_type: str = "", detail: str = "") -> None:
        """End it with what came of the run."""
        self._span.set_attribute(_OUTCOME, outcome)
        if outcome in _FAILED:
            self._span.set_attribute(_ERROR, error_type or outcome)
            self._span.set_status(Status(StatusCode.ERROR, detail))
        self._span.end()


class Elsewhere:
    """The span of a run as it is current in a process of the pool, where only its ids are known."""

    def __init__(self, traceparent: str) -> None:
        self._context = _propagator.extract({"traceparent": traceparent}, contexts.Context())
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = contexts.attach(self._context)

    def __exit__(self, *_: object) -> None:
        contexts.detach(self._token)
