"""History files: what was written is read back as it was; what is cut short, garbled or of another version is not."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime

import msgspec
import pyarrow.parquet
import pytest

from streamwork.archive import parquet
from streamwork.archive.files import create, read
from streamwork.archive.form import VERSION, Header
from streamwork.errors import ConfigError, HistoryFileError, WireError
from streamwork.model.history import HistoryGap, HistoryRecord

HEADER = Header(VERSION, "shop", "mail", 1_795_000_000_000, {"state": "failed"})
KINDS = ["jsonl", "parquet"]


def record(number=1, **fields):
    whole = {
        "cursor": f"{number}-0", "queue": "mail", "id": "f" * 32, "task": "shop.send", "state": "dead", "attempt": 2,
        "crashes": 1, "lane": "1:eu,gpu", "tags": ("eu", "gpu"), "entry": "1-7", "worker": "w", "enqueued_at_ms": 1,
        "started_at_ms": None, "ended_at_ms": 3, "detail": "no – such", "error_type": "OSError",
        "error_digest": "c0ffee", "result_bytes": 0, "parent": "p", "trace_id": "t", "replay_of": "r",
        "args": [number, {"a": [None, 1.5]}], "kwargs": {"to": "a@b.c"}, "body": b"\x97\xff\n",
    }  # fmt: skip
    return HistoryRecord(**{**whole, **fields})


FOUND = [
    HistoryGap(queue="mail", what="attempts", since_ms=1, until_ms=2, trimmed_at_ms=3, why="keep.history_s = 5"),
    record(1), HistoryGap(queue="mail", what="arguments", lane="1:", until_ms=2),
    record(2, args=None, kwargs={}, body=None, enqueued_at_ms=None), record(3, tags=(), args=[], kwargs={}),
]  # fmt: skip


def write(path, kind, found, header=HEADER):
    writer = create(path, kind, header)
    for one in found:
        writer.write(one)
    writer.finish()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2_500])
def test_what_was_written_is_read_back(tmp_path, kind, count):
    path, found = tmp_path / "history", [*FOUND, *map(record, range(10, 10 + count))]
    write(path, kind, found)
    archive = read(path)
    assert archive.header == HEADER
    assert list(archive.found) == found
    assert [each.name for each in tmp_path.iterdir()] == ["history"]


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_without_a_form_of_their_own_are_in_the_message(tmp_path, kind):
    path = tmp_path / "history"
    write(path, kind, [record(1, args=[datetime(2026, 1, 1, tzinfo=UTC), b"\xff"]), record(2, kwargs={"a": {(1,): 2}})])
    first, second = read(path).found
    assert first.args == ["2026-01-01T00:00:00Z", "/w=="]
    assert second.body == b"\x97\xff\n"
    assert second.kwargs == {}


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_is_given_up_leaves_nothing_and_the_old_file(tmp_path, kind):
    path = tmp_path / "history"
    write(path, kind, FOUND)
    before = path.read_bytes()
    writer = create(path, kind, HEADER)
    writer.write(record(1))
    writer.give_up()
    assert [each.name for each in tmp_path.iterdir()] == ["history"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("version", "remedy"), [(VERSION + 1, "upgrade streamwork"), (0, "that wrote it")])
def test_a_file_of_another_version_is_refused_with_what_to_do(tmp_path, kind, version, remedy):
    path = tmp_path / "history"
    write(path, kind, FOUND, msgspec.structs.replace(HEADER, streamwork_history=version))
    with pytest.raises(HistoryFileError, match=f"version {version}.*{remedy}") as caught:
        read(path)
    assert isinstance(caught.value, WireError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, kind):
    path = tmp_path / "history"
    write(path, kind, [record(number) for number in range(5)])
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(HistoryFileError):
            list(read(path).found)


def test_json_lines_that_are_garbled_are_refused_by_number(tmp_path):
    path = tmp_path / "history"
    write(path, "jsonl", [record(1), record(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in (
        (2, b"no json\n"), (2, b'{"kind":"strange"}\n'), (3, b'{"kind":"attempt"}\n'),
        (4, b'{"kind":"end","records":7}\n'), (2, b""), (4, b'{"kind":"end","records":2}\nmore\n'),
    ):  # fmt: skip
        path.write_bytes(b"".join([*lines[: number - 1], line, *lines[number:]]))
        with pytest.raises(HistoryFileError, match="line "):
            list(read(path).found)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"{}\n", b"PAR1", b"PAR1garbagePAR1", b"\xff" * 100])
def test_what_is_no_history_file_is_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(HistoryFileError):
        list(read(path).found)


def test_parquet_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "other"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(HistoryFileError, match="no history file"):
        read(path)


def test_json_lines_are_for_everybody(tmp_path):
    path = tmp_path / "history"
    write(path, "jsonl", FOUND)
    header, gap, first, *_, end = map(json.loads, path.read_text().splitlines())
    assert header["streamwork_history"] == VERSION
    assert (gap["kind"], first["kind"], end) == ("gap", "attempt", {"kind": "end", "records": 3})
    assert (first["args"], first["body"]) == ([1, {"a": [None, 1.5]}], "l/8K")


def test_the_columns_of_parquet_are_the_fields_of_both_kinds():
    fields = {name for kind in (HistoryRecord, HistoryGap) for name in kind.__struct_fields__}
    assert set(parquet.COLUMNS) == fields | {"kind"}


def test_standard_output_takes_json_lines_only(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    write(None, "jsonl", FOUND)
    assert out.buffer.getvalue().count(b"\n") == len(FOUND) + 2
    with pytest.raises(ConfigError, match="--output"):
        create(None, "parquet", HEADER)


def test_without_pyarrow_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"streamwork\[parquet\]"):
        create(tmp_path / "x", "parquet", HEADER)
    assert list(tmp_path.iterdir()) == []
