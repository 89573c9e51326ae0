"""`streamwork tap`: what is printed or given to a program, how both end, and what is refused."""

from __future__ import annotations

import json
import sys

import pytest

from tests.faces.conftest import one_line


@pytest.fixture
def tapped(project):
    """A project with a tap that has three messages to read."""
    return [project.run("enqueue", "add", str(number)).out.strip() for number in range(3)]


SINCE = ("--group", "t", "--since", "1h", "--limit")


def test_messages_are_printed_and_as_json(project, tapped):
    lines = project.run("tap", "default", *SINCE, "2").out.splitlines()
    assert [task_id in line for task_id, line in zip(tapped, lines, strict=False)] == [True, True]
    assert lines[0].endswith("tasks.add(0)")
    (one,) = map(json.loads, project.run("tap", "default", *SINCE, "1", "--json").out.splitlines())
    assert (one["kind"], one["id"], one["args"], one["attempt"]) == ("message", tapped[2], [2], 1)
    assert "body" not in one


def test_a_program_gets_each_as_a_line_and_ends_by_itself(project, tapped):
    code = "import sys; open('heard', 'w').write(sys.stdin.read())"
    done = project.process("tap", "default", *SINCE, "3", "--", sys.executable, "-c", code)
    assert (done.status, done.out, done.err) == (0, "", "")
    heard = [json.loads(line)["id"] for line in (project.folder / "heard").read_text().splitlines()]
    assert heard == tapped


@pytest.mark.parametrize(("status", "answer"), [(0, 0), (7, 1)])
def test_where_the_program_ends_so_does_the_tap(project, tapped, status, answer):
    code = f"import sys; sys.stdin.readline(); sys.exit({status})"
    done = project.process("tap", "default", "--group", "t", "--since", "1h", "--", sys.executable, "-c", code)
    assert done.status == answer
    if status:
        assert one_line(done.err).endswith(f"ended with status {status}")


def test_a_tap_is_removed_once(project, tapped):
    project.run("tap", "default", *SINCE, "1")
    assert project.run("tap", "default", "--group", "t", "--remove").out == "tap t is removed\n"
    done = project.run("tap", "default", "--group", "t", "--remove")
    assert (done.status, "no tap 't'" in one_line(done.err)) == (1, True)


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("defualt", "--group", "t"), 1, "did you mean 'default'"),
        (("default",), 2, "--group"),
        (("default", "--group", "no name"), 2, "group 'no name'"),
        (("default", "--group", "t", "--since", "late"), 2, "is no time"),
        (("default", "--group", "t", "--", "./not-there"), 1, "./not-there: No such file"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(project, tapped, args, status, text):
    done = project.run("tap", *args)
    assert (done.status, text in one_line(done.err)) == (status, True), done
