"""`streamwork tasks show`: one task message in each state of its life, found by its bare id."""

from __future__ import annotations

import signal

import pytest

from streamwork.broker import lookup
from streamwork.broker.lookup import find_task
from streamwork.broker.steps import ask
from streamwork.clock import SYSTEM_CLOCK
from streamwork.ids import new_task_id
from streamwork.model.state import State
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import Options
from tests.faces.conftest import one_line
from tests.helpers import body_of, seed, state_of, wait_until


def enqueue(project, *args):
    done = project.run("enqueue", *args)
    assert done.status == 0, done.err
    return done.out.strip()


def shown(project, task_id, *args):
    done = project.run("tasks", "show", task_id, "--json", *args)
    assert (done.status, done.err) == (0, "")
    return done.json


def until(project, task_id, state):
    wait_until(lambda: shown(project, task_id)["state"] == state, f"{task_id} to be {state}")
    return shown(project, task_id)


def test_waiting(project):
    task_id = enqueue(project, "add", "2", "--kwargs", '{"b": 3}')
    facts = shown(project, task_id)
    assert (facts["state"], facts["task"], facts["args"], facts["queue"], facts["lane"]) == (
        "waiting", "tasks.add", [2, 3], "default", "1:",
    )  # fmt: skip
    text = project.run("tasks", "show", task_id).out
    assert text.startswith(f"tasks.add {task_id} waiting\n")
    assert "call      add(2, 3)" in text


def test_running_and_where(project, worker):
    started = worker()
    task_id = enqueue(project, "nap", "60")
    facts = until(project, task_id, "running")
    assert facts["worker"]["pid"] in started.children
    assert facts["consumer"]
    assert f":{facts['worker']['pid']})" in project.run("tasks", "show", task_id).out


def test_succeeded(project, worker):
    worker()
    task_id = enqueue(project, "add", "2", "3")
    facts = until(project, task_id, "succeeded")
    assert (facts["result"], facts["args"], facts["failure"]) == (5, [2, 3], None)
    (record,) = facts["journal"]
    assert (record["state"], record["attempt"], record["task"]) == ("succeeded", 1, "tasks.add")
    assert "result    5" in project.run("tasks", "show", task_id).out


def test_dead_with_the_worker_s_traceback(project, worker):
    worker()
    task_id = enqueue(project, "boom", "milk")
    facts = until(project, task_id, "dead")
    assert (facts["failure"]["type_name"], facts["failure"]["message"]) == ("ValueError", "no milk")
    assert (facts["reason"], facts["args"]) == ("failed", ["milk"])
    assert facts["died_at_ms"] >= facts["created_at_ms"]
    text = project.run("tasks", "show", task_id).out
    assert 'raise ValueError("no " + what)' in text
    assert "ValueError: no milk" in text


def test_scheduled_for_another_run(project, worker):
    worker()
    task_id = enqueue(project, "flaky")
    facts = until(project, task_id, "scheduled")
    assert facts["attempt"] == 2
    assert 500_000 < facts["run_at_ms"] - SYSTEM_CLOCK.now_ms() <= 600_000
    assert [record["state"] for record in facts["journal"]] == ["retried"]
    assert "due       2" in project.run("tasks", "show", task_id).out


def test_quarantined_after_its_process_died_three_times(project, worker):
    worker()
    task_id = enqueue(project, "crash")
    wait_until(lambda: shown(project, task_id)["state"] == "dead", "the third crash", within_s=30)
    facts = shown(project, task_id)
    assert (facts["reason"], facts["crashes"], facts["attempt"]) == ("quarantined", 3, 1)
    assert "and 3 crashed" in project.run("tasks", "show", task_id).out


def test_an_undecodable_entry_is_found_by_the_name_of_its_dead_letter(project, driver, namespace, worker):
    keys = QueueKeys(namespace, "default")
    seed(driver, keys, body_of("tasks.add", 1))
    driver.run(plain("XADD", keys.lane("1:"), "*", "x", "y"))
    worker()
    wait_until(lambda: state_of(driver, keys).dead, "the dead letter")
    (name,) = state_of(driver, keys).dead
    assert name.startswith("entry-1:-")
    facts = shown(project, name)
    assert (facts["state"], facts["reason"], facts["args"]) == ("dead", "undecodable", None)
    assert "unreadable message" in project.run("tasks", "show", name).out


def test_what_was_given_back_waits(project, worker, driver, namespace):
    started = worker(settings={"worker.drain_timeout_s": 0.1})
    task_id = enqueue(project, "nap", "60")
    until(project, task_id, "running")
    started.signal(signal.SIGTERM)
    assert started.wait() == 0
    facts = shown(project, task_id)
    assert (facts["state"], facts["crashes"], facts["attempt"]) == ("waiting", 0, 1)


def test_a_mark_to_cancel_is_told(project, driver, namespace):
    task_id = enqueue(project, "add", "1")
    driver.run(plain("HSET", QueueKeys(namespace, "default").cancelled, task_id, "somebody"))
    assert shown(project, task_id)["cancel_asked"] is True
    assert "cancel    asked for" in project.run("tasks", "show", task_id).out


def test_an_id_with_hyphens_and_capitals_is_the_same_id(project):
    task_id = enqueue(project, "add", "1").upper()
    written = "-".join((task_id[:8], task_id[8:12], task_id[12:16], task_id[16:20], task_id[20:]))
    assert shown(project, written)["id"] == task_id.lower()


