"""What the README and its companions say is so: the first example runs as it is written, by the commands it names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

import streamwork
from streamwork import ConfigError, Context, Handle, Retry, Streamwork
from streamwork.broker.outgoing import CHUNK_MESSAGES
from streamwork.cli.main import cli
from streamwork.config import Config
from streamwork.model.state import State
from streamwork.options import TASK_OPTIONS
from tests.helpers import wait_until

README = Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tasks.py").write_text(blocks("python")[0])
    return tmp_path


def test_the_first_example_is_short_and_answers(folder):
    """The example has 15 lines at most, and its result is the one its comment names."""
    example = blocks("python")[0]
    code = [line for line in example.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 15
    expected = re.search(r"print\(.*\)  # (.*)", example)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMWORK_")}
    command = re.search(r"^streamwork (worker .*?)\s+#", blocks("console")[1], re.MULTILINE)
    assert expected
    assert command
    log = folder / "worker.log"
    with log.open("w") as sink:
        worker = subprocess.Popen(
            [sys.executable, "-m", "streamwork", *command[1].split()],
            cwd=folder,
            env=environment,
            stderr=sink,
            stdout=sink,
        )
    try:
        wait_until(lambda: "worker ready" in log.read_text(), "the worker is ready", within_s=30)
        done = subprocess.run(
            [sys.executable, "tasks.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.strip() == expected[1], done.stderr
    finally:
        worker.send_signal(signal.SIGTERM)
        status = worker.wait(30)
    assert status == 0


def test_every_example_runs(folder):
    """Each Python block names its file: the modules can be imported, their calls run in place, and the tests pass."""
    named = {re.match(r"# (\w+\.py)\n", block)[1]: block for block in blocks("python")}
    assert {"tasks.py", "sending.py", "lifespan.py", "test_tasks.py"} <= set(named)
    for name, block in named.items():
        (folder / name).write_text(block)
    (folder / "test_others.py").write_text(OTHERS)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    installed = any(entry.name == "streamwork" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "streamwork.testing.plugin"]
    # Its own Redis is one that is not there, so nothing may be sent to it.
    environ = {**os.environ, "PYTHONPATH": str(README.parent), "STREAMWORK_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *plugin],
        cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout


OTHERS = """
import asyncio
import lifespan, sending, tasks
from streamwork.testing import Drained, enqueued

def test_sending(streamwork_redirect):
    streamwork_redirect(tasks.app)
    sending.send()
    waiting = enqueued(tasks.app)
    assert len(waiting) == 1003
    assert {each.queue for each in waiting} == {"default", "mail"}
    assert [each.args for each in waiting if each.task == "billing.close_month"] == [(2026, 11)]

def test_asending():
    with tasks.app.inline():
        assert asyncio.run(sending.asend()) == "receipt 7 sent to a@b.c"

def test_looking(streamwork_redirect):
    import looking
    from streamwork.testing import run_until_idle
    streamwork_redirect(tasks.app)
    tasks.app.enqueue_many(tasks.send_receipt.call(n, to) for n, to in ((7, "a@b.c"), (8, "x@y.z"), (9, "a@b.c")))
    run_until_idle(tasks.app)
    assert looking.receipts_to("a@b.c") == [7, 9]

def test_the_lifespan(streamwork_redirect):
    from streamwork.testing import run_until_idle
    streamwork_redirect(lifespan.app)
    handle = lifespan.address_of.enqueue(7)
    assert run_until_idle(lifespan.app) == Drained(succeeded=1)
    assert handle.result(timeout=1) == "a@b.c"
