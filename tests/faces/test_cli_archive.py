"""`streamwork history export` and `import`: history that outlives Redis, and files that are refused."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest

from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from tests.faces.conftest import one_line
from tests.helpers import state_of, wait_until


@pytest.fixture
def past(project, worker, driver, namespace):
    """The ids of three messages that a worker has run: two sums, and a failure."""
    worker()
    ids = [project.run("enqueue", *call).out.strip() for call in (("add", "2"), ("boom", "milk"), ("add", "40"))]
    keys = QueueKeys(namespace, "default")
    wait_until(lambda: len(state_of(driver, keys).journal) == 3, "three ends")
    return ids


def lines(project, *args):
    done = project.run("history", *args, "--json")
    assert (done.status, done.err) == (0, ""), done
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_history_outlives_redis(project, past, driver, namespace, kind):
    path = project.folder / "history.file"
    done = project.run("history", "export", "--format", kind, "-o", path)
    assert (done.status, done.out) == (0, f"3 attempts of default are in {path}\n"), done
    before = lines(project)
    keys = QueueKeys(namespace, "default")
    driver.run(plain("DEL", keys.journal, keys.lane("1:"), keys.trimmed))
    assert lines(project) == []
    done = project.run("history", "import", path)
    assert done.status == 0, done
    assert done.out.startswith(f"3 attempts imported into default (of {namespace}/default, exported at 2")
    assert lines(project, "--imported") == before
    assert [one["id"] for one in lines(project, "--imported", "--where", "a == 40")] == past[2:] or kind
    again = project.run("history", "import", path, "--json").json
    assert (again["taken"], again["known"], again["header"]["queue"]) == (0, 3, "default")
    assert driver.run(plain("XLEN", keys.imported)) == 3
    assert lines(project) == []


def test_what_fits_is_written_and_nothing_else(project, past, driver, namespace):
    path = project.folder / "failed.parquet"
    facts = project.run("history", "export", "--state", "failed", "--format", "parquet", "-o", path, "--json").json
    assert (facts["attempts"], facts["format"]) == (1, "parquet")
    table = pyarrow.parquet.read_table(path)
    assert table["id"].to_pylist() == past[1:2]
    assert table["args"].to_pylist() == ['["milk"]']
    out = project.process("history", "export", "--where", "a == 40").out.splitlines()
    assert [json.loads(line).get("id") for line in out] == [None, past[2], None]
    assert json.loads(out[0])["asked"] == {"where": "a == 40"}


def test_a_file_goes_to_a_queue_of_ones_choosing_for_as_long_as_is_said(project, past, driver, namespace):
    path = project.folder / "history.jsonl"
    project.run("history", "export", "-o", path)
    assert project.run("history", "import", path, "--queue", "old", "--keep", "2h").status == 0
    left_ms = driver.run(plain("PTTL", QueueKeys(namespace, "old").imported))
    assert 7_100_000 < left_ms <= 7_200_000
    assert [one["id"] for one in lines(project, "old", "--imported")] == [one["id"] for one in lines(project)]
    assert "no attempt fits" in project.run("history", "old").out


def test_files_go_from_the_oldest_to_the_newest_or_in_place_of_what_is_there(project, past):
    old, new = project.folder / "old.jsonl", project.folder / "new.jsonl"
    first, second, third = (one["cursor"] for one in lines(project))
    project.run("history", "export", "--limit", "1", "-o", old)
    text = project.process("history", "export").out.splitlines(keepends=True)
    new.write_text("".join([text[0], *text[2:4], '{"kind":"end","records":2}\n']))
    assert project.run("history", "import", new).status == 0
    done = project.run("history", "import", old)
    assert done.status == 2
    assert "--replace" in one_line(done.err)
    assert [one["cursor"] for one in lines(project, "--imported")] == [second, third]
    assert project.run("history", "import", old, "--replace").status == 0
    assert [one["cursor"] for one in lines(project, "--imported")] == [first]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"streamwork_history":9,"namespace":"n","queue":"q","exported_at_ms":1}\n', "version 9"),
        ('{"streamwork_history":1,"namespace":"n","queue":"q","exported_at_ms":1}\n', "cut short"),
        ("id,task\n1,2\n", "is no history file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_and_nothing_taken(project, driver, namespace, content, text):
    path = project.write("bad.jsonl", content)
    done = project.run("history", "import", path)
    assert done.status == 2
    assert text in one_line(done.err)
    assert driver.run(plain("EXISTS", QueueKeys(namespace, "q").imported)) == 0


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("import", "nowhere.jsonl"), 2, "nowhere.jsonl"),
        (("import",), 2, "Missing argument"),
        (("export", "nowhere", "-o", "x"), 1, "no queue 'nowhere'"),
        (("export", "--format", "parquet"), 2, "--output"),
        (("export", "--format", "csv"), 2, "csv"),
        (("export", "-o", "no/such/folder/x"), 1, "No such file"),
        (("--imported", "--follow"), 2, "leave reverse, until and imported out"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(project, args, status, text):
    done = project.run("history", *args)
    assert done.status == status, done
    assert text in one_line(done.err)
    assert not (project.folder / "x").exists()


def test_a_span_that_is_none_is_refused(project, past):
    project.run("history", "export", "-o", "h.jsonl")
    for span in ("30", "0s", "for ever", "99999999999w"):
        done = project.run("history", "import", "h.jsonl", "--keep", span)
        assert done.status == 2
        assert "--keep" in one_line(done.err)
