"""What `status`, `workers` and `doctor` say of what goes on, but not as it should."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket

import pytest

from streamwork.clock import SYSTEM_CLOCK
from streamwork.errors import StoreError
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys
from tests.faces.conftest import one_line
from tests.helpers import body_of, seed, wait_until


@pytest.fixture
def keys(namespace):
    return QueueKeys(namespace, "default")


def degraded(project, *more):
    """Return (name, verdict, found) of what `status` says."""
    done = project.run("status", "--json", *more)
    assert done.status == 0, done
    return [(each["name"], each["verdict"], each["found"]) for each in done.json["degraded"]]


def test_all_is_well_with_a_worker_that_claims(project, worker):
    started = worker()
    wait_until(lambda: project.run("workers", "--json").json[0]["claimed_at_ms"], "its first claim is told", 10)
    assert degraded(project) == []
    text = project.run("workers").out
    assert "last claim" in text
    assert " ago" in text
    assert f"-{started.pid} " in text  # the supervisor's, which its log names


def test_a_worker_that_lives_and_does_not_claim(project, driver, keys):
    driver.run(plain("HSET", keys.consumers, "c1", json.dumps({"worker": "web1-7-abc", "host": "web1", "pid": 8})))
    driver.run(plain("SET", keys.alive("c1"), "1", "PX", 60_000))
    driver.run(plain("SET", keys.claimed("c1"), SYSTEM_CLOCK.now_ms() - 95_000, "PX", 60_000))
    ((name, verdict, found),) = degraded(project)
    assert (name, verdict) == ("workers", "warning")
    assert found.startswith("worker web1-7 is alive and has claimed no work for 95 s (process 8)")
    assert "has claimed no work" in project.run("doctor").out
    driver.run(plain("DEL", keys.alive("c1")))  # it falls silent
    row = project.run("workers").out.splitlines()[1]
    assert re.search(r" 9[5-9][.0-9]* s ago +silent$", row)
    driver.run(plain("UNLINK", keys.consumers))


def test_a_worker_that_is_silent_and_holds_work(project, worker):
    started = worker(settings={"liveness.ttl_s": 1})
    project.run("enqueue", "nap", "60")
    wait_until(lambda: project.run("workers", "--json").json[0]["in_hand"] == 1, "the worker has it")
    started.kill()
    wait_until(lambda: degraded(project), "its liveness to lapse")
    names = {name: found for name, _, found in degraded(project)}
    assert names["workers"] == f"worker {socket.gethostname()}-{started.pid} gives no sign of life and holds 1"


def test_a_lost_group_and_what_comes_back_of_it(project, driver, keys):
    seed(driver, keys, body_of("t"))
    driver.run(plain("XGROUP", "DESTROY", keys.lane("1:"), "workers"))
    what = "queue default: the consumer group of 1 lane(s) was destroyed; no task message is lost"
    assert degraded(project) == [("data", "failure", what)]
    assert project.run("doctor", "--json").status == 1
    driver.run(plain("XGROUP", "CREATE", keys.lane("1:"), "workers", "0"))
    driver.run(plain("HSET", keys.restoring, "1:", "0-0 1-1 1"))
    ((_, verdict, found),) = degraded(project)
    assert verdict == "warning"
    assert "coming back" in found
    driver.run(plain("UNLINK", keys.restoring))


def test_a_deleted_lane_counts_for_nothing_and_is_told(project, worker, driver, keys):
    seed(driver, keys, body_of("t"), body_of("t"))
    driver.run(plain("DEL", keys.lane("1:")))
    what = "queue default: 1 lane(s) were deleted, with 2 task messages on them"
    assert degraded(project) == [("data", "failure", what)]
    assert [(queue["queue"], queue["waiting"]) for queue in project.run("queues", "--json").json] == [
        ("default", 0), ("mail", 0),
    ]  # fmt: skip
    started = worker()
    started.until("data lost: a lane was deleted with all that waited or ran on it, and is made anew")
    assert "messages=2" in started.text()
    assert degraded(project) == []
    assert project.run("queues", "--json").json[0]["waiting"] == 0


def test_while_it_is_not_known_who_is_dead_nobody_s_work_is_taken(project, driver, keys):
    seed(driver, keys, body_of("t"))
    driver.run(scripts.read_new([(keys.lane("1:"),)], "gone", 1, None))
    silent = ("workers", "warning", "worker gone gives no sign of life and holds 1")
    assert degraded(project) == [silent]
    driver.run(plain("SET", keys.grace, "1", "PX", 50_000))
    note, *rest = degraded(project)
    assert rest == [silent]
    assert note[:2] == ("grace", "note")
    assert re.fullmatch(r"queue default: no dead worker's work is taken over for [45]\d\.\d s more", note[2])
    driver.run(scripts.register(keys, "gone", b"{}", 60_000))  # who holds it is alive: nothing waits for grace
    assert degraded(project) == []


def test_a_redis_that_has_few_connections_left_and_one_that_has_none(project, server):
    few, held = server(), []
    few.run("CONFIG", "SET", "maxclients", "10")

    def hold(count):
        for _ in range(count):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(few.socket_path)

    def is_refused():
        hold(1)  # what was there before may have left its place only now
        done = project.run("status", "--url", few.url)
        return done.status == 3 and one_line(done.err)

    try:
        hold(8)
        crowded = ("connections", "warning", "9 of 10")
        wait_until(lambda: degraded(project, "--url", few.url) == [crowded], "who asked before has left")
        done = project.run("doctor", "--url", few.url, "--json")
        check = next(check for check in done.json["checks"] if check["name"] == "connections")
        assert (done.status, check["verdict"], check["remedy"]) == (0, "warning", "raise maxclients")
        wait_until(is_refused, "there is no place left")
    finally:
        for each in held:
            each.close()


def test_a_redis_that_cannot_write_its_append_only_file(project, server):
    broken = server()
    if broken.run("INFO", "server").split(b"redis_version:")[1][:1] == b"6":
        pytest.skip("6.2 puts the file in place whole, and no file that fails can be slipped in")
    folder = broken.folder / "appendonlydir"
    folder.mkdir()
    (folder / "temp-appendonly.aof.incr").symlink_to("/dev/full")  # nothing can be written to that device
    broken.run("CONFIG", "SET", "appendonly", "yes")

    def has_failed():
        with contextlib.suppress(StoreError):  # it refuses writes from then on
            broken.run("SET", "x", "y")
        return b"aof_last_write_status:err" in broken.run("INFO", "persistence")

    wait_until(has_failed, "a write of the file fails")
    what = "the last write of the append-only file failed"
    assert degraded(project, "--url", broken.url) == [("persistence", "failure", what)]
    done = project.run("doctor", "--url", broken.url, "--json")
    checks = {check["name"]: check for check in done.json["checks"]}
    assert (done.status, checks["persistence"]["found"]) == (1, what)


def test_messages_whose_task_nobody_knows(project, worker, driver, keys):
    worker()
    seed(driver, keys, body_of("other.resize"), body_of("other.resize"))
    text = "2 of task other.resize wait in queue default: no worker that was offered them knows it"
    wait_until(lambda: degraded(project) == [("unknown", "warning", text)], lambda: project.run("status").out)
    assert text in project.run("doctor").out


def test_dead_letters_and_finished_work_in_files(project, worker, redis_url):
    worker()
    project.run("enqueue", "boom", "milk", "--wait")
    spool = project.folder / ".streamwork" / "spool"
    spool.mkdir(parents=True)
    (spool / "one.spool").write_bytes(b"")
    checks = {check["name"]: check for check in project.run("doctor", "--json").json["checks"]}
    assert checks["dead"]["found"] == "1 dead letter in queue default"
    assert (checks["spool"]["verdict"], checks["spool"]["found"][:6]) == ("warning", "1 file")


def test_a_redis_that_is_nearly_full(project, server):
    full = server("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    while int(_memory(full)["used_memory"]) < 0.9 * 8 * 1_048_576:
        full.run("APPEND", "ballast", "x" * 50_000)
    names = [name for name, _, _ in degraded(project, "--url", full.url)]
    assert names == ["memory"]


def _memory(server):
    rows = server.run("INFO", "memory").decode().splitlines()
    return dict(row.split(":", 1) for row in rows if ":" in row)


def test_what_never_ran_has_no_run(project):
    task_id = project.run("enqueue", "add", "1").out.strip()
    assert "\nrun " not in project.run("tasks", "show", task_id).out


def test_what_is_due_and_nobody_sends_on(project, driver, keys):
    seed(driver, keys, body_of("t"), due_at_ms=SYSTEM_CLOCK.now_ms() - 60_000)
    ((name, verdict, found),) = degraded(project)
    assert (name, verdict) == ("due", "warning")
    assert "what is scheduled has been due for 60 s" in found
    task_id = driver.run(plain("ZRANGE", keys.due, 0, 0))[0].decode()
    assert "ago: no live worker sends it on" in project.run("tasks", "show", task_id).out


def test_a_crash_is_still_told_when_the_task_has_succeeded(project, worker):
    started = worker(settings={"liveness.ttl_s": 1})
    task_id = project.run("enqueue", "nap", "1").out.strip()
    wait_until(lambda: "run       1" in project.run("tasks", "show", task_id).out, "it runs")
    os.kill(started.children[0], signal.SIGKILL)
    wait_until(lambda: project.run("tasks", "show", task_id, "--json").json["state"] == "succeeded", "it ends", 20)
    assert "and 1 crashed" in project.run("tasks", "show", task_id).out
