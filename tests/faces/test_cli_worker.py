"""`streamwork worker`: settings from everywhere, signals, a Redis that comes late, embedded servers, reload, logs."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest

from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import QueueKeys, queues
from streamwork.store.sync_driver import SyncDriver
from tests.faces.conftest import TASKS, log_lines, one_line
from tests.helpers import body_of, seed, state_of, wait_until


def facts(worker, sentence="worker ready"):
    """Return the facts of the first log line with this sentence."""
    return next(line for line in log_lines(worker.log) if line["message"] == sentence)


def pids(project):
    return {row["pid"] for row in project.run("workers", "--json").json}


def result(project, *args):
    done = project.run("enqueue", *args, "--wait", "--timeout", "20", "--json")
    assert done.status == 0, done
    return done.json["result"]


def test_the_ready_line_says_what_it_is(project, worker, namespace):
    started = worker("--tags", "backend,gpu", "--slots", "7", "--processes", "2", "--json")
    line = facts(started)
    assert line.items() >= {
        "app": namespace, "queues": ["default", "mail"], "tags": ["backend", "gpu"], "slots": 7, "processes": 2,
    }.items()  # fmt: skip
    assert line["redis"].startswith(("Redis ", "Valkey "))
    assert len(started.children) == 2


def test_text_lines_are_for_people(project, worker):
    assert " info    worker ready app=" in worker().text()


def test_json_lines_go_to_standard_output_and_nothing_else_does(project):
    project.write("tasks.py", (project.folder / "tasks.py").read_text() + "\nprint('from the app')\n")
    done = project.process("worker", "--burst", "--json")
    assert done.status == 0
    assert [json.loads(line)["message"] for line in done.out.splitlines()][-2:] == ["draining", "stopped"]
    assert done.err == "from the app\n"


def test_its_last_line_says_how_much_it_has_settled(project, worker):
    for number in range(7):
        project.run("enqueue", "add", number)
    project.run("enqueue", "flaky")  # a retry is an end of its delivery, too
    started = worker("--burst", settings={"worker.max_tasks": 3}, ready=False)
    assert started.wait(within_s=30) == 0
    assert re.search(r" info    stopped settled=8$", started.text().strip())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_drains_what_runs(project, worker, driver, namespace, number, status):
    started = worker()
    project.run("enqueue", "nap", "1")
    keys = QueueKeys(namespace, "default")
    wait_until(lambda: state_of(driver, keys).in_flight, "the task to start")
    started.signal(number)
    assert started.wait() == status
    after = state_of(driver, keys)
    assert [found.state for found in after.results.values()] == ["succeeded"]
    assert after.consumers == set()
    assert "Traceback" not in started.text()


def test_ctrl_c_in_the_terminal_reaches_all_and_is_clean(project, worker):
    started = worker("--processes", "2")
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to the whole group
    assert started.wait() == 130
    assert "Traceback" not in started.text()


def test_burst_ends_when_all_is_done(project, driver, namespace):
    for number in range(5):
        project.run("enqueue", "add", number)
    assert project.process("worker", "--burst").status == 0
    assert len(state_of(driver, QueueKeys(namespace, "default")).results) == 5


def test_flags_beat_code_beats_variables(project, worker):
    text = TASKS.replace("Streamwork({namespace!r})", "Streamwork({namespace!r}, settings={{'worker.slots': 7}})")
    project.write("tasks.py", text.format(namespace=project.run("status", "--json").json["namespace"]))
    started = worker("--json", settings={"worker.slots": 50})
    assert facts(started)["slots"] == 7
    assert result(project, "slots") == [7, started.pid]
    started.signal()
    assert started.wait() == 0
    started = worker("--slots", "3", "--json", settings={"worker.slots": 50})
    assert facts(started)["slots"] == 3
    assert result(project, "slots") == [3, started.pid]
    (row,) = project.run("workers", "--json").json
    assert row["slots"] == 3


@pytest.mark.parametrize(("in_code", "in_environment"), [(3, 1), (1, 3)])
def test_the_number_of_processes_may_be_set_in_code(project, worker, namespace, in_code, in_environment):
    call = f"Streamwork({namespace!r}, settings={{'worker.processes': {in_code}}})"
    project.write("tasks.py", TASKS.format(namespace=namespace).replace(f"Streamwork({namespace!r})", call))
    started = worker("--json", settings={"worker.processes": in_environment})
    wait_until(lambda: len(started.children) == in_code, "as many processes as the app asks for")
    wait_until(lambda: len(project.run("workers", "--json").json) == in_code, "all to be registered")


def test_a_url_in_code_is_where_supervisor_and_process_meet(bare, worker, server, namespace):
    private = server()
    source = TASKS.format(namespace=namespace)
    bare.write("tasks.py", source.replace("Streamwork(", f"Streamwork(url={private.url!r}, name="))
    # Nothing listens where the environment points: only the code knows.
    started = worker(folder=bare.folder, redis_url="redis://127.0.0.1:1")
    assert result(bare, "add", "2", "3") == 5
    keys = QueueKeys(namespace, "default")
    (consumer,) = private.run("HKEYS", keys.consumers)
    assert private.run("EXISTS", keys.alive(consumer.decode())) == 1  # the supervisor beats there too
    assert bare.run("queues", "--json").json[0]["succeeded"] == 1
    elsewhere = server()
    assert bare.run("queues", "--url", elsewhere.url, "--json").json[0]["succeeded"] == 0
    started.signal()
    assert started.wait() == 0


def test_two_supervisors_and_producers_meet_on_one_embedded_server(bare, worker, namespace):
    bare.write("tasks.py", TASKS.format(namespace=namespace))
    started = [worker(folder=bare.folder, redis_url="") for _ in range(2)]  # no URL at all
    for number in range(2):
        done = bare.process("enqueue", "add", number, "--wait", "--timeout", "20")
        assert (done.status, done.out) == (0, f"{number + 1}\n"), done
    status = bare.process("status", "--json").json
    assert status["redis"]["embedded"] is True
    assert [row["alive"] for row in status["workers"]] == [True, True]
    assert [path.name for path in bare.folder.glob(".streamwork*")] == [".streamwork"]
    started[0].signal()
    assert started[0].wait() == 0
    assert bare.process("enqueue", "add", "9", "--wait", "--timeout", "20").out == "10\n"
    started[1].signal()
    assert started[1].wait() == 0


def test_it_waits_for_a_redis_that_is_down_and_heals(project, worker, server, namespace):
    private = server()
    private.stop()
    started = worker(redis_url=private.url, ready=False)
    started.until("waiting for Redis")
    private.start()
    started.until("worker ready")
    driver = SyncDriver(Endpoint(private.url), ())
    try:
        keys = QueueKeys(namespace, "default")
        seed(driver, keys, body_of("tasks.add", 1))
        wait_until(lambda: state_of(driver, keys).results, "the result")
    finally:
        driver.close()
    assert started.text().count("waiting for Redis") == 1


def test_it_can_be_stopped_while_it_waits_for_redis(project, worker):
    started = worker(redis_url="redis://127.0.0.1:1", ready=False)
    started.until("waiting for Redis")
    started.signal()
    assert started.wait() == 0


def test_burst_does_not_wait_for_ever(project):
    done = project.process("worker", "--burst", "--url", "redis://127.0.0.1:1", STREAMWORK_CLIENT_SEND_TIMEOUT_S="0.5")
    assert done.status == 3
    assert done.err.splitlines()[-1].startswith("streamwork: no Redis at 127.0.0.1:1 (")


def test_a_url_that_is_none_is_status_2(project):
    done = project.process("worker", "--url", "http://x")
    assert done.status == 2
    assert "'http://x' is not a Redis URL" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("variable", "words"),
    [("QUEUES", "worker.queues 'mail jobs' (set by"), ("TAGS", "worker.tags 'mail jobs' (set by")],
)
def test_a_name_that_cannot_be_one_is_status_2(project, variable, words):
    done = project.process("worker", **{f"STREAMWORK_WORKER_{variable}": "mail jobs"})
    assert done.status == 2
    assert words in one_line(done.err)


def test_an_empty_list_of_queues_is_not_all_of_them(project):
    done = project.process("worker", "-Q", "")
    assert done.status == 2
    assert "names no queue" in one_line(done.err)


def test_an_app_without_tasks_has_no_work(bare, redis_url):
    bare.write("tasks.py", "from streamwork import Streamwork\napp = Streamwork('none')\n")
    done = bare.process("worker", "--url", redis_url)
    assert done.status == 2
    assert done.err == "streamwork: app 'none' declares no task\n"


def test_a_bad_eviction_policy_is_a_warning_and_work_goes_on(project, worker, server):
    private = server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    started = worker(redis_url=private.url)
    assert "warning eviction policy is allkeys-lru" in started.text()
    done = project.run("enqueue", "add", "1", "--wait", "--timeout", "20", "--url", private.url)
    assert (done.status, done.out) == (0, "2\n")


def test_reload_takes_new_code_a_new_queue_and_survives_a_broken_file(project, worker, namespace):
    source = (project.folder / "tasks.py").read_text()
    started = worker("--reload", "--processes", "2", environ={"PYTHONDONTWRITEBYTECODE": "1"})
    first = pids(project)
    assert result(project, "greet", "old") == "old"

    def rewritten():
        # The watcher starts beside the worker: what is written before it looks is not seen, so write until it is.
        project.write("tasks.py", source + "\n\n@app.task(queue='fresh')\ndef added() -> str:\n    return 'new'\n")
        time.sleep(0.3)
        return "reloading" in started.text()

    wait_until(rewritten, started.text)
    assert result(project, "added") == "new"
    project.write("tasks.py", source + "\n1 / 0\n")
    started.until("waiting for a change")
    assert "ZeroDivisionError: division by zero" in started.text()
    project.write("tasks.py", source.replace("return to", "return to + '!'"))
    assert result(project, "greet", "back") == "back"
    wait_until(lambda: len(pids(project)) == 2, "two processes again")
    assert not first & pids(project)
    started.signal()
    assert started.wait() == 0
    assert "a duty of the supervisor failed" not in started.text()


def test_max_tasks_replaces_the_process(project, worker):
    started = worker("--max-tasks", "2", "--json")
    pids = set()

    def seen():
        assert project.run("enqueue", "add", "1", "--wait", "--timeout", "20").status == 0
        pids.update(started.children)
        return len(pids) >= 3

    wait_until(seen, "two replacements", within_s=30)
    assert started.process.poll() is None


def test_only_the_named_queues_are_read(project, worker, driver, namespace):
    worker("-Q", "mail", "--tags", "backend")
    project.run("enqueue", "add", "1")
    assert project.run("enqueue", "send", "a@b.c", "--wait", "--timeout", "20").status == 0
    assert state_of(driver, QueueKeys(namespace, "default")).undelivered == 1


def test_what_a_child_prints_is_printed_once(project, worker, redis_url):
    source = (project.folder / "tasks.py").read_text()
    project.write("tasks.py", source.replace("    return name.upper()", "    print('said', name); return name.upper()"))
    started = worker("--processes", "2")
    result(project, "greet", "me")
    started.signal()
    assert started.wait() == 0
    assert started.text().count("said me") == 1


def test_a_queue_of_the_worker_is_known_before_anything_is_sent(project, worker, driver, namespace):
    worker()
    found = driver.run(plain("SMEMBERS", queues(namespace)))
    assert sorted(found) == [b"default", b"mail"]
