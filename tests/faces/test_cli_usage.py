"""The frame of the command line: help, wrong usage, one-line errors, exit statuses."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

import click
import pytest

from streamwork.cli import main
from streamwork.cli.main import cli, status_of
from streamwork.errors import (
    AppBroken,
    ArgumentError,
    ConfigError,
    EmbeddedError,
    EnqueueUnknown,
    ResultTimeout,
    StoreRejected,
    StoreUnavailable,
    TaskNotFound,
)
from tests.faces.conftest import one_line
from tests.helpers import wait_until

COMMANDS = ["worker", "enqueue", "status", "queues", "workers", "tasks", "doctor", "config", "demo"]
SINGLE = ["worker", "enqueue", "status", "queues", "workers", "doctor"]
LEAVES = [*([name] for name in SINGLE), ["tasks", "show"], ["config", "show"]]


def test_help_lists_every_command_and_says_what_exit_statuses_mean(capsys):
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in text
    for status in ("0    done", "1    ", "2    ", "3    Redis", "130  "):
        assert status in text


def test_only_the_help_of_the_group_is_shown_without_importing_the_commands():
    code = (
        "import sys; from streamwork.cli import main; main.run(['--help']); "
        "print(sorted(m for m in sys.modules if m.startswith('streamwork.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "['streamwork.cli.main']"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_teaches_with_examples_and_has_json_and_url(capsys, path):
    assert main.run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert f"  streamwork {' '.join(path)}" in text
    assert "--json" in text
    assert "--url" in text
    assert "--app" in text


def test_the_help_of_burst_says_that_it_ends_with_what_this_worker_can_take(capsys):
    assert main.run(["worker", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "End when nothing is left that this worker can take now" in text


def test_a_wrong_command_is_answered_with_the_nearest(capsys):
    assert main.run(["wroker"]) == 2
    assert one_line(capsys.readouterr().err) == (
        "streamwork: no command 'wroker': did you mean 'worker'? (see streamwork --help)"
    )


def test_a_command_like_no_other_is_answered_with_all(capsys):
    assert main.run(["zzz"]) == 2
    assert "there are worker, enqueue, status" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["worker", "--tgas", "x"], "'--tags'"),
        (["worker", "--slots", "x"], "'x' is not a valid integer"),
        (["worker", "--slots", "0"], "worker.slots = 0: 1 at least"),
        (["worker", "--processes", "-1"], "worker.processes = -1: 1 at least"),
        (["worker", "--tags", "a b"], "tag 'a b'"),
        (["worker", "--log-level", "loud"], "'loud' is not one of 'debug'"),
        (["status", "--url", "http://x", "--namespace", "n"], "'http://x' is not a Redis URL"),
        (
            ["status", "--url", "redis://me:secret@h:port/", "--namespace", "n"],
            "'redis://…@h:port/' is not a Redis URL",
        ),
        (["enqueue"], "Missing argument 'TASK'"),
        (["enqueue", "t", "--kwargs", "{bad"], "'{bad' is not JSON"),
        (["enqueue", "t", "--kwargs", "[1]"], "is not a JSON object"),
        (["enqueue", "t", "--priority", "12"], "12 is not in the range"),
        (["enqueue", "t", "--timeout", "3"], "--timeout belongs to --wait"),
        (["enqueue", "t", "--name-only"], "say its name with --namespace"),
        (["tasks", "show", "abc"], "'abc' is not a task id"),
        (["tasks", "show", "0197a2b4c6d84e1f8a0b1c2d3e4f5a6b"], "is not a task id"),
        (["config", "show", "wroker"], "no setting begins with 'wroker'"),
        (["status", "--namespace", "a b"], "namespace 'a b'"),
        (["doctor", "extra"], "extra"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(capsys, monkeypatch, tmp_path, root_logging, args, words):
    monkeypatch.chdir(tmp_path)
    assert main.run(args) == 2
    text = capsys.readouterr()
    assert words in one_line(text.err)
    assert text.out == ""


def test_json_errors_are_one_object_on_standard_output(capsys):
    assert main.run(["tasks", "show", "abc", "--json"]) == 2
    text = capsys.readouterr()
    error = json.loads(text.out)["error"]
    assert error["code"] == "usage"
    assert "'abc' is not a task id" in error["message"]
    assert text.err == ""  # said once


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("x"), 2),
        (AppBroken("x"), 2),
        (TaskNotFound("x"), 2),
        (ArgumentError("x"), 2),
        (StoreRejected("x"), 3),
        (EmbeddedError("x"), 3),
        (StoreUnavailable("x", maybe_executed=False), 3),
        (EnqueueUnknown("x", []), 3),
        (ResultTimeout("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_exit_status(error, status):
    assert status_of(error) == status


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.Abort])
def test_ctrl_c_is_130_without_a_word(capsys, monkeypatch, raised):
    def interrupted(*_, **__):
        raise raised

    monkeypatch.setattr(cli, "main", interrupted)
    assert main.run(["status"]) == 130
    assert capsys.readouterr().err == ""


def test_a_real_ctrl_c_while_waiting_for_a_result_is_130(project, redis_url):
    process = subprocess.Popen(
        [sys.executable, "-m", "streamwork", "enqueue", "add", "1", "--wait"],
        cwd=project.folder, env=project.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert len(process.stderr.readline().strip()) == 32  # its id: it waits from now on
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_a_reader_that_has_seen_enough_is_no_error(project):
    process = subprocess.Popen(
        [sys.executable, "-m", "streamwork", "config", "show"],
        cwd=project.folder, env=project.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    wait_until(lambda: process.poll() is not None, "the end")
    assert err == ""
    assert process.returncode > 0


@pytest.mark.parametrize(("args", "line"), [([], "  worker "), (["config"], "  show "), (["tasks"], "  show ")])
def test_a_group_alone_shows_its_help_as_it_is(capsys, args, line):
    assert main.run(args) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.startswith("Usage: streamwork")
    assert any(each.startswith(line) for each in text.err.splitlines())


@pytest.mark.parametrize("args", [["status"], ["config", "show"], ["worker"], ["enqueue", "add"]], ids=" ".join)
def test_a_current_folder_that_is_gone_is_one_line(capsys, monkeypatch, tmp_path, root_logging, args):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main.run(args) == 2
    assert "the current folder is gone" in one_line(capsys.readouterr().err)


def test_an_error_of_the_system_is_one_line(capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/x")

    monkeypatch.setattr(cli, "main", full)
    assert main.run(["status"]) == 1
    assert one_line(capsys.readouterr().err) == "streamwork: [Errno 28] No space left on device: '/x'"
    assert main.run(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "os_error"


@pytest.mark.parametrize(("group", "line"), [("tasks", "State, arguments, result"), ("config", "Each setting, its")])
def test_the_help_of_a_group_is_whole_at_80_columns(capsys, monkeypatch, group, line):
    monkeypatch.setenv("COLUMNS", "80")
    assert main.run([group, "--help"]) == 0
    text = capsys.readouterr().out
    (shown,) = [each for each in text.splitlines() if each.startswith("  show  ")]
    assert line in shown
    assert not shown.endswith("...")
