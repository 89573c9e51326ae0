"""`streamwork config show`: values, origins, variables, and no secrets."""

from __future__ import annotations

import pytest

from streamwork.cli.show import masked
from streamwork.config import setting_names
from tests.faces.conftest import one_line

APP = "from streamwork import Streamwork\napp = Streamwork('shop', settings={'worker.slots': 7, 'keep.result_s': 5})\n"


def shown(project, *args, **variables):
    done = project.run("config", "show", "--json", *args, **variables)
    assert done.status == 0, done.err
    return {row["name"]: row for row in done.json}


def test_every_setting_with_its_value_origin_and_variable(bare):
    bare.write("tasks.py", APP)
    pyproject = bare.write(
        "pyproject.toml", "[tool.streamwork]\nlog_level = 'error'\n[tool.streamwork.worker]\nslots = 3\nthreads = 4\n"
    )
    rows = shown(bare, "--url", "redis://h:1/2", STREAMWORK_WORKER_TAGS="a,b", STREAMWORK_KEEP_RESULT_S="9")
    assert list(rows) == setting_names()
    assert rows["url"] == {"name": "url", "value": "redis://h:1/2", "origin": "flag", "variable": "STREAMWORK_URL"}
    assert (rows["worker.slots"]["value"], rows["worker.slots"]["origin"]) == (7, "code")
    assert (rows["keep.result_s"]["value"], rows["keep.result_s"]["origin"]) == (5.0, "code")
    assert (rows["worker.threads"]["value"], rows["worker.threads"]["origin"]) == (4, str(pyproject))
    assert (rows["worker.tags"]["value"], rows["worker.tags"]["origin"]) == (["a", "b"], "STREAMWORK_WORKER_TAGS")
    assert (rows["log_level"]["value"], rows["log_level"]["origin"]) == ("error", str(pyproject))
    assert (rows["worker.processes"]["value"], rows["worker.processes"]["origin"]) == (1, "default")
    assert rows["worker.max_memory_mb"]["variable"] == "STREAMWORK_WORKER_MAX_MEMORY_MB"


def test_the_embedded_server_is_one_for_the_whole_project(bare):
    bare.write("pyproject.toml", "[tool.streamwork]\n")
    bare.write("deep/tasks.py", APP)
    assert shown(bare, "folder")["folder"]["value"] == str(bare.folder / ".streamwork")
    done = bare.run("config", "show", "folder", "--json", folder=bare.folder / "deep")
    assert done.json[0]["value"] == str(bare.folder / ".streamwork")


def test_a_line_for_each_setting_at_80_columns_and_nothing_broken(bare):
    bare.write("pyproject.toml", "[tool.streamwork.worker]\nslots = 3\n")
    done = bare.run("config", "show", COLUMNS="80", STREAMWORK_WORKER_THREADS="4")
    assert done.status == 0
    lines = done.out.splitlines()
    assert f"folder                    default         {bare.folder}/.streamwork" in lines  # whole, to be copied
    assert "worker.slots              pyproject.toml  3" in lines
    assert "worker.threads            variable        4" in lines
    assert len(lines) == len(setting_names()) + 3
    assert max(len(line) for line in lines if str(bare.folder) not in line) <= 80
    assert "STREAMWORK_WORKER_SLOTS" in lines[-1]  # how to name the variables, for which there is no room
    wide = bare.run("config", "show", COLUMNS="250").out
    assert "worker.drain_timeout_s    default         STREAMWORK_WORKER_DRAIN_TIMEOUT_S" in wide


def test_passwords_are_masked(bare):
    done = bare.run("config", "show", "url", STREAMWORK_URL="redis://me:s3cret@h:1/0?password=alsosecret")
    assert "s3cret" not in done.out
    assert "alsosecret" not in done.out
    assert "redis://me:***@h:1/0?password=***" in done.out


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:pw@h", "redis://:***@h"),
        ("rediss://u:p@ss@h:1", "rediss://u:***@h:1"),
        ("redis://u:p%40w@h", "redis://u:***@h"),
        ("redis://user@h", "redis://user@h"),
        ("redis://u:pw@h:x/", "redis://u:***@h:x/"),
        ("unix://:pw@/tmp/s?db=0", "unix://:***@/tmp/s?db=0"),
        ("unix:///tmp/s?password=pw&db=1", "unix:///tmp/s?password=***&db=1"),
        ("redis://u:a/b@h", "redis://u:***@h"),
    ],
)
def test_masks(url, shown_as):
    assert masked(url) == shown_as


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"STREAMWORK_WORKER_TAGS": "a b"}, "worker.tags 'a b' (set by STREAMWORK_WORKER_TAGS)"),
        ({"STREAMWORK_WORKER_SLOTS": "x"}, "(set by STREAMWORK_WORKER_SLOTS)"),
        ({"STREAMWORK_WORKER_SLOTS": "20000"}, "10000 at most in one process"),
        ({"STREAMWORK_LOG_LEVEL": "inof"}, "log_level = 'inof': did you mean info?"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_line(bare, variables, words):
    done = bare.run("config", "show", **variables)
    assert done.status == 2
    assert words in one_line(done.err)


def test_what_stands_behind_the_host_of_a_webhook_is_not_shown(project):
    shown = project.run("config", "show", "--json", STREAMWORK_DEAD_WEBHOOK="https://me:pw@hooks.example.org/T1/secret")
    assert shown.status == 0
    assert "https://hooks.example.org/***" in shown.out
    assert "secret" not in shown.out
    assert "pw" not in shown.out
