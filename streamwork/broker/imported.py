"""History that was exported to a file and is taken back into Redis, beside what happens there now.

It has a stream of its own (``imported``), since a journal takes no older records than its newest, and lanes would run
what comes onto them. It lives for a while only: the file is what lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamwork.broker.steps import Steps
from streamwork.errors import HistoryFileError
from streamwork.model.history import HistoryGap, HistoryRecord
from streamwork.store.archiving import Imported, take_records
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import WIRE_VERSION, JournalRecord, encode_record

# One script call: what keeps Redis below a millisecond or two.
_MOST_AT_ONCE, _MOST_BYTES = 200, 262_144

Row = tuple[str, bytes, bytes]


def batches(found: Iterable[HistoryRecord | HistoryGap]) -> Iterator[list[Row]]:
    """Yield the records among what a file holds as they are stored, some at a time."""
    batch: list[Row] = []
    size = 0
    for one in found:
        if not isinstance(one, HistoryRecord):
            continue  # that something was missing then says nothing of now
        row = one.cursor, journal_of(one), one.body or b""
        batch.append(row)
        size += len(row[1]) + len(row[2])
        if len(batch) == _MOST_AT_ONCE or size >= _MOST_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def journal_of(record: HistoryRecord) -> bytes:
    """Return the journal record that a record of history was read from."""
    return encode_record(
        JournalRecord(
            WIRE_VERSION, record.id, record.task, record.state, record.lane, record.entry.encode(), record.attempt,
            record.worker, record.started_at_ms or 0, record.ended_at_ms, record.detail, record.crashes,
            record.result_bytes, record.error_type, record.error_digest, record.parent, record.trace_id,
            record.round,
        )
    )  # fmt: skip


def forget(keys: QueueKeys) -> Steps[None]:
    """Delete what was imported into a queue before."""
    yield [plain("UNLINK", keys.imported)]


def take(keys: QueueKeys, batch: list[Row], life_ms: int) -> Steps[Imported]:
    """Take one batch; raises HistoryFileError for records older than those that were imported before."""
    (answer,) = yield [take_records(keys, life_ms, batch)]
    if answer.taken < 0:
        raise HistoryFileError(
            f"record {batch[answer.known][0]} is older than what was imported into {keys.queue!r} before, and is not "
            "there: import files from the oldest to the newest, or give --replace"
        )
    return answer  # type: ignore[no-any-return]
