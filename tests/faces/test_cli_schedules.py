"""`streamwork schedules …`: what is there, and changes of it, with and without --json."""

from __future__ import annotations

import json
import re

import pytest

from streamwork import Streamwork
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys, queues
from streamwork.store.planning import plan
from tests.faces.conftest import TASKS, one_line
from tests.helpers import state_of, wait_until

NINE = ("--cron", "0 9 * * mon-fri", "--tz", "Europe/Paris")
DECLARED = """

@app.every(30, args=(1,), overlap="skip")
@app.task
def declared(n: int) -> int:
    return n
"""


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


def run(project, *args, status=0):
    """Run `streamwork schedules …`; returns its output."""
    done = project.run("schedules", *args)
    assert (done.status, done.err) == (status, "")
    return done.out


def listed(project):
    return json.loads(run(project, "list", "--json"))["schedules"]


def test_what_is_added_is_listed(project, driver):
    assert "no schedules" in run(project, "list")
    assert run(project, "add", "report", "greet", "Bo", *NINE) == "schedule report: added\n"
    assert run(project, "add", "report", "greet", "Bo", *NINE) == "schedule report: the same already\n"
    run(project, "add", "tick", "tasks.add", "2", "--every", "30", "--missed", "all", "--overlap", "skip")
    report, tick = listed(project)
    assert (report["name"], report["task"], report["queue"]) == ("report", "tasks.greet", "default")
    assert (report["when"], report["tz"]) == ("0 9 * * mon-fri", "Europe/Paris")
    assert (report["missed"], report["overlap"], report["is_declared"]) == ("last", "queue", False)
    assert (tick["when"], tick["missed"], tick["overlap"], tick["problem"]) == ("every 30 s", "all", "skip", "")
    assert tick["next_at_ms"] % 30_000 == 0
    assert 0 < tick["next_at_ms"] - tick["last_at_ms"] <= 60_000
    lines = run(project, "list").splitlines()
    assert lines[0].split() == ["name", "task", "when", "next", "missed", "overlap", "state"]
    assert [line.split()[:2] for line in lines[1:]] == [["report", "tasks.greet"], ["tick", "tasks.add"]]
    assert "Europe/Paris" in lines[1]
    assert lines[2].split()[-1] == "added"


def test_another_one_of_that_name_needs_replace(project):
    run(project, "add", "tick", "add", "1", "--every", "30")
    done = project.run("schedules", "add", "tick", "add", "1", "--every", "60")
    assert done.status == 2
    assert "there is another schedule 'tick'" in one_line(done.err)
    assert [one["when"] for one in listed(project)] == ["every 30 s"]
    added = json.loads(run(project, "add", "tick", "add", "1", "--every", "60", "--replace", "--json"))
    assert added == {"schedule": "tick", "state": "added", "changed": True}
    assert [one["when"] for one in listed(project)] == ["every 60 s"]


def test_it_is_paused_resumed_and_removed(project):
    run(project, "add", "tick", "add", "1", "--every", "30")
    assert run(project, "pause", "tick") == "schedule tick: paused\n"
    assert run(project, "pause", "tick") == "schedule tick: paused already\n"
    (one,) = listed(project)
    assert (one["is_paused"], one["next_at_ms"]) == (True, None)
    assert run(project, "list").splitlines()[1].split()[-1] == "paused"
    assert json.loads(run(project, "resume", "tick", "--json")) == {
        "schedule": "tick", "state": "resumed", "changed": True,
    }  # fmt: skip
    assert run(project, "resume", "tick") == "schedule tick: not paused\n"
    assert listed(project)[0]["next_at_ms"]
    assert run(project, "remove", "tick") == "schedule tick: removed\n"
    assert listed(project) == []


def test_run_now_sends_and_says_where_it_may_not(project, driver, keys):
    run(project, "add", "tick", "add", "1", *NINE)
    task_id = run(project, "run-now", "tick").strip()
    assert list(state_of(driver, keys).due) == [task_id]
    sent = json.loads(run(project, "run-now", "tick", "--json"))
    assert (sent["schedule"], sent["sent"]) == ("tick", True)
    assert set(state_of(driver, keys).due) == {task_id, sent["id"]}
    run(project, "add", "alone", "add", "1", *NINE, "--overlap", "skip")
    run(project, "run-now", "alone")
    assert "has not ended" in run(project, "run-now", "alone", status=1)
    refused = json.loads(run(project, "run-now", "alone", "--json", status=1))
    assert refused == {"schedule": "alone", "id": None, "sent": False}
    assert len(state_of(driver, keys).due) == 3


