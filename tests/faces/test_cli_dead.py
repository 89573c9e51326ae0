"""`streamwork dead`: what is shown of dead letters that real workers made, and what is done to them."""

from __future__ import annotations

import json

import pytest

from streamwork.ids import new_task_id
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from tests.faces.conftest import one_line
from tests.helpers import wait_until

MORE = """

@app.task(retry=Retry(max_attempts=2, base=0.01, jitter=False))
def fragile(order_id: int, to: str = "a@b.c") -> str:
    if not os.path.exists("fixed"):
        raise LookupError(f"no order {order_id}")
    return f"{order_id} to {to}"
"""


@pytest.fixture
def dead(project, worker, driver, namespace):
    """Ids of four dead letters of real workers: orders 7, 8 and 9, and one of another task."""
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + MORE)
    worker()
    ids = []
    for call in (("fragile", "7"), ("fragile", "8", "x@y.z"), ("boom", "milk"), ("fragile", "9")):
        ids.append(project.run("enqueue", *call).out.strip())
        wait_until(lambda: len(dead_ids(driver, namespace)) == len(ids), lambda: f"{call} to die")  # noqa: B023
    return ids


def dead_ids(driver, namespace):
    return [task_id.decode() for task_id in driver.run(plain("ZRANGE", QueueKeys(namespace, "default").dead, 0, -1))]


def lines(project, *args, status=0):
    """Return the objects that --json prints."""
    done = project.run("dead", *args, "--json")
    assert done.status == status, done
    return [json.loads(line) for line in done.out.splitlines()]


def result_of(project, task_id):
    return project.run("tasks", "show", task_id, "--json").json


def test_each_dead_letter_is_a_line_and_each_option_picks(project, dead):
    done = project.run("dead", "list")
    assert (done.status, done.err) == (0, "")
    found = done.out.splitlines()
    assert [task_id in line for task_id, line in zip(dead, found, strict=True)] == [True] * 4
    assert found[0].endswith("tasks.fragile(7): LookupError: no order 7")

    def ids(*args):
        return [one["id"] for one in lines(project, "list", *args)]

    orders = [dead[0], dead[1], dead[3]]
    assert ids() == ids("--since", "1h", "-Q", "default") == dead
    assert ids("--task", "fragile") == ids("--task", "tasks.f*") == orders
    assert ids("--where", "order_id >= 8") == [dead[1], dead[3]]
    assert ids("--limit", "2") == dead[:2]
    assert ids("--id", dead[2], "--id", dead[0]) == [dead[2], dead[0]]
    assert ids("--reason", "failed") == ids("--state", "failed,lost") == dead
    assert ids("--reason", "rejected") == ids("--until", "1h") == ids("--tag", "gpu") == []
    assert project.run("dead", "list", "--tag", "gpu").out == "no dead letter fits\n"
    narrow = project.run("dead", "list", "--limit", "1", COLUMNS="80").out.splitlines()
    assert narrow[1].strip() == f"{dead[0]}: LookupError: no order 7"


def test_everything_about_a_failure_is_shown(project, dead):
    shown = project.run("dead", "show", dead[1])
    assert shown.status == 0
    assert "tasks.fragile(8, 'x@y.z')" in shown.out
    assert 'raise LookupError(f"no order {order_id}")' in shown.out
    (facts,) = lines(project, "show", dead[1])
    assert (facts["reason"], facts["error_type"], facts["error"]) == ("failed", "LookupError", "no order 8")
    assert (facts["attempt"], facts["round"], facts["args"]) == (2, 1, [8, "x@y.z"])
    first, last = facts["attempts"]
    assert (first["state"], first["attempt"], last["state"], last["attempt"]) == ("retried", 1, "dead", 2)
    assert first["started_at_ms"] <= first["ended_at_ms"] <= last["started_at_ms"]
    assert all(each["worker"] and each["worker"] in shown.out for each in (first, last))


