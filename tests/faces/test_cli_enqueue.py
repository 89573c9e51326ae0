"""`streamwork enqueue`: arguments, options, by name, and waiting for the result."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamwork.clock import SYSTEM_CLOCK
from streamwork.store.keys import QueueKeys
from streamwork.wire.message import decode_message
from tests.faces.conftest import one_line
from tests.helpers import state_of, wait_until


def sent(driver, namespace, queue="default"):
    """Return what lies on a queue's lanes: (lane, task, args and kwargs as bytes)."""
    found = state_of(driver, QueueKeys(namespace, queue)).lanes
    return [(lane, decode_message(fields["d"])) for lane, rows in found.items() for _, fields in rows]


def test_it_prints_the_id_and_nothing_else(project, driver, namespace):
    done = project.run("enqueue", "tasks.add", "2", "3")
    assert (done.status, done.err) == (0, "")
    ((lane, message),) = sent(driver, namespace)
    assert done.out == message.id + "\n"
    assert (lane, message.task, bytes(message.args)) == ("1:", "tasks.add", b"\x92\x02\x03")


@pytest.mark.parametrize(
    ("args", "packed"),
    [
        (["add", "-5", "3"], b"\x92\xfb\x03"),
        (["add", "3", "--", "-5"], b"\x92\x03\xfb"),
        (["add", "--kwargs", '{"a": 7}'], b"\x91\x07"),
        (["greet", "plain text"], b"\x91\xaaplain text"),
        (["greet", '"7"'], b"\x91\xa17"),
        (["greet", "NaN"], b"\x91\xa3NaN"),
        (["greet", "{not json"], b"\x91\xa9{not json"),
        (["when", "2026-01-01T00:00:00Z", "/a/b"], b"\x92\xb42026-01-01T00:00:00Z\xa4/a/b"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_are_json_or_else_text(project, driver, namespace, args, packed):
    assert project.run("enqueue", *args).status == 0
    ((_, message),) = sent(driver, namespace)
    assert bytes(message.args) == packed


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ad", "1"], "no task 'ad': did you mean 'tasks.add'?"),
        (["jobs.greet", "x"], "did you mean 'tasks.greet'?"),
        (["add", "x"], "argument 'a' of tasks.add: expected int, got str"),
        (["add"], "missing a required argument: 'a'"),
        (["add", "1", "2", "3"], "too many positional arguments"),
        (["add", "1", "--kwargs", '{"c": 1}'], "unexpected keyword argument 'c'"),
        (["greet", "7"], "argument 'name' of tasks.greet: expected str, got int"),
        (["when", "yesterday", "/a"], "argument 'at' of tasks.when"),
        (["add", "1", "--queue", "a b"], "queue 'a b'"),
        (["add", "1", "--tags", "a b"], "tag 'a b'"),
        (["greet", "x" * 1_100_000], "the message for tasks.greet takes 1,100,"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(project, driver, namespace, args, words):
    if len(args[-1]) > 100_000:
        project.write("tasks.py", (project.folder / "tasks.py").read_text().replace("app =", "MAX = 1\napp ="))
        args = [args[0], args[-1][:120_000]]  # what one argument of a program may hold
        words = "the message for tasks.greet takes 120,"
        done = project.run("enqueue", *args, STREAMWORK_CLIENT_MAX_BODY_BYTES="100000")
    else:
        done = project.run("enqueue", *args)
    assert done.status == 2
    assert words in one_line(done.err)
    assert done.out == ""
    assert sent(driver, namespace) == []


def test_options_change_where_it_goes(project, driver, namespace):
    done = project.run("enqueue", "add", "1", "--queue", "mail", "--tags", "gpu,big", "--priority", "9", "--json")
    assert done.status == 0
    ((lane, message),) = sent(driver, namespace, "mail")
    assert lane == "3:big,gpu"
    assert done.json == {
        "id": message.id, "task": "tasks.add", "queue": "mail", "lane": lane, "entry": done.json["entry"],
    }  # fmt: skip


def test_delay_and_at_put_it_into_due_and_expires_goes_with_it(project, driver, namespace):
    keys = QueueKeys(namespace, "default")
    before_ms = driver.server_ms()
    task_id = project.run("enqueue", "add", "1", "--delay", "3600.5").out.strip()
    ((found, at_ms),) = state_of(driver, keys).due.items()
    assert found == task_id
    assert before_ms + 3_600_500 <= at_ms <= driver.server_ms() + 3_600_500
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    zoned = later.astimezone(timezone(timedelta(hours=1))).isoformat()
    at = project.run("enqueue", "add", "2", "--at", zoned, "--expires", "864000").out.strip()
    state = state_of(driver, keys)
    assert state.due[at] == later.timestamp() * 1000
    options = decode_message(state.due_body[at].split(b"\n", 2)[2]).options
    assert SYSTEM_CLOCK.now_ms() + 863_000_000 < options.expires_at_ms <= SYSTEM_CLOCK.now_ms() + 864_000_000
    past = project.run("enqueue", "add", "3", "--at", "2001-01-01T00:00Z", "--json")
    assert (past.status, state_of(driver, keys).due[past.json["id"]]) == (0, 978_307_200_000)  # the server judges it


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--delay", "5", "--at", "2199-12-01T10:00Z"], "delay and run_at are two words for one thing"),
        (["--at", "tomorrow"], "'tomorrow' is no time in ISO 8601"),
        (["--at", "2199-12-01T10:00"], "say which time zone it is of"),
        (["--delay", "-1"], "--delay"),
        (["--delay", "nan"], "delay"),
        (["--expires", "0"], "--expires"),
    ],
    ids=" ".join,
)
def test_times_that_are_none_are_refused(project, driver, namespace, args, words):
    done = project.run("enqueue", "add", "1", *args)
    assert done.status == 2
    assert words in one_line(done.err)
    assert state_of(driver, QueueKeys(namespace, "default")).due == {}
    assert sent(driver, namespace) == []


def test_what_has_expired_is_told_by_wait(project, worker):
    worker("--slots", "1")
    held = project.run("enqueue", "nap", "1").out.strip()
    wait_until(lambda: project.run("tasks", "show", held, "--json").json["state"] == "running", "the slot is taken")
    done = project.run("enqueue", "add", "1", "--expires", "0.001", "--wait", "--json")
    assert (done.status, done.json["state"], done.json["failure"]["type"]) == (1, "expired", "Expired")


def test_the_task_s_own_options_count_without_any(project, driver, namespace):
    assert project.run("enqueue", "send", "a@b.c").status == 0
    assert [lane for lane, _ in sent(driver, namespace, "mail")] == ["2:backend"]


def test_by_name_nothing_is_imported_or_checked(project, driver, namespace):
    project.write("tasks.py", "raise SystemExit('imported')  # streamwork")
    done = project.run(
        "enqueue", "billing.close", "2026", "--name-only", "--namespace", namespace, "--queue", "billing",
        "--tags", "gpu", "--kwargs", '{"draft": true}',
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    ((lane, message),) = sent(driver, namespace, "billing")
    assert (lane, message.task, bytes(message.kwargs)) == ("1:gpu", "billing.close", b"\x81\xa5draft\xc3")


def test_where_there_is_no_app_a_namespace_is_enough(bare, driver, namespace, redis_url):
    done = bare.run("enqueue", "a.b", "1", "--url", redis_url, STREAMWORK_NAMESPACE=namespace)
    assert (done.status, done.err) == (0, "")
    assert [message.task for _, message in sent(driver, namespace)] == ["a.b"]
    done = bare.run("enqueue", "a.b", "1", "--url", redis_url)
    assert done.status == 2
    assert "or say its name with --namespace NAME" in one_line(done.err)


def test_an_app_that_is_broken_is_not_passed_over(project, driver, namespace):
    project.write("tasks.py", "import streamwork\n1 / 0\n")
    done = project.run("enqueue", "add", "1", STREAMWORK_NAMESPACE=namespace)
    assert done.status == 2
    assert "tasks.py:2: ZeroDivisionError" in one_line(done.err)
    assert sent(driver, namespace) == []


def test_wait_prints_the_result(project, worker):
    worker()
    done = project.run("enqueue", "add", "2", "3", "--wait", "--timeout", "20")
    assert (done.status, done.out) == (0, "5\n")
    assert len(done.err.strip()) == 32
    done = project.run("enqueue", "greet", "you", "--kwargs", '{"loud": true}', "--wait")
    assert (done.status, done.out) == (0, "YOU\n")
    done = project.run("enqueue", "when", "2026-01-01T00:00:00Z", "/x", "--wait", "--json")
    assert (done.json["state"], done.json["result"]) == ("succeeded", "2026-01-01T00:00:00Z")
    done = project.run("enqueue", "boom", "milk", "--wait")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == "streamwork: task tasks.boom is dead: ValueError: no milk"
    assert 'raise ValueError("no " + what)' in done.err  # the worker's traceback
    done = project.run("enqueue", "boom", "milk", "--wait", "--json")
    assert done.status == 1
    assert (done.json["state"], done.json["failure"]["type"]) == ("dead", "ValueError")
    assert json.loads(done.out)["failure"]["message"] == "no milk"


def test_wait_no_longer_than_the_timeout(project, worker):
    worker()
    done = project.run("enqueue", "nap", "60", "--wait", "--timeout", "0.2")
    assert (done.status, done.out) == (1, "")
    *_, last = done.err.splitlines()
    assert re.search(r"did not end within 0.2 s: it (is running, and goes on|waits for a free slot)$", last)
    assert "no live worker" not in done.err


@pytest.mark.parametrize(
    ("args", "offered", "what", "remedy"),
    [
        (["add", "1"], None, "no live worker reads queue default", "streamwork worker"),
        (["add", "1", "--tags", "gpu,big"], ["--tags", "gpu"], "no live worker offers tags {big, gpu} on queue default",
         "streamwork worker --tags big,gpu"),
        (["add", "1", "--queue", "mali"], [], "no live worker reads queue mali", "streamwork worker -Q mali"),
    ],
    ids=["nobody", "tags", "queue"],
)  # fmt: skip
def test_that_nobody_would_run_it_is_said_at_once_and_when_the_time_is_up(project, worker, args, offered, what, remedy):
    if offered is not None:
        worker(*offered)
    done = project.run("enqueue", *args, "--wait", "--timeout", "0.2", "--json")
    assert done.status == 1
    assert done.err == f"streamwork: waiting, but {what}: start one with {remedy}\n"
    assert done.json["error"]["message"].endswith(
        f"did not end within 0.2 s: it waits, and {what}: start one with {remedy}"
    )


def test_when_the_time_is_up_the_id_and_the_state_are_told(project, driver, namespace):
    said = ("enqueue", "add", "2", "3", "--at", "2199-12-01T10:00+01:00", "--wait", "--timeout", "0.1")
    done = project.run(*said, "--json")
    assert done.status == 1
    (task_id,) = state_of(driver, QueueKeys(namespace, "default")).due
    due = f"task message {task_id} did not end within 0.1 s: it is due at 2199-12-01 09:00:00 UTC"
    assert done.json == {
        "id": task_id, "task": "tasks.add", "queue": "default", "lane": "1:", "entry": "", "state": "scheduled",
        "error": {"code": "result_timeout", "message": due},
    }  # fmt: skip
    assert project.run("tasks", "show", done.json["id"], "--json").json["state"] == "scheduled"
    done = project.run(*said)
    assert (done.status, done.out) == (1, "")
    first, *_, last = done.err.splitlines()
    assert re.fullmatch(f"streamwork: task message {first} did not end within 0.1 s: it is due at .* UTC", last)


def test_a_redis_that_is_lost_meanwhile_leaves_the_id(project, server):
    own = server()

    def end():
        wait_until(lambda: b"cmd=xread" in own.run("CLIENT", "LIST"), "it was sent, and is waited for")
        own.close()

    ending = threading.Thread(target=end)
    ending.start()
    done = project.run("enqueue", "add", "2", "--url", own.url, "--wait", "--timeout", "2", "--json")
    ending.join()
    assert done.status in (1, 3)  # it had begun to wait, or not yet
    assert (len(done.json["id"]), done.json["state"]) == (32, None)
    assert done.json["error"]["code"] in ("result_timeout", "redis_unavailable")