def test_what_stands_in_code_and_what_keeps_a_schedule_from_firing(project, worker, driver, keys):
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + DECLARED)
    worker()
    (one,) = wait_until(lambda: listed(project), "it is declared")
    assert (one["name"], one["is_declared"], one["overlap"]) == ("tasks.declared", True, "skip")
    assert run(project, "list").splitlines()[1].split()[-1] == "declared"
    run(project, "add", "far", "elsewhere.task", "--every", "30", "--elsewhere")
    assert [one["problem"] for one in listed(project)] == ["no task 'elsewhere.task' in this app", ""]
    driver.run(plain("HDEL", keys.schedule_marks, "far"))
    driver.run(plain("HSET", keys.schedules, "odd", "garbage"))
    problems = {one["name"]: one["problem"] for one in listed(project)}
    assert "not a schedule" in problems["odd"]
    assert problems["far"]
    assert "not a schedule" in run(project, "list")
    run(project, "remove", "odd")
    path.write_text(TASKS.format(namespace=keys.namespace))
    problems = {one["name"]: one["problem"] for one in listed(project)}
    assert problems["tasks.declared"] == "no task 'tasks.declared' in this app"
    path.write_text(path.read_text() + DECLARED.replace("@app.every", "# "))
    problems = {one["name"]: one["problem"] for one in listed(project)}
    assert "this code declares it no more" in problems["tasks.declared"]


def test_what_is_removed_and_stands_in_code_is_said_to_come_back(project, driver, keys, namespace):
    app = Streamwork(namespace, settings={"url": project.environ["STREAMWORK_URL"]})
    app.every(30, args=(1,), overlap="skip")(app.task(name="tasks.declared")(lambda n: n))
    ((name, record),) = app.declared_schedules()["default"].items()
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + DECLARED)
    driver.run(plan(keys, name, "declare", record))
    driver.run(plain("SADD", queues(namespace), "default"))
    first, second = run(project, "remove", "declared").splitlines()
    assert first == "schedule tasks.declared: removed"
    assert second.startswith("it stands in code, and comes back with the next worker")
    assert "`streamwork schedules pause tasks.declared`" in second
    driver.run(plan(keys, name, "declare", record))
    path.write_text(TASKS.format(namespace=namespace))
    assert run(project, "remove", "declared") == "schedule tasks.declared: removed\n"


@pytest.mark.parametrize("command", ["pause", "resume", "remove", "run-now"])
def test_the_end_of_its_name_is_enough_where_only_one_has_it(project, command):
    run(project, "add", "shop.tick", "add", "1", *NINE)
    run(project, "add", "shop.tock", "add", "1", *NINE)
    if command == "run-now":
        assert json.loads(run(project, command, "tick", "--json"))["schedule"] == "shop.tick"
    else:
        assert run(project, command, "tick").startswith("schedule shop.tick: ")
    done = project.run("schedules", command, "tokc")
    assert done.status == 2
    assert "has no schedule 'tokc': did you mean shop.tock?" in one_line(done.err)
    run(project, "add", "mail.tock", "add", "1", *NINE)
    done = project.run("schedules", command, "tock")
    assert done.status == 2
    assert "did you mean mail.tock or shop.tock?" in one_line(done.err)


def test_without_code_it_is_not_said_what_is_missing_in_it(project, namespace):
    run(project, "add", "tick", "add", "1", "--every", "30")
    path = project.folder / "tasks.py"
    path.write_text(f"from streamwork import Streamwork\napp = Streamwork({namespace!r})\n")
    assert [one["problem"] for one in listed(project)] == [""]


def doctor(project):
    checks = project.run("doctor", "--json").json["checks"]
    return [(check["verdict"], check["found"], check["remedy"]) for check in checks if check["name"] == "schedules"]


