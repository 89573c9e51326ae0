"""`streamwork tasks cancel`: what is due, what waits, what runs, what has ended, and what is no id."""

from __future__ import annotations

import pytest

from tests.faces.conftest import one_line
from tests.faces.test_cli_tasks import enqueue, shown, until


def answer(project, task_id, *args):
    done = project.run("tasks", "cancel", task_id, "--json", *args)
    assert (done.status, done.err) == (0, "")
    return done.json["answer"]


def test_what_is_due_is_cancelled_here_and_now_and_as_often_as_one_likes(project):
    task_id = enqueue(project, "add", "1", "--delay", "3600")
    done = project.run("tasks", "cancel", task_id)
    assert (done.status, done.out) == (0, f"{task_id} cancelled\n")
    assert shown(project, task_id)["state"] == "cancelled"
    assert answer(project, task_id) == "cancelled"


def test_what_waits_is_cancelling_until_a_worker_comes(project, worker):
    task_id = enqueue(project, "add", "1")
    assert answer(project, task_id) == "requested"
    facts = shown(project, task_id)
    assert (facts["state"], facts["cancel_asked"], facts["terminate_asked"], facts["is_served"]) == (
        "cancelling", True, False, False,
    )  # fmt: skip
    text = project.run("tasks", "show", task_id).out
    assert "cancel    asked for: a worker has yet to drop it" in text
    assert "no live worker" in text
    worker()
    assert until(project, task_id, "cancelled")["journal"][0]["started_at_ms"] == 0
    assert answer(project, task_id) == "cancelled"


def test_what_runs_goes_on_unless_it_is_to_be_ended(project, worker):
    worker()
    task_id = enqueue(project, "nap", "60")
    until(project, task_id, "running")
    assert project.run("tasks", "cancel", task_id).out.startswith(f"{task_id} requested: a worker drops it, unless")
    assert shown(project, task_id)["state"] == "running"
    assert "asked for: it is not tried again" in project.run("tasks", "show", task_id).out
    assert answer(project, task_id, "--terminate") == "requested"
    facts = until(project, task_id, "cancelled")
    assert facts["failure"] == {"type_name": "Cancelled", "message": "cancelled while it ran", "traceback": ""}


def test_what_has_ended_otherwise_is_status_1(project, worker):
    worker()
    task_id = enqueue(project, "add", "1")
    until(project, task_id, "succeeded")
    done = project.run("tasks", "cancel", task_id, "--terminate")
    assert (done.status, done.out) == (1, "")
    assert "has ended, and not by a cancel" in one_line(done.err)


@pytest.mark.parametrize(
    ("task_id", "status", "words"),
    [("x", 2, "is not a task id"), ("01990000000070008000000000000000", 1, "no trace of")],
)
def test_what_is_no_id_or_unknown_is_one_line(project, task_id, status, words):
    done = project.run("tasks", "cancel", task_id)
    assert (done.status, done.out) == (status, "")
    assert words in one_line(done.err)
