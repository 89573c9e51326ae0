"""Rule 39: one embedded server per folder, for as long as it has users and no longer, whoever dies when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from streamwork.errors import EmbeddedError
from streamwork.store import filelock, guardian, place, server
from tests.faults.living.kit import must_fail
from tests.faults.unguarded import module_without, patched
from tests.helpers import wait_until
from tests.store.home import MORE_THAN_A_TICK_S, answers, ask, during, guardian_of, info


@pytest.fixture
def guardian_without(monkeypatch, tmp_path):
    """Let servers be started by a guardian that lacks these guards."""

    def without(*names):
        file = tmp_path / "guardian.py"
        file.write_text(patched("streamwork/store/guardian.py", names))
        monkeypatch.setattr(guardian, "__file__", str(file))

    return without


@pytest.fixture
def place_without(monkeypatch):
    """Let servers be placed without these guards."""

    def without(*names):
        module = module_without("streamwork.store.place", *names)
        monkeypatch.setattr(server, "prepare", module.prepare)
        monkeypatch.setattr(server, "choose_socket", module.choose_socket)
        return module

    return without


def join(home, module=server, **options):
    home.shares.append(module.join(home.folder, **{"start_timeout_s": 10.0, **options}))
    return home.shares[-1]


def refusal(home, module=server, **options):
    """Return why a folder has no server for us; empty where it has one."""
    try:
        join(home, module, **options)
    except EmbeddedError as error:
        return str(error)
    return ""


def it_runs_while_it_has_a_user(home, module=server):
    said = refusal(home, module)
    assert "ended at its start" not in said, "the server was stopped under its user"
    joined = home.shares[-1]
    for _ in during(2 * MORE_THAN_A_TICK_S):
        assert answers(joined), "the server was stopped under its user"


def test_it_runs_while_it_has_a_user(home):
    it_runs_while_it_has_a_user(home)


def test_without_a_share_it_is_stopped_under_its_user(home):
    module = module_without("streamwork.store.server", "share")
    must_fail(it_runs_while_it_has_a_user, home, module, says="stopped under its user")


def test_a_guardian_that_does_not_ask_for_the_lock_alone_stops_it_too(home, guardian_without):
    guardian_without("stopped alone")
    must_fail(it_runs_while_it_has_a_user, home, says="stopped under its user")


def a_program_that_a_user_starts_is_no_user(tmp_path, module=filelock, within_s=10.0):
    share = module.try_lock(tmp_path / "users", shared=True)
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        share.close()
        alone = lambda: filelock.try_lock(tmp_path / "users", shared=False)
        # What it has inherited it drops a moment after its start.
        wait_until(alone, "the share goes though a program that its user started runs on", within_s).close()
    finally:
        program.kill()
        program.communicate()


def test_a_program_that_a_user_starts_is_no_user(tmp_path):
    a_program_that_a_user_starts_is_no_user(tmp_path)


def test_python_alone_sees_to_that(tmp_path):
    module = module_without("streamwork.store.filelock", "opened to close")
    a_program_that_a_user_starts_is_no_user(tmp_path, module)


def test_with_an_inherited_share_it_is(tmp_path):
    module = module_without("streamwork.store.filelock", "closed on exec", "opened to close")
    must_fail(a_program_that_a_user_starts_is_no_user, tmp_path, module, 0.5, says="that its user started runs on")


def it_dies_with_its_guardian(home, within_s=10.0):
    joined = join(home)
    pid = info(joined, "process_id")
    os.kill(guardian_of(joined), signal.SIGKILL)
    wait_until(lambda: pid not in home.running(), "the server ends with its guardian", within_s)


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")


@linux
def test_it_dies_with_its_guardian(home):
    it_dies_with_its_guardian(home)


@linux
def test_without_the_system_s_help_it_is_nobody_s(home, guardian_without):
    guardian_without("server's pdeathsig")
    must_fail(it_dies_with_its_guardian, home, 1.5, says="ends with its guardian")


def one_server_is_started(home, module=server):
    home.folder.mkdir(mode=0o700)
    begin, failed = threading.Barrier(4), []

    def one():
        begin.wait()
        try:
            join(home, module)
        except EmbeddedError as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    launched = (home.folder / "guardian.log").read_text().count("serves at")
    assert len(home.running()) <= 2, f"several servers run on one folder's data: {home.running()}"
    assert (failed, launched <= 1) == ([], True)


def test_one_server_is_started_however_many_start_at_once(home):
    one_server_is_started(home)


def test_without_the_start_lock_several_are(home):
    module = module_without("streamwork.store.server", "start lock")
    must_fail(one_server_is_started, home, module, says="several servers run")


def a_long_path_is_no_hindrance(home):
    home.folder = home.root / ("long-" * 20) / ".streamwork"
    runtime = home.root / "run"
    runtime.mkdir(mode=0o700)
    try:
        joined = join(home, runtime_dir=str(runtime), start_timeout_s=2.0)
    except EmbeddedError as error:
        raise AssertionError(f"a folder with a long name has no server: {error}") from error
    assert ask(joined, "PING")
    assert len(os.fsencode(joined.socket_path)) <= 100


def test_a_long_path_is_no_hindrance(home):
    a_long_path_is_no_hindrance(home)


def test_without_a_shorter_place_it_is(home, place_without):
    place_without("short path")
    must_fail(a_long_path_is_no_hindrance, home, says="with a long name has no server")


def another_machine_is_named(home, module=place):
    joined = module.prepare(home.folder)
    joined.host_note.write_text("elsewhere 1234\n")
    held = filelock.try_lock(joined.start_lock, shared=False)
    said = refusal(home, start_timeout_s=1.5)
    held.close()
    assert "another machine (elsewhere)" in said, f"nobody learns where the server is: {said}"


def test_another_machine_is_named(home):
    another_machine_is_named(home)


def test_without_the_note_nobody_learns_where_it_is(home, place_without):
    module = place_without("one machine")
    must_fail(another_machine_is_named, home, module, says="nobody learns where")


def a_folder_of_another_user_is_refused(home, monkeypatch, module=place):
    home.folder.mkdir(mode=0o700)
    monkeypatch.setattr(module, "current_uid", lambda: os.geteuid() + 1)
    said = refusal(home)
    assert "belongs to user" in said, f"a server is used in another user's folder: {said}"
    assert list(home.folder.iterdir()) == []


def test_a_folder_of_another_user_is_refused(home, monkeypatch):
    a_folder_of_another_user_is_refused(home, monkeypatch)


def test_without_a_look_at_its_owner_it_is_used(home, monkeypatch, place_without):
    module = place_without("one user")
    must_fail(a_folder_of_another_user_is_refused, home, monkeypatch, module, says="in another user's folder")


def a_copied_folder_has_its_own_server(home):
    original = join(home)
    copy = home.root / "copy"
    copy.mkdir(mode=0o700)
    (copy / "socket").write_text(original.socket_path)
    home.folder = copy
    joined = join(home)
    assert info(joined, "run_id") != info(original, "run_id"), "a copied folder leads to the original's server"


def test_a_copied_folder_has_its_own_server(home):
    a_copied_folder_has_its_own_server(home)


def test_without_a_look_at_its_folder_it_leads_to_the_original_s(home, monkeypatch):
    module = module_without("streamwork.store.guardian", "our folder")
    monkeypatch.setattr(guardian, "probe", module.probe)
    must_fail(a_copied_folder_has_its_own_server, home, says="leads to the original's server")