def test_doctor_tells_of_schedules_that_do_not_fire(project, worker):
    assert doctor(project) == []
    run(project, "add", "rests", "add", "1", "--every", "30")
    run(project, "pause", "rests")
    rests = ("note", "schedule rests of queue default is paused", "streamwork schedules resume rests")
    assert doctor(project) == [rests]
    run(project, "add", "gone", "gone.task", "--every", "30", "--elsewhere")
    gone = (
        "warning", "schedule gone of queue default: no task 'gone.task' in this app",
        "correct it, or streamwork schedules remove gone",
    )  # fmt: skip
    nobody = (
        "warning", "nobody fires gone of queue default: no worker and no scheduler is there",
        "start one: streamwork worker, or streamwork scheduler",
    )  # fmt: skip
    assert doctor(project) == [nobody, gone, rests]
    worker()
    wait_until(lambda: doctor(project) == [gone, rests], "the worker's pulse is there")


def test_doctor_tells_of_a_schedule_that_those_who_are_there_do_not_fire(project, worker, driver, keys, namespace):
    worker()  # of code that does not declare it
    app = Streamwork(namespace, settings={"url": project.environ["STREAMWORK_URL"]})
    app.every(30, args=(1,), overlap="skip")(app.task(name="tasks.declared")(lambda n: n))
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + DECLARED)
    ((name, record),) = app.declared_schedules()["default"].items()
    driver.run(plan(keys, name, "declare", record))
    now_ms = driver.server_ms() // 30_000 * 30_000
    driver.run(plain("HSET", keys.schedule_marks, name, f"{now_ms - 30_000} -"))
    wait_until(lambda: doctor(project) == [], "the worker's pulse is there")
    driver.run(plain("HSET", keys.schedule_marks, name, f"{now_ms - 120_000} -"))
    ((verdict, what, remedy),) = doctor(project)
    assert verdict == "warning"
    said = re.fullmatch("schedule tasks.declared of queue default should have fired ([0-9]+) s ago, and has not", what)
    assert int(said[1]) >= 90
    assert remedy == "start a worker or scheduler of the code that declares it, and see its log"


@pytest.mark.parametrize("command", ["pause", "resume", "remove", "run-now"])
def test_one_that_is_not_there_is_one_line(project, command):
    done = project.run("schedules", command, "nightly")
    assert done.status == 2
    assert "has no schedule 'nightly'" in one_line(done.err)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["add", "x", "add", "1"], "give one of them"),
        (["add", "x", "add", "1", "--every", "5", *NINE], "give one of them"),
        (["add", "x", "add", "1", "--every", "0.1"], "every"),
        (["add", "x", "add", "1", "--cron", "99 * * * *"], "cron='99"),
        (["add", "x", "add", "1", "--cron", "0 9 * * *", "--tz", "Mars/Base"], "no such time zone"),
        (["add", "x", "ad", "1", "--every", "5"], "did you mean 'tasks.add'?"),
        (["add", "x", "add", "--every", "5"], "missing a required argument: 'a'"),
        (["add", "x", "add", "one", "--every", "5"], "expected int, got str"),
        (["add", "x y", "add", "1", "--every", "5"], "use 1-100 letters"),
        (["add", "x", "add", "1", "--kwargs", "[]", "--every", "5"], "JSON"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line_and_nothing_is_stored(project, driver, keys, args, said):
    done = project.run("schedules", *args)
    assert done.status == 2
    assert said in one_line(done.err)
    assert driver.run(plain("EXISTS", keys.schedules)) == 0


def test_a_policy_that_does_not_exist_is_told_with_those_that_do(project):
    done = project.run("schedules", "add", "x", "add", "1", "--every", "5", "--missed", "never")
    assert done.status == 2
    assert "'skip', 'last', 'all'" in done.err


def test_without_redis_it_is_an_error_of_its_own(project):
    done = project.run("schedules", "list", STREAMWORK_URL="redis://127.0.0.1:1/0")
    assert done.status not in (0, 2)
    assert "no Redis at 127.0.0.1:1" in one_line(done.err)


def test_one_process_does_all_of_it(project):
    """As a user does it: with the interpreter's own exit."""
    assert project.process("schedules", "add", "tick", "add", "1", "--every", "30").status == 0
    assert project.process("schedules", "list", "--json").json["schedules"][0]["name"] == "tick"
    assert project.process("schedules", "remove", "nobody").status == 2