"""


def test_the_figures_are_those_of_the_settings():
    text, config = " ".join(README.read_text().split()), Config()
    for words, value in (
        ("up to 20 messages in hand at once per process (100 unless you say otherwise)", config.worker.slots == 100),
        ("within `--drain-timeout` (30 s)", config.worker.drain_timeout_s == 30),
        ("is looked at every 10 s at least", config.worker.max_starve_s == 10),
        ("run elsewhere within 10 s** (setting `liveness.ttl_s`)", 2 * config.liveness.ttl_s == 10),
        ("above 1 MB (`client.max_body_bytes`)", config.client.max_body_bytes == 1_048_576),
        ("A result stays a day", config.keep.result_s == 86_400),
        ("tries for 10 s (`client.send_timeout_s`)", config.client.send_timeout_s == 10),
        ("asks again for 60 s (`client.resend_s`)", config.client.resend_s == 60),
        ("three attempts in all, with waits of up to 1 s, then 2 s", (Retry().max_attempts, Retry().base) == (3, 1)),
        ("a round trip for each 500", CHUNK_MESSAGES == 500),
    ):
        assert words in text
        assert value, words


def test_every_command_and_option_that_is_named_exists():
    text = README.read_text()
    tasks = cli.get_command(click.Context(cli), "tasks")
    schedules = cli.get_command(click.Context(cli), "schedules")
    history = cli.get_command(click.Context(cli), "history")
    dead = cli.get_command(click.Context(cli), "dead")
    groups = [each for group in (tasks, schedules, history, dead) for each in group.commands.values()]
    single = [cli.get_command(click.Context(cli), name) for name in ("worker", "tap", "events", "replay")]
    commands = [*single, *groups]
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help"}
    assert named
    assert named <= known
    commands = set(re.findall(r"`streamwork ([a-z]+)", text))
    assert {"worker", "status", "doctor", "queues", "tasks"} <= commands
    assert commands <= set(cli.list_commands(click.Context(cli)))
    for name in re.findall(r"`(?:raises? )?((?:Task|Result|Store|Enqueue|Argument|Body)[A-Z][A-Za-z]+)`", text):
        assert issubclass(getattr(streamwork, name), streamwork.StreamworkError), name
    options = re.search(r"Options of `@app.task`: (.*?)\. ", text)[1]
    assert set(re.findall(r"`(\w+)`", options)) == set(TASK_OPTIONS)
    states = set(
        re.findall(r"`(\w+)`", re.search(r"`handle.state\(\)` is (.*?) \(nothing is kept\)", text, re.DOTALL)[1])
    )
    assert states == set(State)


def test_the_two_commands_exist():
    """What the README opens with is there and may be run."""
    for line in blocks("console")[0].splitlines():
        command = README.parent / line.split()[0]
        assert command.is_file()
        assert os.access(command, os.X_OK)


def test_what_is_to_be_installed_can_be():
    """Until the package is published, only a clone can be installed; the extras are those of pyproject.toml."""
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    commands = re.findall(r"pip install ('[^']*'|\S+)", README.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        named = re.fullmatch(r"'<path to the clone>\[(\w+)\]'", command)
        assert named, command
        assert named[1] in extras


@pytest.mark.parametrize("file", ["README.md", "CHANGELOG.md"])
def test_what_is_not_there_yet_is_said_and_refused(file):
    """Whoever builds one of these takes it off both lists."""
    missing = re.search(r"Not yet\b.*?(?=\n\n#|\Z)", (README.parent / file).read_text(), re.DOTALL)
    assert missing

    @Streamwork("shop").task
    def task() -> None: ...

    for option in ("durability",):
        assert option in missing[0]
        with pytest.raises(ConfigError):
            task.options(**{option: 1})
    for owner, name in (
        (Handle, "progress"),
        (Context, "progress"),
        (Context, "checkpoint"),
        (Context, "enqueue_child"),
    ):
        assert name in missing[0]
        assert not hasattr(owner, name)


def test_every_part_of_the_house_is_in_the_picture():
    """Each module and room of the package has its place in architecture.md, and each script its tests."""
    text = (README.parent / "ops" / "docs" / "architecture.md").read_text()
    named = set(" ".join(re.findall(r"^\| \d \w+ \| `(.*?)` \|", text, re.MULTILINE)).split())
    package = README.parent / "streamwork"
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("_")}
    assert named == modules | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    tests = {path.stem for path in (README.parent / "tests" / "redis").glob("test_*.py")}
    scripts = {path.stem for path in (package / "store" / "lua").glob("*.lua")}
    assert scripts
    assert {f"test_{script}" for script in scripts} <= tests
