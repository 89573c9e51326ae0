"""Options of `streamwork worker`, and what replaces its processes: burst, limits, reload, crashes, a failing start."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from streamwork import Rate
from streamwork.config import redis_for_tests
from streamwork.store.commands import plain
from streamwork.testing.server import PrivateServer
from tests.apps import faults, life
from tests.helpers import ROOT, wait_until
from tests.system.kit import is_gone, successes


@pytest.fixture
def work(start):
    """Start a worker of tests/apps/life.py."""
    return lambda **options: start("tests.apps.life:app", **options)


def ended_once(look, count):
    """Whether so many messages ended well, each once, in their first run."""
    state = look()
    counted = successes(state)
    assert set(counted.values()) <= {1}
    assert {(record.state, record.attempt) for record in state.journal} <= {("succeeded", 1)}
    return len(counted) == count


def test_burst_ends_when_all_that_is_there_is_done(work, send, look):
    handles = [send(life.work, 0.01 * (n % 10)) for n in range(60)]
    worker = work(args=["--burst"], ready=False, slots=5, processes=2)
    assert worker.wait() == 0
    assert ended_once(look, 60)
    assert len({handle.result(timeout=1) for handle in handles}) == 2
    assert (look().backlog, look().consumers) == (0, set())


def test_burst_runs_what_its_own_work_makes_room_for(work, send, look):
    handles = [send(life.work, 0.01, key="one") for _ in range(30)]
    assert work(args=["--burst"], ready=False, slots=5).wait() == 0
    assert ended_once(look, 30)
    assert all(handle.state() == "succeeded" for handle in handles)


def test_burst_takes_over_what_a_dead_worker_had(start, send, notes, look):
    dead = start(slots=1)
    handle = send(faults.hold, notes.path, "left")
    notes.until(1)
    dead.kill()
    notes.go()
    burst = start(args=["--burst"], ready=False)
    assert burst.wait() == 0
    assert handle.result(timeout=1) == (1, 0)
    assert [run.text for run in notes.runs()] == ["left", "left"]


def test_burst_ends_where_nothing_moves_in_a_line(work, send):
    for _ in range(2):
        send(life.work, 0.0, rate=Rate("1/h"))
    worker = work(args=["--burst"], ready=False)
    assert worker.wait() == 0
    assert "left for other workers, or for later queue=default waiting=1 scheduled=0" in worker.text()


def test_burst_says_what_it_leaves(work, send):
    send(life.work, 0.0, tags={"gpu"})
    worker = work(args=["--burst"], ready=False)
    assert worker.wait() == 0
    assert "left for other workers, or for later queue=default waiting=1 scheduled=0" in worker.text()


def test_burst_with_nothing_to_do_ends_soon(work, look):
    began = time.monotonic()
    assert work(args=["--burst"], ready=False).wait() == 0
    assert time.monotonic() - began < 2.5 * 3
    assert look().consumers == set()


def test_burst_does_not_wait_for_a_redis_that_is_away(start):
    worker = start(
        "tests.apps.life:app", redis_url="redis://127.0.0.1:1/0", args=["--burst"], ready=False,
        environ={"STREAMWORK_CLIENT_SEND_TIMEOUT_S": "0.3"},
    )  # fmt: skip
    assert worker.wait() == 3
    assert "127.0.0.1:1" in worker.text().splitlines()[-1]
    assert "Traceback" not in worker.text()


def test_max_tasks_replaces_the_process_while_work_goes_on(work, send, look):
    worker = work(args=["--max-tasks", "10"], slots=3)
    handles = [send(life.work, 0.02) for _ in range(60)]
    pids = {handle.result(timeout=20) for handle in handles}
    assert len(pids) >= 3
    assert ended_once(look, 60)
    assert "worker process died" not in worker.text()
    wait_until(lambda: len(look().consumers) == 1, "one process is registered")


def test_max_memory_replaces_the_process_and_what_runs_in_it_ends(work, send, look, notes):
    worker = work(args=["--max-memory", "150"], slots=3)
    (child,) = worker.children
    held = send(life.hold, notes.path, "held")
    notes.until(1)
    assert send(life.weigh, 200).result(timeout=10) == child
    worker.until("over max_memory")
    assert not is_gone(child)
    notes.go()
    assert held.result(timeout=10) == (1, 0)
    after = send(life.pid).result(timeout=20)
    assert after != child
    assert ended_once(look, 3)
    assert "worker process died" not in worker.text()


@pytest.mark.parametrize("limit", ["--max-tasks", "--max-memory"])
def test_what_runs_in_a_replaced_process_ends_in_its_own_time_and_holds_nobody_up(work, send, notes, look, limit):
    worker = work(args=[limit, "10" if limit == "--max-tasks" else "150"], drain_timeout_s=0.1)
    (first,) = worker.children
    held = send(life.hold, notes.path, "held")
    notes.until(1)
    if limit == "--max-memory":
        assert send(life.weigh, 200).result(timeout=10) == first
    pids = {send(life.pid).result(timeout=20) for _ in range(30)}
    wait_until(lambda: send(life.pid).result(timeout=20) != first, "another process works")
    assert not is_gone(first)
    assert first not in {send(life.pid).result(timeout=20) for _ in range(3)}
    assert (len(notes.runs()), pids <= {first, *worker.children} or limit == "--max-tasks") == (1, True)
    notes.go()
    assert held.result(timeout=10) == (1, 0)
    wait_until(lambda: is_gone(first), "it ends")
    assert "worker process died" not in worker.text()


def test_sigterm_gives_a_replaced_process_its_deadline_too(work, send, notes, look):
    worker = work(args=["--max-tasks", "1"], drain_timeout_s=0.2)
    (first,) = worker.children
    send(life.hold, notes.path, "held")
    notes.until(1)
    assert send(life.pid).result(timeout=20) != first
    worker.signal()
    assert worker.wait() == 0
    assert (look().returned, look().suspects, look().consumers) == ({"1:"}, {}, set())
    assert "worker process died" not in worker.text()


def test_burst_ends_when_redis_goes_away_for_good(start, namespace, notes, app):
    with PrivateServer(redis_for_tests()[1]) as server:
        app.configure({"url": server.url})
        app.task(name=life.hold.name)(life.hold.function).enqueue(notes.path, "x")
        worker = start(
            "tests.apps.life:app", redis_url=server.url, args=["--burst"], drain_timeout_s=0.2,
            environ={"STREAMWORK_CLIENT_SEND_TIMEOUT_S": "0.3"},
        )  # fmt: skip
        notes.until(1)
        server.stop()
        assert worker.wait() == 3
    assert "Redis went away" in worker.text().splitlines()[-1]
    assert "Traceback" not in worker.text()


def test_a_replica_is_not_waited_for_for_ever_by_a_new_worker(start):
    with PrivateServer(redis_for_tests()[1], "--replicaof", "127.0.0.1", "1") as server:
        worker = start(
            "tests.apps.life:app", redis_url=server.url, ready=False,
            environ={"STREAMWORK_CLIENT_SEND_TIMEOUT_S": "0.3"},
        )  # fmt: skip
        assert worker.wait() == 3
    assert "master" in worker.text().splitlines()[-1]
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize("task", [life.end_program, life.end_program_in_process], ids=["thread", "process"])
def test_a_program_that_a_body_starts_can_be_ended(work, send, task):
    work()
    assert send(task).result(timeout=30) == -signal.SIGTERM


def test_three_processes_share_the_work(work, send, look):
    worker = work(args=["--processes", "3"], slots=1)
    assert len(worker.children) == 3
    handles = [send(life.work, 0.05) for _ in range(30)]
    assert {handle.result(timeout=20) for handle in handles} == set(worker.children)
    assert len(look().consumers) == 3


def test_a_process_that_died_is_replaced_each_time_and_later_each_time(work, send, look):
    worker = work(slots=1)
    seen = set()
    for _ in range(3):
        child = send(life.pid).result(timeout=20)
        assert child not in seen
        seen.add(child)
        os.kill(child, signal.SIGKILL)
    assert send(life.pid).result(timeout=20) not in seen
    # What is left of the dead is not registered any more.
    wait_until(lambda: len(look().consumers) == 1, lambda: f"{look().consumers}")
    died = [line for line in worker.text().splitlines() if "worker process died" in line]
    assert len(died) == 3
    assert all("SIGKILL" in line for line in died)


APP = """
import os
from streamwork import Streamwork

