"""What the past says of a delivery: its journal record, its message, and its result while that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from streamwork.broker.steps import Steps
from streamwork.errors import DecodeError, ReplayRefused
from streamwork.history import HistoryOptions
from streamwork.model.history import DONE_TO_DEAD, HistoryGap, HistoryRecord
from streamwork.replay.body import Delivery
from streamwork.replay.host import Host
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import DROPPED, Result, TaskMessage, decode_message, decode_result

# A result may have a megabyte; so many are asked for at once.
_AT_ONCE = 25
# How calls end, as against attempts that are followed by another one.
CALLS = ("succeeded", "skipped", "dead")
# No body has ended in these.
NOT_RUN = frozenset({"cancelled", "expired", "deferred", *DONE_TO_DEAD})


class Past(NamedTuple):
    """A delivery of the past, and its result record; None where that is not kept any more."""

    record: HistoryRecord
    result: Result | None


def pasts(app: Host, queue: str, asked: HistoryOptions) -> Iterator[list[Past | HistoryGap]]:
    """Yield what fits, some at a time, with the results that are kept; raises what `Remembering.history` raises."""
    found = app.history(queue, **asked)
    keys, connection = app.connection.keys(queue), app.connection
    while some := list(islice(found, _AT_ONCE)):
        records = [one for one in some if isinstance(one, HistoryRecord)]
        results = iter(connection.ask(_results(keys, records)) if records else ())
        yield [Past(one, next(results)) if isinstance(one, HistoryRecord) else one for one in some]


def _results(keys: QueueKeys, records: Sequence[HistoryRecord]) -> Steps[list[Result | None]]:
    answers = yield [plain("GET", keys.result(record.id)) for record in records]
    return [_result_of(record, answer) for record, answer in zip(records, answers, strict=True)]


def _result_of(record: HistoryRecord, answer: bytes | None) -> Result | None:
    """Return the result if it is of this very delivery, and not of a later round."""
    try:
        result = None if answer is None else decode_result(answer)
    except DecodeError:
        return None
    if result is None or result.state != record.state or result.payload == DROPPED:
        return None
    return result if result.token.startswith(f"{record.worker}/{record.entry}/") else None


def why_not(record: HistoryRecord) -> str:
    """Say why a delivery cannot run here, its task apart; empty = it can."""
    if record.state in NOT_RUN:
        return f"no body ran: it is {record.state}"
    if record.body is None:
        return "its arguments are not kept"
    if record.args is None:
        return "its message cannot be read by this version"
    return ""


def message_of(record: HistoryRecord) -> TaskMessage:
    """Return the stored message; `why_not` is asked first."""
    try:
        return decode_message(record.body or b"")
    except DecodeError as error:
        raise ReplayRefused(f"task message {record.id}: {error}") from error


def delivery_of(app: Host, record: HistoryRecord, how: str) -> Delivery:
    """Return what runs; the task is known to be declared."""
    message = message_of(record)
    return Delivery(app.tasks[message.task], message, record.queue, record.lane, record.attempt, record.crashes, how)
