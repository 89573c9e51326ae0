"""`streamwork history`: what is printed of attempts that real workers made, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from streamwork.ids import new_task_id
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from tests.faces.conftest import one_line
from tests.helpers import state_of, wait_until


@pytest.fixture
def past(project, worker, driver, namespace):
    """The ids of four messages that a worker has run: two sums, a failure, one that will be tried again."""
    worker()
    calls = [("add", "2", "3"), ("add", "40", "--kwargs", '{"b": 2}'), ("boom", "milk"), ("flaky",)]
    ids = []
    for call in calls:
        ids.append(project.run("enqueue", *call).out.strip())
        keys = QueueKeys(namespace, "default")
        wait_until(lambda: len(state_of(driver, keys).journal) == len(ids), lambda: f"{call} to end")  # noqa: B023
    return ids


def listed(project, *args):
    """Return the objects that --json prints."""
    done = project.run("history", *args, "--json")
    assert (done.status, done.err) == (0, ""), done
    return [json.loads(line) for line in done.out.splitlines()]


def test_every_attempt_is_a_line_in_the_order_of_their_ends(project, past):
    done = project.run("history")
    assert done.status == 0
    day, *lines = done.out.splitlines()
    assert day.endswith("(UTC)")
    assert [task_id in line for task_id, line in zip(past, lines, strict=True)] == [True] * 4
    assert "succeeded" in lines[0]
    assert lines[0].endswith("tasks.add(2, 3)")
    assert lines[1].endswith("tasks.add(40, 2)")
    assert lines[2].endswith("tasks.boom('milk'): failed: ValueError: no milk")
    assert "retried" in lines[3]
    narrow = project.run("history", COLUMNS="80").out.splitlines()
    assert len(narrow) == 9
    assert narrow[6].strip() == f"{past[2]}  failed: ValueError: no milk"


def test_what_fits_is_picked_by_each_option(project, past):
    def ids(*args):
        return [one["id"] for one in listed(project, *args)]

    assert ids() == ids("default", "--since", "1h", "--until", "now") == past
    assert ids("--reverse", "--limit", "2") == past[:1:-1]
    assert ids("--since", "2999-01-01") == ids("--until", "1h") == []
    assert ids("--task", "add") == ids("--task", "tasks.a*") == past[:2]
    assert ids("--state", "failed") == ids("--state", "dead, retried") == past[2:]
    assert ids("--state", "dead") == ids("--id", past[2]) == past[2:3]
    assert ids("--where", "a == 40 and b == 2") == past[1:2]
    assert ids("--where", "what == 'milk' or a < 10") == [past[0], past[2]]
    assert ids("--tag", "gpu") == []
    assert "no attempt fits" in project.run("history", "--tag", "gpu").out


def test_json_has_what_the_record_has(project, past):
    first = listed(project)[0]
    assert (first["kind"], first["args"], first["state"], first["attempt"]) == ("attempt", [2, 3], "succeeded", 1)
    assert first["result_bytes"] == 1
    assert first["enqueued_at_ms"] <= first["started_at_ms"] <= first["ended_at_ms"]
    assert "body" not in first


def test_without_the_app_positional_arguments_have_their_places(project, past, namespace):
    assert [one["id"] for one in listed(project, "--namespace", namespace, "--where", "arg0 == 40")] == past[1:2]
    assert listed(project, "--namespace", namespace, "--where", "a == 40") == []


def test_what_is_gone_is_a_gap(project, past, driver, namespace):
    keys = QueueKeys(namespace, "default")
    first, second = (row[0].decode() for row in driver.run(plain("XRANGE", keys.journal, "-", "+", "COUNT", 2)))
    driver.run(plain("XTRIM", keys.journal, "MINID", second))
    driver.run(plain("HSET", keys.trimmed, "journal", f"{second} 1795000000000 keep.history_s = 3600"))
    gap, *rest = listed(project, "--since", "1h")
    assert (gap["kind"], gap["what"], len(rest)) == ("gap", "attempts", 3)
    line = project.run("history", "--since", "1h").out.splitlines()[0]
    assert line.startswith("! attempts from ")
    assert line.endswith("are not kept: trimmed at 2026-11-18 11:06:40.000Z (keep.history_s = 3600)")
    if first.partition("-")[0] != second.partition("-")[0]:  # the message was made before what is kept
        done = project.run("history", "--id", past[0])
        assert done.status == 1
        assert "(keep.history_s = 3600)" in one_line(done.err)
        assert "2026-11-18 11:06:40Z" in done.err


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("nowhere",), 1, "no queue 'nowhere'"),
        (("defualt",), 1, "did you mean 'default'"),
        (("--since", "2 hours ago-ish"), 2, "--since '2 hours ago-ish' is no time"),
        (("--until", "late"), 2, "--until 'late' is no time"),
        (("--since", "1h", "--until", "2h"), 2, "since is behind until"),
        (("--where", "a = 1"), 2, "write =="),
        (("--where", "__import__('os')"), 2, "one too many"),
        (("--task", "add", "--where", "aa == 1"), 2, "has no argument 'aa': did you mean 'a'"),
        (("--state", "broken"), 2, "state 'broken'"),
        (("--id", "7"), 2, "'7' is not a task id"),
        (("--limit", "0"), 2, "--limit"),
        (("--follow", "--reverse"), 2, "leave reverse, until"),
        (("--tag", "no tag"), 2, "no tag"),
        (("--tag", "a", "mail", "more"), 2, "unexpected"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(project, args, status, text):
    done = project.run("history", *args)
    assert done.status == status, done
    assert text in one_line(done.err)


def test_an_id_that_nobody_knows_is_an_error(project):
    done = project.run("history", "--id", new_task_id())
    assert done.status == 1
    assert "no attempt of task message" in one_line(done.err)


def test_following_prints_what_comes_until_it_is_interrupted(project, worker):
    worker()
    with subprocess.Popen(
        [sys.executable, "-m", "streamwork", "history", "--follow", "--json"],
        cwd=project.folder, env=project.environ, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        ids = []

        def first_line():
            # It begins when it has connected, and nobody hears of that.
            ids.append(project.run("enqueue", "add", "1").out.strip())
            return not wait_for(process, 0.5)

        def wait_for(process, within_s):
            import select

            return not select.select([process.stdout], [], [], within_s)[0]

        wait_until(first_line, "a line", within_s=30)
        line = json.loads(process.stdout.readline())
        assert line["id"] in ids
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 130