app = Streamwork(os.environ["STREAMWORK_TEST_NAMESPACE"])

@app.task(name="version")
async def version() -> int:
    return {version}
"""


@pytest.fixture
def shop(tmp_path):
    """Write an app's module that says which version it is; its modification time always changes."""

    def write(version):
        text = version if isinstance(version, str) else APP.replace("{version}", str(version))
        draft = tmp_path / "shop.draft"
        draft.write_text(text)
        draft.rename(tmp_path / "shop_app.py")

    return write


def version_of(app):
    return app.call("version").enqueue().result(timeout=15)


def test_reload_runs_the_new_code_and_a_broken_one_waits_for_the_next_change(start, shop, app, look):
    shop(1)
    worker = start("shop_app:app", args=["--reload"], environ={"PYTHONDONTWRITEBYTECODE": "1"})
    assert version_of(app) == 1
    *_, child = worker.children  # the first is the watcher
    shop(2)  # once: as soon as it is ready no change is missed
    wait_until(lambda: version_of(app) == 2, "the new code runs", 20)
    wait_until(lambda: is_gone(child), "the old process has ended")

    shop("def broken(:")
    worker.until("waiting for a change")
    assert "shop_app.py:1: SyntaxError" in worker.text()
    assert worker.process.poll() is None
    handle = app.call("version").enqueue()
    shop(1_000)
    assert handle.result(timeout=20) == 1_000
    worker.signal()
    assert worker.wait() == 0
    assert {record.state for record in look().journal} == {"succeeded"}


