from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import redis

from streamwork.errors import EmbeddedError
from streamwork.store import place as place_module
from streamwork.store.binary import find_server_binary
from tests.store.home import ask, info, open_home, script


@pytest.fixture
def home():
    with open_home() as made:
        yield made


def test_a_long_path_moves_the_socket_to_the_runtime_folder(home):
    folder = home.root / "väg" / ("long-" * 20) / ".streamwork"
    runtime = home.root / "run time"
    runtime.mkdir(mode=0o700)
    server = home.join(folder, runtime_dir=str(runtime))
    assert Path(server.socket_path).parent == runtime
    assert (folder / "socket").read_text().strip() == server.socket_path
    assert ask(server, "PING")
    # One that was told of another runtime folder, such as a cron job, still finds it.
    assert info(home.join(folder), "run_id") == info(server, "run_id")


def test_a_long_path_without_a_runtime_folder_moves_the_socket_to_a_private_one(home, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(home.root))
    folder = home.root / ("long-" * 20) / ".streamwork"
    server = home.join(folder)
    shelter = home.root / f"streamwork-{os.geteuid()}"
    assert Path(server.socket_path).parent == shelter
    assert shelter.stat().st_mode & 0o777 == 0o700
    assert ask(server, "PING")


def test_a_folder_for_sockets_that_others_can_enter_is_refused(home, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(home.root))
    (home.root / f"streamwork-{os.geteuid()}").mkdir()
    with pytest.raises(EmbeddedError, match="0700"):
        home.join(home.root / ("long-" * 20))
    assert home.running() == []


def test_a_server_that_dies_at_its_start_is_quoted(home):
    doomed = script(
        home.root / "redis-server",
        'if [ "$1" = --version ]; then echo "Redis server v=7.0.0 sha=0"; exit; fi',
        "echo the moon is in the wrong house",
        "exit 3",
    )
    began_at = time.monotonic()
    with pytest.raises(EmbeddedError, match="ended at its start") as caught:
        home.join(binary=doomed)
    assert "status 3" in str(caught.value) or "wrong house" in str(caught.value)
    assert time.monotonic() - began_at < 5
    home.until_gone()
    # Nothing stays behind that would keep a good one from starting.
    assert ask(home.join(), "PING")


def test_a_server_that_is_killed_at_every_start_is_given_up(home):
    doomed = script(
        home.root / "redis-server",
        'if [ "$1" = --version ]; then echo "Redis server v=7.0.0 sha=0"; exit; fi',
        "kill -9 $$",
    )
    with pytest.raises(EmbeddedError, match="ended with status -9"):
        home.join(binary=doomed)
    home.until_gone()


def test_reading_large_files_is_waited_for(home):
    server = home.join()
    with redis.Redis.from_url(server.url) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(6000):
            pipeline.set(f"key-{number}", number)
        pipeline.execute()
    server.close()
    home.until_gone()
    slow = script(
        home.root / "redis-server",
        f'if [ "$1" = --version ]; then exec {find_server_binary(None)} --version; fi',
        # Microseconds a key: Redis reads for some two seconds, and answers LOADING after each thousand.
        f'exec {find_server_binary(None)} "$@" --key-load-delay 300',
    )
    began_at = time.monotonic()
    again = home.join(binary=slow, start_timeout_s=0.9)
    assert time.monotonic() - began_at > 1.5
    assert ask(again, "DBSIZE") == 6000


def test_a_broken_file_is_quoted(home):
    server = home.join()
    ask(server, "SET", "kept", "1")
    server.close()
    home.until_gone()
    for file in (home.folder / "data").rglob("*.aof"):
        file.write_bytes(b"*3\r\n$3\r\nSET\r\nnonsense\r\n" * 3)
    with pytest.raises(EmbeddedError, match=r"(?i)aof|append only file"):
        home.join()
    home.until_gone()


def test_a_server_that_hangs_at_its_start_is_given_up(home):
    hanging = script(
        home.root / "redis-server",
        'if [ "$1" = --version ]; then echo "Redis server v=7.0.0 sha=0"; exit; fi',
        "exec sleep 60",
    )
    with pytest.raises(EmbeddedError, match=r"does not answer for 0\.5 s"):
        home.join(binary=hanging, start_timeout_s=0.5)
    home.until_gone()


def test_a_folder_of_another_user_is_refused(home, monkeypatch):
    home.folder.mkdir()
    monkeypatch.setattr(place_module, "current_uid", lambda: os.geteuid() + 1)
    with pytest.raises(EmbeddedError, match="belongs to user"):
        home.join()
    assert list(home.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_with_a_remedy(home):
    home.root.joinpath("file").write_text("")
    with pytest.raises(EmbeddedError, match="STREAMWORK_URL"):
        home.join(home.root / "file" / ".streamwork")


def test_a_server_on_another_machine_is_named(home):
    home.folder.mkdir(mode=0o700)
    (home.folder / "host").write_text("elsewhere 1234\n")
    with (home.folder / "start.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match=r"another machine \(elsewhere\)"):
            home.join()


def test_what_a_dead_machine_left_behind_is_taken_over(home):
    home.folder.mkdir(mode=0o700)
    (home.folder / "host").write_text("elsewhere 1234\n")
    (home.folder / "socket").write_text(str(home.folder / "redis.sock"))
    (home.folder / "redis.sock").write_text("")
    assert ask(home.join(), "PING")
    assert "elsewhere" not in (home.folder / "host").read_text()


def test_a_copied_folder_does_not_lead_to_the_originals_server(home):
    original = home.join()
    (home.root / "copy").mkdir(mode=0o700)
    shutil.copy(home.folder / "socket", home.root / "copy" / "socket")
    copy = home.join(home.root / "copy")
    assert info(copy, "run_id") != info(original, "run_id")
