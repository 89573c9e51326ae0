"""`streamwork demo` on less input: real workers, a real kill, and a comparison that fails when it should."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from streamwork.cli.demo import python_files
from streamwork.cli.demo_facts import Facts, gather, percentile, total
from streamwork.cli.demo_tasks import FileFacts, scan
from streamwork.cli.demo_watch import Kill, Observed
from streamwork.store.commands import plain
from streamwork.wire.message import JournalRecord
from tests.helpers import ROOT, wait_until

STDLIB = Path(sysconfig.get_path("stdlib"))

# The command line, with a file of the source changed between the two computations.
TAMPERED = """
import sys
from pathlib import Path
from streamwork.cli import demo, main

count_directly = demo.count_directly

def after_a_change(paths):
    with Path(paths[3]).open("a") as file:
        file.write("\\ndef planted(): pass\\n")
    return count_directly(paths)

demo.count_directly = after_a_change
main.main(sys.argv[1:])
"""


# Started behind a shell's `&`, a process and all below it ignore Ctrl-C.
INTERRUPTIBLE = """
import signal, sys
from streamwork.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main(sys.argv[1:])
"""


@pytest.fixture
def home():
    """Where the demo makes its folder; a short name, because a socket's path may be 100 bytes long."""
    with tempfile.TemporaryDirectory(prefix="sw-") as folder:
        yield Path(folder)


