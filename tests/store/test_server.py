from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from streamwork.errors import EmbeddedError
from streamwork.store.binary import server_version
from tests.store.home import (
    MORE_THAN_A_TICK_S,
    User,
    answers,
    ask,
    distinct_binaries,
    during,
    eventually,
    guardian_of,
    info,
    open_home,
)


@pytest.fixture
def home():
    with open_home() as made:
        yield made


def test_the_first_starts_it_and_others_join_the_same(home):
    first, second = home.join(), home.join()
    assert first.url == f"unix://{home.folder}/redis.sock?db=0"
    assert info(first, "run_id") == info(second, "run_id")
    assert home.user().do("join") == info(first, "run_id")
    first.close()
    assert ask(second, "PING")


def children():
    """Pids of this process's children; it may have some of its own, such as the session's Redis."""
    return sorted(pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split())


def test_it_is_private_persistent_and_outside_of_the_starters_session(home):
    before = children()
    server = home.join()
    names = ("port", "save", "appendonly", "appendfsync", "maxmemory-policy", "dir")
    with redis.Redis.from_url(server.url) as client:
        settings = {name: client.config_get(name)[name] for name in names}
    assert settings == {
        "port": "0",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "dir": str(home.folder / "data"),
    }
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert Path(server.socket_path).stat().st_mode & 0o777 == 0o700
    assert (home.folder / ".gitignore").read_text() == "*\n"
    assert sorted(home.running()) == sorted([guardian_of(server), info(server, "process_id")])
    assert os.getsid(guardian_of(server)) != os.getsid(0)
    # The starter has no child left that a wait for any child would stumble over.
    assert children() == before


def test_twenty_that_start_at_once_share_one_server(home):
    home.folder.parent.mkdir(exist_ok=True)
    home.users += [User(home.folder) for _ in range(20)]
    for user in home.users:
        assert user.hear() == "here"
    for user in home.users:
        user.say("join")
    run_ids = {user.hear() for user in home.users}
    assert len(run_ids) == 1
    assert len(run_ids.pop()) == 40
    assert len(home.running()) == 2


def test_it_outlives_the_process_that_started_it(home):
    starter, other = home.user(), home.user()
    run_id = starter.do("join")
    assert other.do("join") == run_id
    starter.kill()
    run_ids = set()
    for _ in during(MORE_THAN_A_TICK_S):
        run_ids.add(other.do("run_id"))
    assert run_ids == {run_id}


def test_nothing_is_left_after_the_last_user_was_killed(home):
    user = home.user()
    user.do("join")
    assert len(home.running()) == 2
    user.kill()
    home.until_gone()
    assert not (home.folder / "redis.sock").exists()
    assert not (home.folder / "host").exists()


def test_a_fork_of_a_user_counts_as_its_user(home):
    read_end, write_end = os.pipe()
    try:
        user = home.user(leash=read_end)
        run_id = user.do("join")
        fork = int(user.do("fork"))
        user.do("close")
        user.kill()
        for _ in during(MORE_THAN_A_TICK_S):
            assert len(set(home.running()) - {fork}) == 2
        assert info(home.join(), "run_id") == run_id
        home.shares[-1].close()
    finally:
        os.close(write_end)
        os.close(read_end)
    home.until_gone()


@pytest.mark.parametrize("binary", distinct_binaries())
def test_data_is_there_again_after_a_stop(home, binary):
    server = home.join(binary=binary)
    run_id = info(server, "run_id")
    assert info(server, "redis_version") == ".".join(map(str, server_version(binary)))
    ask(server, "SET", "kept", "as it was")
    server.close()
    home.until_gone()
    again = home.join(binary=binary)
    assert info(again, "run_id") != run_id
    assert ask(again, "GET", "kept") == b"as it was"


def test_an_older_server_is_not_let_at_newer_data(home):
    binaries = {server_version(parameter.values[0])[0]: parameter.values[0] for parameter in distinct_binaries()}
    if not {6, 7} <= set(binaries):
        pytest.skip("needs a server of 6.2 and one of 7")
    home.join(binary=binaries[7]).close()
    home.until_gone()
    with pytest.raises(EmbeddedError, match="written by Redis 7 or newer"):
        home.join(binary=binaries[6])


def test_a_killed_server_comes_back_with_its_data(home):
    server = home.join()
    run_id = info(server, "run_id")
    ask(server, "SET", "kept", "1")
    os.kill(info(server, "process_id"), signal.SIGKILL)
    eventually(lambda: answers(server))
    assert info(server, "run_id") != run_id
    assert ask(server, "GET", "kept") == b"1"
    assert len(home.running()) == 2