BLOCKING = """
@app.task(name="block")
async def block() -> str:
    open({notes!r}, "w").write("b 1 1 0\\n")
    import time
    time.sleep(600)
"""
CURED = """
@app.task(name="block")
async def block() -> str:
    return "cured"
"""


def test_reload_puts_new_code_to_work_while_an_old_process_cannot_even_hear(start, shop, app, notes, look):
    shop(APP.replace("{version}", "1") + BLOCKING.format(notes=str(notes.path)))
    worker = start("shop_app:app", args=["--reload"], drain_timeout_s=0.2, environ={"PYTHONDONTWRITEBYTECODE": "1"})
    handle = app.call("block").enqueue()
    notes.until(1)
    *_, child = worker.children
    shop(APP.replace("{version}", "2") + CURED)
    worker.until("reloading")
    assert version_of(app) == 2
    assert not is_gone(child)  # it was not waited for
    assert handle.result(timeout=20) == "cured"
    assert is_gone(child)
    assert [record.attempt for record in look().journal if record.id == handle.id] == [1]
    assert look().suspects == {}


def test_without_reload_an_app_that_stops_importing_ends_the_worker_with_one_line(start, shop, app):
    shop(1)
    worker = start("shop_app:app", environ={"PYTHONDONTWRITEBYTECODE": "1"})
    assert version_of(app) == 1
    shop("raise OSError('gone')")
    (child,) = worker.children
    os.kill(child, signal.SIGKILL)
    # It ran before, but this is the code, and it will not get better by itself.
    assert worker.wait() == 2
    assert "OSError: gone" in worker.text().splitlines()[-1]
    assert "Traceback" not in worker.text()


PICKY = """
from contextlib import asynccontextmanager
from streamwork.errors import ConfigError

@app.lifespan
@asynccontextmanager
async def lifespan():
    raise ConfigError("no such plan")
    yield
"""


def test_a_process_whose_settings_cannot_be_used_ends_the_worker_with_one_line(start, shop, app):
    shop(1)
    worker = start("shop_app:app", environ={"PYTHONDONTWRITEBYTECODE": "1"})
    assert version_of(app) == 1
    # It can be imported, and is refused when the process starts: a lifespan is where an app checks its settings.
    shop(APP.replace("{version}", "2") + PICKY)
    os.kill(worker.children[0], signal.SIGKILL)
    assert worker.wait() == 2
    assert worker.text().splitlines()[-1] == "streamwork: no such plan"
    assert "Traceback" not in worker.text()