def test_a_crash_is_shown_with_the_signal_or_status_of_its_process(project, dead, driver, namespace):
    task_id = project.run("enqueue", "crash").out.strip()
    wait_until(lambda: task_id in dead_ids(driver, namespace), "the crashing one to be quarantined", 60)
    (facts,) = lines(project, "show", task_id)
    assert (facts["reason"], facts["crashes"]) == ("quarantined", 3)
    assert "status 3" in facts["error"]
    assert "status 3" in project.run("dead", "show", task_id).out


def test_what_is_retried_runs_again_under_its_id_in_a_new_round(project, dead):
    before = project.run("dead", "retry", "--task", "fragile", "--where", "order_id < 9", "--dry-run")
    assert before.status == 0
    assert before.out.splitlines() == [
        f"{dead[0]} would be retried: tasks.fragile(7) on default, lane 1:, round 2",
        f"{dead[1]} would be retried: tasks.fragile(8, 'x@y.z') on default, lane 1:, round 2",
        "2 would be retried",
    ]
    assert [one["id"] for one in lines(project, "list")] == dead
    project.write("fixed", "")
    refused = project.run("dead", "retry", "--task", "fragile", "--where", "order_id < 9")
    assert refused.status == 2
    assert "2 fit: give --yes to retry them, or --dry-run to see which" in one_line(refused.err)
    done = lines(project, "retry", "--task", "fragile", "--where", "order_id < 9", "--yes")
    assert [(one["id"], one["answer"], one["round"]) for one in done] == [(i, "retried", 2) for i in dead[:2]]
    for task_id, value in zip(dead, ("7 to a@b.c", "8 to x@y.z"), strict=False):
        wait_until(lambda: result_of(project, task_id)["state"] == "succeeded", "it runs")  # noqa: B023
        shown = result_of(project, task_id)
        assert (shown["result"], shown["reason"], shown["round"]) == (value, "", 2)
        assert "1 in round 2" in project.run("tasks", "show", task_id).out
        states = [(each["state"], each["round"], each["attempt"]) for each in shown["journal"]]
        assert states == [("retried", 1, 1), ("dead", 1, 2), ("requeued", 2, 2), ("succeeded", 2, 1)]
    assert [one["id"] for one in lines(project, "list")] == dead[2:]


def test_ids_are_retried_at_once_and_what_is_not_there_is_named(project, dead):
    project.write("fixed", "")
    nobody = new_task_id()
    done = project.run("dead", "retry", dead[0], nobody)
    assert done.status == 1
    assert done.out.splitlines()[0].startswith(f"{dead[0]} retried: tasks.fragile(7)")
    assert f"no such dead letter in default, mail: {nobody}" in one_line(done.err)
    assert project.run("dead", "retry", dead[1]).status == 0
    wait_until(lambda: result_of(project, dead[1])["state"] == "succeeded", "it runs")
    assert project.run("dead", "retry", dead[1]).status == 1
    assert project.run("dead", "show", dead[1]).status == 1


def test_what_fails_again_has_all_its_attempts_and_is_dead_in_the_next_round(project, dead, driver, namespace):
    for round_ in (2, 3):
        assert project.run("dead", "retry", dead[0]).status == 0
        wait_until(lambda: dead[0] in dead_ids(driver, namespace), "it to die again")
        (facts,) = lines(project, "show", dead[0])
        assert (facts["round"], facts["attempt"]) == (round_, 2)
    runs = [(each["state"], each["round"]) for each in facts["attempts"]]
    assert runs == [
        ("retried", 1), ("dead", 1), ("requeued", 2), ("retried", 2), ("dead", 2), ("requeued", 3), ("retried", 3),
        ("dead", 3),
    ]  # fmt: skip
    history = project.run("history", "--id", dead[0], "--state", "dead").out
    assert "(run 2)" in history
    assert "(round 3, run 2)" in history


