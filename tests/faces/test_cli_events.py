"""`streamwork events`: what is printed of what happened, from where on, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from streamwork.store.keys import QueueKeys
from tests.faces.conftest import one_line
from tests.helpers import state_of, wait_until


@pytest.fixture
def past(project, worker, driver, namespace):
    """A worker that has run a sum and a failure, and a queue that was paused; the ids of both."""
    worker()
    ids = []
    for call in (("add", "2", "3"), ("boom", "milk")):
        ids.append(project.run("enqueue", *call).out.strip())
        wait_until(lambda: len(state_of(driver, QueueKeys(namespace, "default")).journal) == len(ids), "both to end")
    project.run("pause", "--queue", "default", "--reason", "tea")
    return ids


def listed(project, *args):
    """Return the objects that --json prints."""
    done = project.run("events", *args, "--json")
    assert (done.status, done.err) == (0, ""), done
    return [json.loads(line) for line in done.out.splitlines()]


def test_what_happened_is_a_line_each(project, past):
    lines = project.run("events").out.splitlines()
    assert len(lines) == 4
    assert "worker.started" in lines[0]
    assert lines[1].endswith(f"task.succeeded    default  tasks.add  {past[0]}")
    assert lines[2].endswith(f"{past[1]}  failed: ValueError: no milk")
    assert lines[3].endswith("queue.paused      default  tea  mark=queue")


def test_it_goes_on_behind_a_cursor_and_picks_by_type_and_queue(project, past):
    found = listed(project)
    assert [one["type"] for one in found] == ["worker.started", "task.succeeded", "task.dead", "queue.paused"]
    assert {one["kind"] for one in found} == {"event"}
    assert listed(project, "--since", found[1]["cursor"]) == found[2:]
    assert [one["id"] for one in listed(project, "--since", "1h", "--type", "task.*", "--queue", "default")] == past
    assert listed(project, "--limit", "1") == found[:1]
    assert listed(project, "--queue", "mail") == []
    assert "no event fits" in project.run("events", "--queue", "mail").out


def test_who_follows_hears_what_comes(project, past):
    command = [sys.executable, "-m", "streamwork", "events", "--follow", "--since", "1h", "--limit", "5", "--json"]
    with subprocess.Popen(command, cwd=project.folder, env=project.environ, stdout=subprocess.PIPE) as follower:
        lines = [json.loads(follower.stdout.readline()) for _ in range(4)]
        project.run("resume", "--queue", "default")
        assert json.loads(follower.stdout.readline())["type"] == "queue.resumed"
        assert follower.wait(20) == 0
    assert lines[-1]["type"] == "queue.paused"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--since", "2 hours ago-ish"), "is no time"), (("--since", ":1,x"), "give the cursor of an event"),
        (("--type", "worker"), "fits no event"), (("--limit", "0"), "--limit"), (("--queue", ""), "names no queue"),
        (("mail",), "unexpected"),
    ],
)  # fmt: skip
def test_what_is_refused_is_refused_in_one_line(project, args, text):
    done = project.run("events", *args)
    assert (done.status, text in one_line(done.err)) == (2, True), done
