"""How what a body does now compares with what is recorded of it: pure."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import msgspec

from streamwork.errors import WireError
from streamwork.model.history import FAILURES, HistoryRecord
from streamwork.model.replay import (
    BY_ERROR,
    BY_RESULT,
    BY_SIZE,
    BY_STATE,
    FAILS_DIFFERENTLY,
    INCOMPATIBLE,
    NOT_COMPARED,
    NOW_FAILS,
    NOW_SUCCEEDS,
    RESULT_DIFFERS,
    SAME,
    SLOWER,
    Compared,
    Ran,
    Slower,
)
from streamwork.replay.body import INCOMPATIBLE as DOES_NOT_FIT
from streamwork.replay.past import Past
from streamwork.task import Task
from streamwork.wire.codec import unpacker

_anything = unpacker(Any)
_FINE = ("succeeded", "skipped")
# Of a diff: a person reads so much, and a report of thousands stays small.
_MOST_LINES, _MOST_CHARACTERS = 60, 4_000
# What a worker says of a process that died, and what is said of it here.
CRASHES = frozenset({"Crashed", "Quarantined", "Lost"})


class Finding(NamedTuple):
    """What a comparison came to; see `Compared`."""

    change: str
    by: str
    note: str = ""
    diff: str = ""


def compared(past: Past, ran: Ran | None, finding: Finding) -> Compared:
    """Return a comparison as it is told; `ran` = None where the body did not run."""
    record = past.record
    has_run = record.started_at_ms is not None
    return Compared(
        id=record.id, queue=record.queue, task=record.task, cursor=record.cursor, attempt=record.attempt,
        args=record.args, kwargs=record.kwargs, change=finding.change, by=finding.by,
        was=_told(record.state, record.error_type), now="" if ran is None else _told(ran.state, ran.error_type),
        note=finding.note, diff=finding.diff,
        was_ms=max(0, record.ended_at_ms - (record.started_at_ms or 0)) if has_run else None,
        now_ms=None if ran is None else round(ran.took_ms, 3), sends=0 if ran is None else len(ran.sends),
    )  # fmt: skip


def _told(state: str, error_type: str) -> str:
    return f"{state}: {error_type}" if error_type else state


def judge(past: Past, ran: Ran, task: Task[..., Any], slower: Slower | None) -> Finding:
    """Return how a delivery that has run compares."""
    record = past.record
    if ran.state == DOES_NOT_FIT:
        return Finding(INCOMPATIBLE, "", ran.detail)
    if ran.waited:
        return Finding(NOT_COMPARED, "", "it waits for what comes of a call that it sends, and that is captured")
    was_fine, is_fine = record.state in _FINE, ran.state in _FINE
    if was_fine and not is_fine:
        return Finding(NOW_FAILS, BY_STATE, _error(ran.error_type, ran.detail))
    if is_fine and not was_fine:
        return Finding(NOW_SUCCEEDS, BY_STATE, f"was {_error(record.error_type, record.detail)}")
    found = _results(past, ran, task) if is_fine else _failures(record, ran)
    if found.change == SAME and slower is not None and record.started_at_ms is not None:
        was_ms = record.ended_at_ms - record.started_at_ms
        if slower.is_slower(was_ms, ran.took_ms):
            return Finding(SLOWER, found.by, f"took {was_ms} ms, and takes {ran.took_ms:.0f} ms now")
    return found


def _error(kind: str, detail: str) -> str:
    if f"{kind}: " in detail:  # the journal says why it is dead, and then the error
        detail = detail.partition(f"{kind}: ")[2]
    return " ".join(f"{kind}: {detail}".split())[:500].removesuffix(": ")


def _failures(record: HistoryRecord, ran: Ran) -> Finding:
    """Compare by class and by the way it came; texts name the very order, and a retry says the same as its end."""
    if record.error_type in CRASHES and ran.error_type in CRASHES:
        return Finding(SAME, BY_ERROR)
    note = f"was {_error(record.error_type, record.detail)}; is {_error(ran.error_type, ran.detail)}"
    if record.error_type != ran.error_type:
        return Finding(FAILS_DIFFERENTLY, BY_ERROR, note)
    if record.error_digest and ran.digest and record.error_digest != ran.digest:
        return Finding(FAILS_DIFFERENTLY, BY_ERROR, f"raised elsewhere: {note}")
    if record.state in FAILURES and ran.state != record.state:
        return Finding(FAILS_DIFFERENTLY, BY_ERROR, f"was {record.state}, would be {ran.state}: {note}")
    return Finding(SAME, BY_ERROR)


def _results(past: Past, ran: Ran, task: Task[..., Any]) -> Finding:
    record = past.record
    if record.state != ran.state:
        return Finding(RESULT_DIFFERS, BY_STATE, f"was {record.state}, is {ran.state}")
    if ran.state == "skipped":
        return Finding(SAME, BY_STATE)
    if past.result is None:
        if not record.result_bytes:
            return Finding(SAME, BY_STATE)
        if record.result_bytes == len(ran.result):
            return Finding(SAME, BY_SIZE)
        note = f"the result had {record.result_bytes:,} bytes and has {len(ran.result):,}; the old one is not kept"
        return Finding(RESULT_DIFFERS, BY_SIZE, note)
    was, now = past.result.payload, ran.result
    if was == now or _is_equal(was, now, task):
        return Finding(SAME, BY_RESULT)
    return Finding(RESULT_DIFFERS, BY_RESULT, *_difference(was, now))


def _is_equal(was: bytes, now: bytes, task: Task[..., Any]) -> bool:
    """Compare as the annotation reads them: a set has no order, and is stored with one."""
    try:
        return bool(task.signature.decode_result(was) == task.signature.decode_result(now))
    except Exception:  # noqa: BLE001 - the type may be another one now, and __eq__ is the user's code
        return False


def _difference(was: bytes, now: bytes) -> tuple[str, str]:
    old, new = _lines(was), _lines(now)
    note = (
        f"was {' '.join(part.strip() for part in old)}"[:200] + f", is {' '.join(part.strip() for part in new)}"[:200]
    )
    lines = list(difflib.unified_diff(old, new, "then", "now", lineterm=""))
    more = [f"… {len(lines) - _MOST_LINES:,} more lines"] if len(lines) > _MOST_LINES else []
    return note, "\n".join([*lines[:_MOST_LINES], *more])[:_MOST_CHARACTERS]


def _lines(payload: bytes) -> list[str]:
    try:
        value = _anything(payload)
        text = msgspec.json.format(msgspec.json.encode(value, enc_hook=repr, order="sorted"), indent=2).decode()
    except (WireError, TypeError, ValueError, msgspec.MsgspecError):
        text = repr(payload[:1_000])
    return text.splitlines()
