"""What a replay tells: what is sent anew, what one delivery does here, and how current code differs from the past."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from streamwork.errors import ConfigError
from streamwork.model.history import HistoryGap
from streamwork.model.instant import read_span
from streamwork.model.span import Seconds, milliseconds

# How a delivery compares with its past, the good news first.
SAME, NOW_SUCCEEDS, SLOWER = "same", "now_succeeds", "slower"
RESULT_DIFFERS, FAILS_DIFFERENTLY, NOW_FAILS = "result_differs", "fails_differently", "now_fails"
INCOMPATIBLE, NOT_COMPARED = "incompatible", "not_compared"
CHANGES = (SAME, NOW_SUCCEEDS, SLOWER, RESULT_DIFFERS, FAILS_DIFFERENTLY, NOW_FAILS, INCOMPATIBLE, NOT_COMPARED)
# Those that are differences of the code; what could not be compared is told, and is none.
DIFFERENCES = frozenset(CHANGES) - {SAME, NOT_COMPARED}
# What was compared: the result itself, its size where it is not kept any more, or only how it ended.
BY_RESULT, BY_SIZE, BY_ERROR, BY_STATE = "result", "size", "error", "state"

_FACTOR = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)x")
# The journal has whole milliseconds, and two cores are busy: less than this is no difference of the code.
_LEAST_MS = 10.0


class ReplayCall(msgspec.Struct, frozen=True, kw_only=True):
    """A past task message that a replay sends anew, or why it does not.

    Attributes:
        id: Of the past message; it is `replay_of` of the new one.
        task: Task name.
        queue, lane: Where the new one goes.
        args, kwargs: Arguments that it has, in their plain form; None and empty where they are not kept.
        made_at_ms: When the past one was enqueued, ms since 1970, UTC.
        new_id: Of the new one; empty until it is sent.
        why: Why it is not sent; empty = it is.
    """

    id: str
    task: str
    queue: str
    lane: str
    args: list[Any] | None
    kwargs: dict[str, Any]
    made_at_ms: int
    new_id: str = ""
    why: str = ""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay.

    Attributes:
        replay: Its id, which its log is named by; empty for a dry run.
        sent: Messages sent, or that would be.
        sent_before: Those that earlier runs of it had sent.
        refused: Id of each past message that is not sent, and why.
    """

    replay: str
    sent: int
    sent_before: int = 0
    refused: dict[str, str] = {}


class Captured(msgspec.Struct, frozen=True):
    """A call that a replayed body has sent, and that went nowhere.

    Attributes:
        task: Task name.
        queue: Where it would have gone.
        args, kwargs: Arguments in their plain form.
    """

    task: str
    queue: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a past delivery did when it ran here.

    Attributes:
        state: ``succeeded`` or ``skipped``; ``retried`` or ``dead`` where it raised, as its policy says for this
            attempt; ``crashed`` where it took its process along; ``incompatible`` where its arguments do not fit.
        result: Packed result; empty without one.
        error_type, detail, digest, traceback: Of what it raised, or why it was skipped; empty without.
        took_ms: How long its body ran.
        sends: What it sent.
        waited: It asked for what comes of something that it had sent, which nothing does here.
    """

    state: str
    result: bytes = b""
    error_type: str = ""
    detail: str = ""
    digest: str = ""
    traceback: str = ""
    took_ms: float = 0.0
    sends: list[Captured] = []
    waited: bool = False


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """How one past delivery compares with what current code does.

    Attributes:
        id, queue, task, cursor, attempt: Of the past delivery; `cursor` is where it stands in the journal.
        args, kwargs: Arguments in their plain form; None and empty where they are not kept.
        change: One of `CHANGES`.
        by: What was compared: ``result``, or where it is not kept any more its ``size``, or only the ``state``;
            ``error`` = class and digest of the failure; empty = nothing was.
        was, now: How it ended then, and now.
        note: The difference in a line; empty where there is none.
        diff: Of two results, line by line; empty where none can be shown.
        was_ms, now_ms: How long the body ran; None = not known.
        sends: How many calls the body sends now.
    """

    id: str
    queue: str
    task: str
    cursor: str
    attempt: int
    args: list[Any] | None
    kwargs: dict[str, Any]
    change: str
    by: str
    was: str
    now: str
    note: str = ""
    diff: str = ""
    was_ms: int | None = None
    now_ms: float | None = None
    sends: int = 0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a comparison.

    Attributes:
        queue: The queue.
        counts: How many of each of `CHANGES`.
        by: How many were compared by what, see `Compared.by`.
        different: All that are neither the same nor without a comparison, and those that could not be compared; in the
            order in which they ended.
        gaps: What of the history that was asked for is not kept.
        took_s: How long all of it took.
    """

    queue: str
    counts: dict[str, int]
    by: dict[str, int]
    different: list[Compared]
    gaps: list[HistoryGap]
    took_s: float

    @property
    def total(self) -> int:
        """How many deliveries were met."""
        return sum(self.counts.values())

    def differences(self, allowed: Iterable[str] = ()) -> int:
        """Return how many differ, those of the changes that are `allowed` apart."""
        return sum(count for change, count in self.counts.items() if change in DIFFERENCES - frozenset(allowed))


class Slower(msgspec.Struct, frozen=True):
    """From when on a body counts as slower; 0 = by that measure never.

    Attributes:
        factor: So many times the past, and 10 ms at least.
        span_ms: So much more than the past.
    """

    factor: float = 0.0
    span_ms: float = 0.0

    def is_slower(self, was_ms: float, now_ms: float) -> bool:
        """Return whether it is."""
        if self.factor:
            return now_ms > was_ms * self.factor and now_ms - was_ms >= _LEAST_MS
        return bool(self.span_ms) and now_ms - was_ms > self.span_ms


def slower_of(said: str | Seconds | None) -> Slower | None:
    """Return what ``slower=`` means: ``2x``, ``200ms``, seconds or a timedelta; raises ConfigError."""
    if said is None:
        return None
    if isinstance(said, str):
        found = _FACTOR.fullmatch(said.strip())
        if found is None:
            try:
                return Slower(span_ms=read_span(said, "slower"))
            except ConfigError:
                raise ConfigError(f"slower {said!r}: give a factor such as 2x, or a span such as 200ms or 1s") from None
        if float(found[1]) < 1:
            raise ConfigError(f"slower {said!r}: a factor is 1x or more")
        return Slower(factor=float(found[1]))
    if isinstance(said, bool) or not isinstance(said, (int, float, timedelta)):
        raise ConfigError(f"slower={said!r}: give a text such as '2x' or '200ms', seconds or a timedelta")
    return Slower(span_ms=milliseconds(said, "slower"))