def test_an_app_that_ends_its_process_when_imported_is_one_line(start, shop):
    shop("import os\nos._exit(0)\n")
    worker = start("shop_app:app", ready=False)
    assert worker.wait() == 2
    assert "the app ends its process when it is imported" in worker.text().splitlines()[-1]


def test_a_process_that_cannot_be_forked_is_tried_again(work, send):
    worker = work()
    (child,) = worker.children
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (6, hard))
    os.kill(child, signal.SIGKILL)
    worker.until("a process cannot be started, trying again")
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert send(life.pid).result(timeout=20) in worker.children


def test_too_few_open_files_are_one_line(tmp_path):
    program = [sys.executable, "-m", "streamwork", "worker", "--app", "tests.apps.life:app"]
    done = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "streamwork: the limit of open files is 12 and a worker needs at least 34: see ulimit -n\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_disturb_nobody(redis_url, namespace, send, closed):
    environ = {**os.environ, "STREAMWORK_URL": redis_url, "STREAMWORK_TEST_NAMESPACE": namespace}
    handle = send(life.work)
    program = f"exec {sys.executable} -m streamwork worker --app tests.apps.life:app --burst {closed}"
    done = subprocess.run(
        program, shell=True, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert handle.result(timeout=1)
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (0, False)


def test_a_lifespan_that_fails_at_the_start_is_one_line(work, tmp_path, look):
    (tmp_path / "lifespan.raise").touch()
    worker = work(ready=False)
    assert worker.wait() == 2
    assert "the lifespan of app" in worker.text().splitlines()[-1]
    assert "OSError: no database" in worker.text().splitlines()[-1]
    assert "Traceback" not in worker.text()
    assert look().consumers == set()


def test_a_lifespan_that_fails_later_is_tried_again(work, send, tmp_path):
    worker = work()
    (tmp_path / "lifespan.raise").touch()
    os.kill(worker.children[0], signal.SIGKILL)
    worker.until("a process could not start and is replaced")
    assert "no database" in worker.text()
    (tmp_path / "lifespan.raise").unlink()
    assert send(life.pid).result(timeout=20) in worker.children


def test_another_eviction_policy_than_noeviction_is_warned_of(start):
    with PrivateServer(redis_for_tests()[1], "--maxmemory-policy", "allkeys-lru") as server:
        worker = start("tests.apps.life:app", redis_url=server.url)
        assert "eviction policy is allkeys-lru" in worker.text()
        assert "noeviction" in worker.text()


def test_a_loop_that_is_blocked_longer_than_allowed_is_killed_and_its_body_blamed(work, send, notes, look):
    worker = work(hung_after_s=0.8)
    handle = send(life.hold_the_loop, notes.path, "x")
    notes.until(2, 20)
    assert [(run.attempt, run.crashes) for run in notes.runs()[:2]] == [(1, 0), (1, 1)]
    assert "hung: its loop has not turned for" in worker.text()
    notes.go()
    # The second run may be killed too before it is let go; that counts as well.
    assert handle.result(timeout=20)[0] == 1


def test_a_worker_that_was_stopped_for_a_while_goes_on_as_it_was(work, send, notes, driver, keys):
    worker = work(hung_after_s=1.0, ttl_s=10.0)
    handle = send(life.hold, notes.path, "x")
    (held,) = notes.until(1)
    os.killpg(worker.pid, signal.SIGSTOP)
    time.sleep(3.6)  # longer than the watchdog calls late, and than a loop may stand still
    os.killpg(worker.pid, signal.SIGCONT)
    looked = driver.run(plain("PTTL", keys.alive(next(iter(driver.run(plain("HKEYS", keys.consumers)))).decode())))
    assert looked > 0
    time.sleep(0.8)
    notes.go()
    assert handle.result(timeout=10) == (1, 0)
    assert not is_gone(held.pid)
    assert "hung" not in worker.text()