def test_a_removed_socket_comes_back(home):
    server = home.join()
    ask(server, "SET", "kept", "1")
    eventually(lambda: "serves at" in (home.folder / "guardian.log").read_text())
    Path(server.socket_path).unlink()
    eventually(lambda: answers(server))
    assert ask(server, "GET", "kept") == b"1"


def test_who_joins_while_it_stops_gets_a_fresh_one(home):
    server = home.join()
    run_id, pid = info(server, "run_id"), info(server, "process_id")
    ask(server, "SET", "kept", "1")
    os.kill(pid, signal.SIGSTOP)
    server.close()
    eventually(lambda: not can_share(home.folder / "users"))
    arrived = []
    late = threading.Thread(target=lambda: arrived.append(home.join()))
    late.start()
    try:
        # The server is alive on its socket, and the guardian means to end it: nobody may join now.
        late.join(0.3)
        assert not arrived
    finally:
        os.kill(pid, signal.SIGCONT)
        late.join()
    assert info(arrived[0], "run_id") != run_id
    assert ask(arrived[0], "GET", "kept") == b"1"


def can_share(path):
    with path.open() as users:
        try:
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_coming_back_at_any_moment_of_the_stop_never_meets_a_dead_server(home):
    def come_and_come_back(number):
        folder = home.root / str(number)
        server = home.join(folder)
        ask(server, "SET", "kept", number)
        server.close()
        # Together the pauses sweep over the guardian's tick, which is a second.
        time.sleep(0.9 + 0.03 * number)
        return int(ask(home.join(folder), "GET", "kept"))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(come_and_come_back, range(8))) == list(range(8))


def test_a_user_revives_it_after_the_guardian_was_killed(home):
    server = home.join()
    ask(server, "SET", "kept", "1")
    pid = info(server, "process_id")
    os.kill(guardian_of(server), signal.SIGKILL)
    eventually(lambda: pid not in home.running())
    assert server.ensure() == server.url
    assert ask(server, "GET", "kept") == b"1"
    assert len(home.running()) == 2


def is_another(server, pid):
    """Whether a server answers that is not this one, which may die between two questions."""
    try:
        return answers(server) and info(server, "process_id") != pid
    except redis.ConnectionError:
        return False


def test_healing_starts_it_again_only_where_nothing_lives(home):
    server = home.join()
    before = (info(server, "process_id"), guardian_of(server))
    os.kill(before[0], signal.SIGSTOP)
    server.heal()  # it hangs, and is left alone
    os.kill(before[0], signal.SIGCONT)
    assert (info(server, "process_id"), guardian_of(server)) == before
    os.kill(before[1], signal.SIGKILL)

    def is_healed():
        server.heal()
        return is_another(server, before[0])

    eventually(is_healed)
    assert len(home.running()) == 2
    server.close()
    server.heal()
    home.until_gone()


def test_one_sigterm_to_guardian_and_server_leaves_users_a_server_and_a_second_stops_it(home):
    server = home.join()
    ask(server, "SET", "kept", "1")
    pid, guardian = info(server, "process_id"), guardian_of(server)
    for one in (guardian, pid):  # as whoever stops a service or a container does
        os.kill(one, signal.SIGTERM)
    eventually(lambda: is_another(server, pid))
    assert (ask(server, "GET", "kept"), guardian_of(server)) == (b"1", guardian)
    os.kill(guardian, signal.SIGTERM)
    home.until_gone()


def test_a_server_without_its_guardian_keeps_a_second_one_from_its_data(home):
    server = home.join()
    pid, guardian = info(server, "process_id"), guardian_of(server)
    os.kill(pid, signal.SIGSTOP)
    os.kill(guardian, signal.SIGKILL)
    eventually(lambda: home.running() == [pid])
    with pytest.raises(EmbeddedError, match="does not answer"):
        home.join(start_timeout_s=0.2)
    assert home.running() == [pid]
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: not home.running())
    assert ask(home.join(), "PING")


def test_a_user_revives_it_after_the_folder_was_removed(home):
    server = home.join()
    before = set(home.running())
    shutil.rmtree(home.folder)
    eventually(lambda: not before & set(home.running()))
    server.ensure()
    assert ask(server, "PING")
    assert len(home.running()) == 2
    server.close()
    home.until_gone()


def test_a_closed_share_is_not_revived(home):
    server = home.join()
    server.close()
    with pytest.raises(EmbeddedError, match="closed"):
        server.ensure()