def test_no_trace_is_status_1(project):
    task_id = new_task_id()
    done = project.run("tasks", "show", task_id)
    assert done.status == 1
    assert f"no trace of task message {task_id} in default, mail of" in one_line(done.err)
    enqueued = enqueue(project, "send", "a@b.c")
    assert project.run("tasks", "show", enqueued, "-Q", "default").status == 1
    assert shown(project, enqueued, "-Q", "mail")["queue"] == "mail"


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


def test_an_entry_is_found_among_many_and_beyond_a_page(driver, keys):
    bodies = [body_of("t", number) for number in range(2_500)]
    entries = seed(driver, keys, *bodies)
    view = ask(driver, find_task([keys], bodies[2_345][0]))
    assert (view.state, view.args, view.entry) == (State.WAITING, [2_345], entries[2_345])


def test_an_id_within_another_body_is_not_taken_for_the_message(driver, keys):
    wanted = new_task_id()
    seed(driver, keys, body_of("t", wanted))
    seed(driver, keys, body_of("u", 7, task_id=wanted))
    view = ask(driver, find_task([keys], wanted))
    assert (view.task, view.args) == ("u", [7])


def test_a_bound_that_was_reached_is_told(driver, keys, monkeypatch):
    monkeypatch.setattr(lookup, "_PAGE", 10)
    monkeypatch.setattr(lookup, "MOST_ENTRIES", 20)
    bodies = [body_of("t", number) for number in range(40)]
    seed(driver, keys, *bodies)
    driver.run(plain("HSET", keys.cancelled, bodies[39][0], "me"))
    driver.run(plain("SET", keys.result(bodies[39][0]), b"token\nsucceeded\n\x07", "PX", 60_000))
    view = ask(driver, find_task([keys], bodies[39][0]))
    assert (view.state, view.result, view.args, view.is_whole) == (State.SUCCEEDED, 7, None, False)


def test_the_window_follows_the_time_in_the_id(driver, keys):
    now_ms = SYSTEM_CLOCK.now_ms()
    old = f"{now_ms - 3_600_000:012x}" + new_task_id()[12:]
    seed(driver, keys, body_of("t", task_id=old))
    assert ask(driver, find_task([keys], old)) is None
    slow = f"{now_ms - 60_000:012x}" + new_task_id()[12:]
    seed(driver, keys, body_of("t", task_id=slow))
    assert ask(driver, find_task([keys], slow)).state == State.WAITING


@pytest.mark.parametrize("name", ["entry-0:-1-1", "entry-1:a,b-0-0", "00000000000070008000000000000000"])
def test_a_time_before_all_time_is_no_trace(project, driver, keys, name):
    seed(driver, keys, body_of("t"))
    done = project.run("tasks", "show", name)
    assert done.status == 1
    assert f"no trace of task message {name}" in one_line(done.err)


def test_that_nobody_would_take_it_is_said(project, worker):
    task_id = enqueue(project, "send", "a@b.c")
    assert shown(project, task_id)["is_served"] is False
    text = project.run("tasks", "show", task_id).out
    assert "! no live worker offers tags {backend} on queue mail\n" in text
    assert "  start one: streamwork worker -Q mail --tags backend\n" in text
    other = enqueue(project, "nap", "60")
    worker("-Q", "default", settings={"worker.slots": 1})
    until(project, other, "running")
    assert shown(project, other)["is_served"] is None
    last = enqueue(project, "add", "1")
    assert shown(project, last)["is_served"] is True
    assert "no live worker" not in project.run("tasks", "show", last).out


def test_why_a_task_that_no_worker_knows_is_held(project, worker, namespace):
    worker()
    task_id = enqueue(project, "nobody.knows", "--name-only", "--namespace", namespace)
    until(project, task_id, "scheduled")
    assert "held      unknown task nobody.knows" in project.run("tasks", "show", task_id).out


def test_at_80_columns_no_word_is_broken_and_each_run_is_one_line(project, worker):
    project.write(
        "tasks.py",
        (project.folder / "tasks.py").read_text().replace("max_attempts=5, base=600", "max_attempts=3, base=0.01"),
    )
    project.write(
        "tasks.py",
        (project.folder / "tasks.py")
        .read_text()
        .replace('OSError("later")', 'OSError("the server at " + "mail.internal " * 12)'),
    )
    worker()
    task_id = enqueue(project, "flaky")
    until(project, task_id, "dead")
    text = project.run("tasks", "show", task_id, COLUMNS="80").out
    head, _, rest = text.partition("\n\n")
    journal = rest.partition("\n\n")[0].splitlines()
    assert max(map(len, [*head.splitlines(), *journal])) <= 80, text
    assert task_id in head
    assert "mail.inter\n" not in text
    assert [line.split()[1:3] for line in journal[1:]] == [["retried", "1"], ["retried", "2"], ["dead", "3"]]
    assert text.count("OSError: the server at") == 1, text  # in the traceback, and not told three times


def test_who_sent_it_and_what_it_repeats(project, driver, namespace):
    parent, first = new_task_id(), new_task_id()
    one = body_of("tasks.add", 1, options=Options(headers={"parent": parent}, replay_of=first))
    seed(driver, QueueKeys(namespace, "default"), one)
    facts = shown(project, one[0])
    assert (facts["parent"], facts["replay_of"]) == (parent, first)
    text = project.run("tasks", "show", one[0]).out
    assert f"sent by   task message {parent}" in text
    assert f"repeats   task message {first}" in text
