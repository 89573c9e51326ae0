"""Every example runs, by the two commands that its docstring names, in a folder of its own with the embedded Redis."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamwork.store.filelock import wait_lock
from streamwork.store.place import Place
from tests.helpers import ROOT, wait_until

EXAMPLES = ROOT / "examples"

# What each prints: whole lines, as patterns.
PRINTED = {
    "hello.py": [
        r"HELLO WORLD!",
        r"hello\.py has \d+ lines",
        r"order 1 restocked",
        r"order 2 restocked",
        r"order 3 restocked",
        r"refused before anything was sent: argument 'path' of tasks\.measure: .*int",
    ],
    "retries.py": [
        r"flaky: answered at attempt 3",
        r"later: charged visa",
        r"dead: ConnectionError: attempt 4: no answer",
        r"dead: ValueError: .*'seven'",
        r"dead: Reject: the card is stolen",
    ],
    # One page after the other would take 20 s.
    "fan_out.py": [r"100 of 100 pages, 100,000 bytes", r"[0-9]\.\d s"],
    "nightly.py": [
        *[r"beat of \d\d:\d\d:\d\d"] * 3,
        r"clean: 30 2 \* \* \* Europe/Paris",
        r"nightly\.beat: every 1 s",
        r"nothing is older than 30 days",
    ],
    # All of the large site takes 2.8 s; the others' few pages do not wait for that.
    "crawler.py": [
        r"66 pages, 66,000 bytes",
        r"most at once of one site: [1-4]",
        r"the small ones were done while the large one had [1-4]?[0-9] of 60 pages",
    ],
    "process_executor.py": [
        r"primes: \[4, 168, 78498\]",
        r"killed: TimeoutError: .*",
        r"the worker is the same as before",
    ],
}
# Tasks only, for another one's producer.
WITHOUT_PRODUCER = {"tasks.py": "hello.py"}


def commands(example: str) -> tuple[list[str], list[str]]:
    """Return the two commands that the docstring names, run by this interpreter."""
    text = ast.get_docstring(ast.parse((EXAMPLES / example).read_text())) or ""
    worker = re.search(r"^    streamwork (worker.*?) {2,}in one terminal$", text, re.MULTILINE)
    producer = re.search(r"^    python (\S+) {2,}in another$", text, re.MULTILINE)
    assert worker, text
    assert producer, text
    return [sys.executable, "-m", "streamwork", *shlex.split(worker[1])], [sys.executable, producer[1]]


@pytest.fixture
def folder(tmp_path):
    """A copy of the examples; no server is left behind in it."""
    copy = shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", ".streamwork"))
    yield copy
    place = Place(copy / ".streamwork")
    if place.folder.exists():
        free = wait_lock(place.start_lock, shared=False, timeout_s=12)
        assert free is not None, "the embedded server still runs"
        free.close()


@pytest.fixture
def environ():
    """A newcomer's environment: no settings but the server binary under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMWORK_")}
    binary = os.environ.get("STREAMWORK_TEST_REDIS_SERVER")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **({"STREAMWORK_REDIS_SERVER": binary} if binary else {})}


@pytest.mark.parametrize("example", PRINTED)
def test_the_example_does_what_it_says(example, folder, environ):
    worker_command, producer_command = commands(example)
    log = folder / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            worker_command, cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: "worker ready" in log.read_text() or worker.poll() is not None, log.read_text, within_s=20)
        assert worker.poll() is None, log.read_text()
        done = subprocess.run(
            producer_command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert len(lines) == len(PRINTED[example]), done.stdout
        for line, pattern in zip(lines, PRINTED[example], strict=True):
            assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0, log.read_text()
    finally:
        _kill_group(worker)


def _kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def test_every_example_is_run():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == PRINTED.keys() | WITHOUT_PRODUCER.keys()
    for name, producer in WITHOUT_PRODUCER.items():
        assert commands(name) == commands(producer), f"{name} and {producer} name different commands"


def test_examples_are_small():
    sizes = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert max(sizes.values()) <= 80, sizes
    assert [path.name for path in Path(EXAMPLES).iterdir() if path.is_dir() and path.name[0] not in "._"] == []
