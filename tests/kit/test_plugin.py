"""The pytest plugin as its users have it: a pytest of its own, whose server is gone however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from streamwork.config import redis_for_tests
from streamwork.errors import EmbeddedError
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.sync_driver import SyncDriver
from streamwork.testing import PrivateServer
from tests.helpers import ROOT, wait_until

TESTS = """
import os, socket, time
from pathlib import Path
import pytest
from streamwork import StoreUnavailable, Streamwork
from streamwork.testing import assert_enqueued, run_until_idle

shop = Streamwork("shop", "redis://127.0.0.1:1/0", {"client.send_timeout_s": 0.0})

@shop.task
def shop_add(n: int) -> int:
    return n + 1

def pid_of(url):
    if not url.startswith("unix://"):
        return 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(url.removeprefix("unix://").partition("?")[0])
        connection.sendall(b"INFO server\\r\\n")
        reply = b""
        while b"executable:" not in reply:
            reply += connection.recv(65536)
    return int(reply.partition(b"process_id:")[2].split()[0])

@pytest.mark.parametrize("n", range(4))
def test_add(streamwork_app, streamwork_namespace, streamwork_redis_url, n):
    @streamwork_app.task
    async def add(a: int, b: int) -> int:
        return a + b
    handle = add.enqueue(n, 1)
    assert_enqueued(add, (n, 1))
    run_until_idle(streamwork_app)
    assert handle.result(timeout=5) == n + 1
    facts = [str(pid_of(streamwork_redis_url)), streamwork_namespace, streamwork_redis_url]
    Path(f"{os.getpid()}-{n}.txt").write_text(" ".join(facts))

def test_without_redis():
    pass

def test_an_app_of_ones_own(streamwork_redirect):
    streamwork_redirect(shop)
    shop_add.enqueue(1)
    assert run_until_idle(shop).succeeded == 1
    assert shop.name != "shop"

def test_it_is_back_afterwards():
    assert shop.name == "shop" and shop.config.url == "redis://127.0.0.1:1/0"
    with shop.inline():
        assert shop_add.enqueue(1).result() == 2
    with pytest.raises(StoreUnavailable):
        shop_add.enqueue(1)

@pytest.mark.skipif("HANG" not in os.environ, reason="only to be interrupted")
def test_hang(streamwork_redis_url):
    Path("hangs.txt").write_text(str(pid_of(streamwork_redis_url)))
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "test_users.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    started = []
    # A killed session cannot remove its server's folder, and pytest's own would be too long for a socket.
    temporary = Path(tempfile.mkdtemp(prefix="sw-"))

    def start(*args, **variables):
        _, binary = redis_for_tests()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMWORK_")}
        chosen = {"STREAMWORK_TEST_REDIS_SERVER": binary} if binary else {}
        installed = any(entry.name == "streamwork" for entry in entry_points(group="pytest11"))
        plugin = [] if installed else ["-p", "streamwork.testing.plugin"]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = {**inherited, **chosen, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), **variables}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    shutil.rmtree(temporary)


def seen(folder):
    """Return (pid of the server, namespace, url) of each test that ran."""
    return [path.read_text().split() for path in sorted(folder.glob("*-?.txt"))]


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_each_test_has_a_namespace_and_the_session_one_server_which_goes_with_it(start, tmp_path):
    process = start()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "7 passed, 1 skipped" in out
    pids, names, _ = zip(*seen(tmp_path), strict=True)
    assert len(set(names)) == 4
    (pid,) = set(pids)
    assert is_gone(pid)


def test_with_xdist_each_process_has_its_own(start, tmp_path):
    process = start("-n", "2", "--dist", "each", "-p", "xdist", "-k", "test_add")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    pids = {pid for pid, _, _ in seen(tmp_path)}
    assert len(pids) == 2
    assert all(map(is_gone, pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_server_does_not_outlive_an_interrupted_session(start, tmp_path, number):
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child of its parent's death")
    process = start("-k", "hang", HANG="1")
    note = tmp_path / "hangs.txt"
    pid = wait_until(lambda: note.exists() and note.read_text(), "the test hangs", 30)
    assert not is_gone(pid)
    process.send_signal(number)
    process.wait(20)
    wait_until(lambda: is_gone(pid), "the server is gone")


def test_a_server_that_is_there_is_used_and_left_clean(start, tmp_path):
    _, binary = redis_for_tests()
    with PrivateServer(binary) as server:
        process = start(STREAMWORK_TEST_REDIS_URL=server.url)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        assert {pid for pid, _, _ in seen(tmp_path)} == {str(server.pid)}
        assert not is_gone(server.pid)
        asked = subprocess.run(
            [sys.executable, "-c", f"import redis; print(redis.Redis.from_url({server.url!r}).dbsize())"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert asked.stdout.strip() == "0"


def test_a_private_server_can_be_stopped_and_brought_back():
    _, binary = redis_for_tests()
    with PrivateServer(binary, "--appendonly", "yes") as server:
        first, folder = server.pid, server.folder
        server.stop(signal.SIGKILL)
        assert is_gone(first)
        assert server.pid == 0
        server.start()
        assert server.pid != first
    assert is_gone(server.pid or first)
    assert not folder.exists()


def test_a_private_server_outlives_the_thread_that_made_it():
    """The kernel ties a child to the thread that started it, not to the process."""
    made, before = [], set(threading.enumerate())
    maker = threading.Thread(target=lambda: made.append(PrivateServer(redis_for_tests()[1])))
    maker.start()
    maker.join()
    (server,) = made
    with server:
        # The signal comes with the end of the kernel's thread, a moment after Python's.
        wait_until(lambda: not Path(f"/proc/self/task/{maker.native_id}").exists(), "the thread is gone")
        assert server._process.poll() is None
        driver = SyncDriver(Endpoint(server.url), ())
        assert driver.run(plain("PING")) == b"PONG"
        driver.close()
    wait_until(lambda: set(threading.enumerate()) <= before, "its own thread to end")


def test_a_binary_that_cannot_be_started_is_told_from_any_thread():
    with pytest.raises(EmbeddedError), PrivateServer("/nonexistent/redis-server"):
        pass