@pytest.fixture
def demo(home):
    """Start `streamwork demo` with its folder below `home`; killed at the end."""
    started = []

    def start(*arguments, program=("-m", "streamwork"), settings=None):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMWORK_")}
        binary = os.environ.get("STREAMWORK_TEST_REDIS_SERVER")
        environ = {
            **kept,
            **({"STREAMWORK_REDIS_SERVER": binary} if binary else {}),
            **(settings or {}),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(home),
        }
        process = subprocess.Popen(
            [sys.executable, *program, "demo", *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in processes_of(home):
        os.kill(pid, signal.SIGKILL)


def processes_of(folder):
    """Return the pids of whatever has the folder on its command line: workers, guardian, redis-server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has just ended
    return found


def folders(home):
    return [path for path in home.iterdir() if path.name.startswith("streamwork-demo-")]


def test_the_demo_counts_everything_and_survives_the_kill(demo, home):
    process = demo("--files", "200")
    output, errors = process.communicate(timeout=90)
    assert (process.returncode, errors) == (0, ""), output + errors
    assert re.search(r"^files +200 in \d+\.\d s", output, re.MULTILINE), output
    assert re.search(r"^files/s +\d+\.\d$", output, re.MULTILINE), output
    assert re.search(r"^latency +p50 [\d,]+ ms, p99 [\d,]+ ms", output, re.MULTILINE), output
    held = re.search(r"^worker 1 killed while it held (\d+) deliveries$", output, re.MULTILINE)
    assert held, output
    assert int(held[1]) > 0
    assert f"reclaimed  {held[1]} of {held[1]} deliveries" in output
    recovery = re.search(r"^recovery +(\d+\.\d) s from the kill .*, (\d+\.\d) s to the last$", output, re.MULTILINE)
    assert recovery, output
    assert 0 < float(recovery[1]) <= float(recovery[2]) < 10
    wanted = total(scan(path) for path in python_files(STDLIB, 200))
    for name in ("unparsable", "lines", "functions", "classes", "imports"):
        value = f"{getattr(wanted, name):,}"
        assert re.search(rf"│ {name} +│ +{value} │ +{value} │ equal +│", output), f"{name} is not {value}:\n{output}"
    assert "DIFFERS" not in output
    assert output.splitlines()[-1] == "0 lost, 0 committed twice"
    assert folders(home) == []
    assert processes_of(home) == []


def test_a_total_that_differs_fails_and_a_redis_of_ones_own_is_left_clean(demo, driver, redis_url, home, tmp_path):
    source = tmp_path / "source"
    for package in ("asyncio", "email", "importlib", "json", "unittest", "xml"):
        shutil.copytree(STDLIB / package, source / package)
    files = python_files(source, None)
    before = driver.run(plain("KEYS", "*"))
    process = demo(
        *("--source", str(source), "--url", redis_url, "--json"),
        program=("-c", TAMPERED),
        settings={"STREAMWORK_LIVENESS_TTL_S": "1"},
    )
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 1, output + errors
    facts = msgspec.json.decode(output, type=Facts)
    assert facts.files == facts.totals.files == len(files)
    assert facts.direct.functions == facts.totals.functions + 1
    assert facts.direct.imports == facts.totals.imports
    assert (facts.lost, facts.committed_twice) == (0, 0)
    assert facts.reclaimed == facts.held
    assert sum(facts.by_worker) == len(files)
    assert len(facts.problems) == 1
    assert facts.problems[0].startswith(f"{files[3]} differs")
    (kept,) = folders(home)
    assert str(kept) in errors
    assert "worker ready" in (kept / "worker-2.log").read_text()
    assert [key for key in driver.run(plain("KEYS", "*")) if key not in before] == []
    assert processes_of(home) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(how, demo, home):
    process = demo(program=("-c", INTERRUPTIBLE))
    line = next(line for line in process.stdout if line.startswith("scan "))
    assert line.startswith("scan 1")
    assert len(processes_of(home)) >= 6  # two supervisors, two worker processes, guardian, redis-server
    process.send_signal(how)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    wait_until(lambda: not processes_of(home), lambda: f"left: {processes_of(home)}", within_s=5)
    assert folders(home) == []


def test_a_redis_that_is_away_is_one_line(demo, home):
    process = demo("--url", "redis://127.0.0.1:1/0")
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 3, errors
    assert "127.0.0.1:1" in errors
    assert len(errors.splitlines()) == 1
    assert output == ""
    assert folders(home) == []


def test_too_little_input_is_refused(demo, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.py").write_text("import os\n")
    process = demo("--source", str(tmp_path / "one"))
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "two at least are needed" in errors


def test_a_sample_is_spread_over_all_files():
    files = python_files(STDLIB, None)
    sample = python_files(STDLIB, 10)
    assert len(files) > 500
    assert len(set(sample)) == 10
    assert files.index(sample[-1]) > len(files) * 0.8
    assert not [path for path in files if "site-packages" in path.parts]


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        (b"", FileFacts(parses=True)),
        (b"import os, sys\nfrom a import b\n", FileFacts(lines=2, imports=2, parses=True)),
        (
            b"class A:\n    if 1:\n        def f(self): import os\n    else:\n        async def g(self): ...\n",
            FileFacts(lines=5, functions=2, classes=1, imports=1, parses=True),
        ),
        (
            b"try: pass\nexcept E: import a\nfinally: import b\nmatch x:\n    case 1: import c\n",
            FileFacts(lines=5, imports=3, parses=True),
        ),
        (b"print 'python 2'\n", FileFacts(lines=1)),
        (b"# coding: no-such-coding\n", FileFacts(lines=1)),
        (b"\xff\xfe\n", FileFacts(lines=1)),
        (b"a = '\0'\n", FileFacts(lines=1)),
        (b"(" * 500 + b")" * 500, FileFacts(lines=1)),
    ],
    ids=range(9),
)
def test_what_is_counted_in_a_file(source, facts, tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes(source)
    assert scan(path) == facts


def test_a_file_that_cannot_be_read_is_a_result_too(tmp_path):
    assert scan(tmp_path / "missing.py") == FileFacts()


class Sent:
    def __init__(self, number):
        self.id = f"id-{number}"


def judged(committed, *, arrived=(0, 1, 2), held=(), results=None, direct=None):
    """Return the facts of three files with the given commits: (file, consumer)."""
    paths = [Path(f"{number}.py") for number in range(3)]
    facts = {path: FileFacts(lines=1, parses=True) for path in paths}
    seen = Observed(
        handles=[Sent(number) for number in range(3)],
        began_at_ms=1000,
        enqueued_at_ms=1010,
        results={paths[number]: facts[paths[number]] for number in arrived} if results is None else results,
        arrived_at_ms={f"id-{number}": 2000 + 100 * number for number in arrived},
        latency_ms={f"id-{number}": 10 * (number + 1) for number in arrived},
        kill=Kill(1500, 1, "dead", [1, 2], {f"{number}-0".encode() for number in held}),
    )
    records = [
        JournalRecord(1, f"id-{number}", "scan", "succeeded", "1:demo", f"{number}-0".encode(), 1, consumer, 1, 2)
        for number, consumer in committed
    ]
    return gather(seen, records, facts if direct is None else direct, 5, "dead")


def test_facts_of_a_good_run():
    facts = judged([(0, "dead"), (1, "alive"), (2, "alive")], held=(1, 2))
    assert facts.problems == []
    assert (facts.lost, facts.committed_twice) == (0, 0)
    assert (facts.held, facts.reclaimed, facts.by_worker) == (2, 2, [1, 2])
    assert (facts.first_recovered_ms, facts.last_recovered_ms) == (600, 700)
    assert (facts.elapsed_ms, facts.files_per_s) == (1200, 2.5)
    assert (facts.p50_ms, facts.p99_ms) == (20, 30)
    assert Counter(facts.totals.__struct_fields__) == Counter(facts.direct.__struct_fields__)
    assert facts.totals == facts.direct


def test_what_the_killed_worker_still_settled_was_not_reclaimed():
    facts = judged([(0, "dead"), (1, "dead"), (2, "alive")], held=(1, 2))
    assert (facts.held, facts.reclaimed) == (2, 1)


def test_a_file_committed_twice_is_a_problem():
    facts = judged([(0, "dead"), (0, "alive"), (1, "alive"), (2, "alive")])
    assert facts.committed_twice == 1
    assert facts.problems == ["1 files have more than one committed outcome"]


@pytest.mark.parametrize("arrived", [(0, 1), (0, 1, 2)])
def test_a_file_without_a_result_or_a_journal_record_is_lost(arrived):
    committed = [(0, "dead"), (1, "alive")] + ([(2, "alive")] if len(arrived) == 2 else [])
    facts = judged(committed, arrived=arrived)
    assert facts.lost == 1
    assert "1 of 3 files have no committed outcome" in facts.problems


def test_percentiles():
    assert percentile([], 0.5) == 0
    assert percentile([7], 0.99) == 7
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([3, 1, 2], 0.5) == 2
