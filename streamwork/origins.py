"""What a message that is sent from here says of where it comes from: the task that sends it, and the trace."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from streamwork.config import TelemetryConfig
from streamwork.context import begun_by
from streamwork.wire.origin import PARENT

if TYPE_CHECKING:
    from streamwork.telemetry.tracing import Sending, Spans


class Origin:
    """The origin of what is sent in its block.

    Args:
        parent: Headers of the task that sends; empty = none does.
        sending: The span of it; None = it is in no trace.
    """

    __slots__ = ("_parent", "_sending")

    def __init__(self, parent: dict[str, str], sending: Sending | None = None) -> None:
        self._parent = parent
        self._sending = sending

    def headers(self, task_id: str) -> dict[str, str]:
        """Return what a message with this id says."""
        return self._parent if self._sending is None else self._parent | self._sending.headers(task_id)

    def sent(self, count: int) -> None:
        """Hear how many were sent."""
        if self._sending is not None:
            self._sending.sent(count)

    def __enter__(self) -> Origin:
        if self._sending is not None:
            self._sending.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending is not None:
            self._sending.__exit__(kind, error, trace)


_NOWHERE = Origin({})


class Origins:
    """Where what one app sends from this process comes from.

    Args:
        name: The app's.
        telemetry: Whether there are spans.
    """

    def __init__(self, name: str, telemetry: TelemetryConfig) -> None:
        self._name = name
        self._telemetry = telemetry
        self._spans: Any = None if telemetry.traces == "off" else ...  # made at the first use

    def one(self, queue: str, task: str, task_id: str) -> Origin:
        """Return the origin of one message; raises ConfigError where an extra is not installed."""
        context = begun_by()
        parent = {PARENT: context.task_id} if context is not None and context.task_id else {}
        sending = None if self._spans is None else self._made().send(queue, task, task_id)
        return Origin(parent, sending) if parent or sending is not None else _NOWHERE

    def many(self) -> Origin:
        """Return the origin of many messages; raises as `one`."""
        context = begun_by()
        parent = {PARENT: context.task_id} if context is not None and context.task_id else {}
        return Origin(parent, None if self._spans is None else self._made().send_many())

    def _made(self) -> Spans:
        if self._spans is ...:
            self._spans = spans_of(self._name, self._telemetry)
        return self._spans  # type: ignore[no-any-return]


def spans_of(name: str, telemetry: TelemetryConfig) -> Spans:
    """Return what makes this process's spans; raises ConfigError where the extra for it is not installed."""
    from streamwork.telemetry import setup  # imports the SDK

    return setup.spans(
        name, is_exported=telemetry.traces == "otlp", share=telemetry.sample, endpoint=telemetry.otlp_endpoint
    )


def flush_spans(within_s: float) -> None:
    """Send out the spans that wait; blocks for that long at most."""
    from streamwork.telemetry import setup

    setup.flush(within_s)
