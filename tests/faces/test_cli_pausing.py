"""`streamwork pause` and `resume`, and where status, queues and doctor show it."""

from __future__ import annotations

from tests.faces.conftest import one_line
from tests.helpers import wait_until


def test_a_queue_is_paused_shown_and_resumed(project, worker):
    worker()
    assert project.run("enqueue", "add", "1", "--wait").status == 0
    done = project.run("pause", "--queue", "default", "--reason", "the night")
    assert (done.status, done.out) == (0, "queue default is paused\n")
    assert project.run("pause", "--queue", "default").out == "queue default is already paused\n"
    task_id = project.run("enqueue", "add", "2").out.strip()
    for command in ("status", "queues", "doctor"):
        assert "queue default is paused (the night): 1 waiting" in project.run(command).out
    (queue,) = project.run("queues", "-Q", "default", "--json").json
    assert (queue["paused"], queue["waiting"]) == (["queue"], 1)
    assert [each["name"] for each in project.run("status", "--json").json["degraded"]] == ["paused"]
    why = project.run("tasks", "why", task_id, "--json").json
    assert [each["code"] for each in why["reasons"]] == ["queue_paused"]
    assert "streamwork resume --queue default" in project.run("tasks", "why", task_id).out
    done = project.run("resume", "--queue", "default")
    assert (done.status, done.out) == (0, "queue default is resumed\n")
    wait_until(lambda: project.run("tasks", "show", task_id, "--json").json["state"] == "succeeded", "it runs")
    assert project.run("resume", "--queue", "default").out == "queue default is resumed: it was not paused\n"
    assert "paused" not in project.run("status").out


def test_a_task_is_paused_by_the_end_of_its_name_and_what_comes_up_is_held(project, worker):
    worker()
    assert project.run("enqueue", "greet", "a", "--wait").status == 0
    assert project.run("pause", "--task", "add").out == "task tasks.add is paused on default, mail\n"
    task_id = project.run("enqueue", "add", "2").out.strip()
    assert project.run("enqueue", "greet", "b", "--wait").status == 0
    wait_until(lambda: project.run("queues", "-Q", "default", "--json").json[0]["held"] == 1, "it is held")
    (queue,) = project.run("queues", "-Q", "default", "--json").json
    assert (queue["scheduled"], queue["waiting"], queue["next_at_ms"], queue["paused"]) == (
        0,
        0,
        None,
        ["task:tasks.add"],
    )
    shown = project.run("tasks", "show", task_id, "--json").json
    assert (shown["state"], shown["is_held"], shown["run_at_ms"]) == ("scheduled", True, None)
    assert "held      task tasks.add is paused" in project.run("tasks", "show", task_id).out
    assert "task tasks.add is paused on queue default: 1 held" in project.run("status").out
    why = project.run("tasks", "why", task_id, "--json").json["reasons"]
    assert [(each["code"], each["remedy"]) for each in why] == [
        ("task_paused", "streamwork resume --task tasks.add"),
    ]
    done = project.run("resume", "--task", "add", "--json").json
    assert (done["changed"], done["paused"]) == (["default", "mail"], False)
    wait_until(lambda: project.run("tasks", "show", task_id, "--json").json["state"] == "succeeded", "it runs")


def test_wrong_words_are_one_line(project):
    for words, said in (
        ((), "say what"),
        (("--task", "a", "--group", "b"), "give one of them"),
        (("--queue", "defualt"), "did you mean 'default'?"),
        (("--task", "ad"), "did you mean 'tasks.add'?"),
        (("--task", "tasks.ad"), "did you mean 'tasks.add'?"),
        (("--queue", "a b"), "use 1-100 letters"),
    ):
        for command in ("pause", "resume"):
            done = project.run(command, *words)
            assert done.status in (1, 2)
            assert said in one_line(done.err)
    assert project.run("pause", "--group", "tenant-7", "--queue", "default").out.startswith(
        "group tenant-7 is paused on"
    )
    assert project.run("resume", "--group", "tenant-7", "--queue", "default").status == 0
