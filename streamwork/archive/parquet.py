"""History as Parquet, for data frames and warehouses: one row per attempt or gap; needs the extra ``parquet``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamwork.archive.form import Archive, Header, One, checked
from streamwork.errors import ConfigError, HistoryFileError
from streamwork.model.history import HistoryGap, HistoryRecord

if TYPE_CHECKING:
    from types import ModuleType

_KEY = b"streamwork_history"
# Rows held at once: one row group of the file.
_GROUP = 1_000
# What has no one type is JSON.
_AS_JSON = ("args", "kwargs")
# A file's schema is a promise to whoever reads it with other tools; names are those of the records, both kinds of them.
COLUMNS = {
    "kind": "string", "queue": "string", "cursor": "string", "id": "string", "task": "string", "state": "string",
    "attempt": "int64", "crashes": "int64", "lane": "string", "tags": "list", "entry": "string", "worker": "string",
    "enqueued_at_ms": "int64", "started_at_ms": "int64", "ended_at_ms": "int64", "detail": "string",
    "error_type": "string", "error_digest": "string", "result_bytes": "int64", "parent": "string",
    "trace_id": "string", "replay_of": "string", "args": "string", "kwargs": "string", "body": "binary",
    "round": "int64", "what": "string", "since_ms": "int64", "until_ms": "int64", "trimmed_at_ms": "int64",
    "why": "string",
}  # fmt: skip


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow as arrow  # noqa: ICN001 - its own name says more than two letters
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: install the extra, as streamwork[parquet]") from error
    return arrow, parquet


class Parquet:
    """Writes to a file, which has its name once it is whole.

    Args:
        draft: Where to write.
        target: What the file is called in the end.
        header: Kept in its metadata.
    """

    def __init__(self, draft: Path, target: Path, header: Header) -> None:
        self._arrow, parquet = _arrow()
        kinds = {
            "string": self._arrow.string(), "int64": self._arrow.int64(), "binary": self._arrow.binary(),
            "list": self._arrow.list_(self._arrow.string()),
        }  # fmt: skip
        fields = [(name, kinds[kind]) for name, kind in COLUMNS.items()]
        self._schema = self._arrow.schema(fields, metadata={_KEY: msgspec.json.encode(header)})
        self._draft, self._target = draft, target
        self._rows: list[dict[str, Any]] = []
        self._file = parquet.ParquetWriter(draft, self._schema, compression="zstd")

    def write(self, one: One) -> None:
        """Add one record or gap."""
        row = {name: getattr(one, name) for name in one.__struct_fields__}
        for name in _AS_JSON:
            row[name] = _json(row.get(name))
        self._rows.append({"kind": "gap" if isinstance(one, HistoryGap) else "attempt", **row})
        if len(self._rows) == _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()

    def finish(self) -> None:
        """Say that this is all, and close."""
        self._flush()
        self._file.close()
        self._draft.replace(self._target)

    def give_up(self) -> None:
        """Close and leave no file behind."""
        self._file.close()
        self._draft.unlink(missing_ok=True)


def _json(value: Any) -> str | None:
    try:
        return None if value is None else msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None  # the stored message beside it has it


def read_parquet(path: Path) -> Archive:
    """Return what is in a file; raises HistoryFileError for one that is no history file of this version."""
    arrow, parquet = _arrow()
    try:
        file = parquet.ParquetFile(path)
        header = msgspec.json.decode((file.schema_arrow.metadata or {})[_KEY], type=Header)
    except (arrow.ArrowException, OSError) as error:
        raise HistoryFileError(f"{path} is cut short or garbled: {error}") from error
    except (KeyError, msgspec.MsgspecError) as error:
        raise HistoryFileError(f"{path} is no history file: `streamwork history export` writes one") from error
    return Archive(checked(header, path), _rows(path, file, arrow))


def _rows(path: Path, file: Any, arrow: Any) -> Iterator[One]:
    try:
        for batch in file.iter_batches(_GROUP):
            for row in batch.to_pylist():
                for name in _AS_JSON:
                    row[name] = None if row.get(name) is None else msgspec.json.decode(row[name])
                row["kwargs"] = row.get("kwargs") or {}
                kind = HistoryGap if row.get("kind") == "gap" else HistoryRecord
                yield msgspec.convert(
                    {name: row[name] for name in ("kind", *kind.__struct_fields__) if name in row}, One
                )
    except (arrow.ArrowException, OSError, msgspec.MsgspecError) as error:
        raise HistoryFileError(f"{path} is garbled: {error}") from error