def test_arguments_are_changed_only_where_they_fit_and_history_says_by_whom(project, dead):
    project.write("fixed", "")
    wrong = project.run("dead", "edit", dead[0], "--set", "order_id=many")
    assert (wrong.status, "order_id" in one_line(wrong.err)) == (2, True)
    unknown = project.run("dead", "edit", dead[0], "--set", "colour=red")
    assert (unknown.status, "colour" in one_line(unknown.err)) == (2, True)
    would = project.run("dead", "edit", dead[0], "--set", "order_id=70", "--dry-run")
    assert would.out == f"{dead[0]} would be edited: tasks.fragile(7) -> tasks.fragile(70)\n"
    assert lines(project, "show", dead[0])[0]["args"] == [7]
    (edited,) = lines(project, "edit", dead[0], "--set", "order_id=70", "--set", "to=me@x.org")
    assert (edited["before"]["args"], edited["after"]["args"]) == ([7], [70, "me@x.org"])
    assert project.run("dead", "retry", dead[0]).status == 0
    wait_until(lambda: result_of(project, dead[0])["result"] == "70 to me@x.org", "it runs with them")
    shown = result_of(project, dead[0])
    assert (shown["args"], shown["state"]) == ([70, "me@x.org"], "succeeded")
    (record,) = [json.loads(line) for line in project.run("history", "--state", "edited", "--json").out.splitlines()]
    assert (record["id"], record["detail"]) == (dead[0], "order_id=70, to='me@x.org'")
    assert "@" in record["worker"]
    assert project.run("dead", "edit", dead[0], "--set", "order_id=70").status == 1


def test_an_app_that_is_not_there_edits_what_it_can_see(project, dead, namespace):
    by_name = ("--namespace", namespace)
    edited = project.run("dead", "edit", dead[2], "--set", "arg0=tea", *by_name)
    assert edited.out == f"{dead[2]} edited: tasks.boom('milk') -> tasks.boom('tea')\n"
    assert lines(project, "show", dead[2], *by_name)[0]["args"] == ["tea"]


def test_all_are_purged_only_where_that_is_said_twice(project, dead, driver, namespace):
    assert project.run("dead", "purge").status == 2
    assert "4 fit: give --yes" in project.run("dead", "purge", "--all").err
    assert project.run("dead", "purge", "--all", "--dry-run").out.splitlines()[-1] == "4 would be purged"
    assert dead_ids(driver, namespace) == dead
    done = project.run("dead", "purge", "--all", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (0, "4 purged")
    assert project.run("dead", "list").out == "no dead letters\n"
    keys = QueueKeys(namespace, "default")
    assert driver.run(plain("EXISTS", keys.dead, keys.dead_body, *map(keys.result, dead))) == 0
    again = project.run("dead", "purge", "--all", "--yes")
    assert (again.status, again.out) == (0, "0 purged\n")
    assert project.run("tasks", "show", dead[0]).status == 0  # its history


def test_what_is_wrong_is_said_in_a_line(project, dead):
    for args, words in (
        (("list", "--since", "2 hours ago-ish"), "--since '2 hours ago-ish' is no time"),
        (("list", "--where", "order_id = 7"), "write == for equal"),
        (("list", "--task", "fragile", "--where", "ordr == 7"), "did you mean"),
        (("list", "--reason", "tired"), "task messages are dead because failed, rejected"),
        (("show", "milk"), "is not a task id"),
        (("list", "-Q", "nowhere"), "no queue 'nowhere'"),
        (("edit", dead[0], "--set", "order_id"), "give NAME=VALUE"),
        (("show", new_task_id()), "there is no dead letter"),
    ):
        done = project.run("dead", *args)
        assert done.status in (1, 2), args
        assert words in one_line(done.err), args


def test_garbage_is_listed_and_purged_and_never_retried(project, dead, driver, namespace):
    keys = QueueKeys(namespace, "default")
    driver.run(plain("XADD", keys.lane("1:"), "*", "what", "ever"))
    wait_until(lambda: len(dead_ids(driver, namespace)) == 5, "the garbage to be found")
    task_id = dead_ids(driver, namespace)[-1]
    (found,) = lines(project, "list", "--reason", "undecodable")
    assert (found["id"], found["task"], found["args"]) == (task_id, "", None)
    assert project.run("dead", "show", task_id).status == 0
    done = project.run("dead", "retry", task_id)
    assert (done.status, done.out.splitlines()[-1]) == (1, "0 retried, 1 not")
    assert "nothing of it can be read" in done.out
    assert project.run("dead", "edit", task_id, "--set", "arg0=7").status == 1
    assert project.run("dead", "purge", task_id).status == 0
