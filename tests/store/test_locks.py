"""Locks on files that somebody replaces: what was locked is gone, and who holds it has nothing."""

from __future__ import annotations

import contextlib
import fcntl

import redis

from streamwork.store import filelock
from streamwork.store.filelock import try_lock
from tests.store.home import ask, eventually, open_home


def test_a_lock_on_a_file_that_was_replaced_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path, real = tmp_path / "users", fcntl.flock
    replaced = []

    def flock(fd, kind):
        if not replaced:  # between the open and the lock
            path.unlink()
            path.touch()
            replaced.append(fd)
        real(fd, kind)

    monkeypatch.setattr(filelock.fcntl, "flock", flock)
    lock = try_lock(path, shared=False)
    monkeypatch.undo()
    assert (replaced, lock.is_current()) == ([replaced[0]], True)
    assert try_lock(path, shared=True) is None  # the file that others see is locked
    lock.close()
    assert try_lock(path, shared=True) is not None


def test_a_user_whose_share_was_removed_takes_a_new_one_when_it_makes_sure():
    with open_home() as home:
        server = home.join()
        users = home.folder / "users"
        users.unlink()
        users.touch()
        assert try_lock(users, shared=False).close() is None  # as it stands, nobody is a user

        def answers():
            # In the moment without any user the guardian may have ended the server: who makes sure again has another.
            server.ensure()
            with contextlib.suppress(redis.ConnectionError):
                return ask(server, "PING")

        eventually(answers)
        assert try_lock(users, shared=False) is None
        server.close()
