"""How the app is found, and what is said when it is not: one line, status 2, alike before and after the fork."""

from __future__ import annotations

import pytest

from streamwork.cli.discovery import Target, locate
from streamwork.errors import AppNotFound
from tests.faces.conftest import one_line

APP = """from streamwork import Streamwork
{name} = Streamwork({name!r})
@{name}.task(name={name!r})
def t() -> None: ...
"""

BROKEN = {
    "it raises": (
        {"tasks.py": "import streamwork\n\nx = 1 / 0\n"},
        "tasks.py:3: ZeroDivisionError: division by zero",
    ),
    "it imports what is not there": (
        {"tasks.py": "import streamwork\nimport nonexistent_thing\n"},
        "tasks.py:2: ModuleNotFoundError: No module named 'nonexistent_thing'",
    ),
    "a module of its own raises": (
        {"app.py": "import streamwork\nimport shop.deep\n", "shop/deep.py": "\n\n\nint('x')\n"},
        "shop/deep.py:4: ValueError: invalid literal",
    ),
    "a syntax error": ({"main.py": "import streamwork\ndef f(:\n"}, "main.py:2: SyntaxError: invalid syntax"),
    "a syntax error where nothing of ours is named": (
        {"tasks.py": "from streemwork import Streemwork\ndef f(:\n"},
        "tasks.py:2: SyntaxError: invalid syntax",
    ),
    "it exits": ({"tasks.py": "import sys, streamwork\nsys.exit(7)\n"}, "tasks.py:2: SystemExit: 7"),
    "two tasks of one name": (
        {"tasks.py": APP.format(name="shop") + "@shop.task(name='shop')\ndef again() -> None: ...\n"},
        "tasks.py:5: two tasks are named 'shop'",
    ),
    "a wrong option": (
        {"tasks.py": "from streamwork import Streamwork\na = Streamwork('a')\n@a.task(que='x')\ndef f(): ...\n"},
        "unknown option 'que': did you mean 'queue'?",
    ),
    "two apps": (
        {"tasks.py": APP.format(name="a") + APP.format(name="b")},
        "tasks.py has 2 apps, a, b: choose one with --app tasks:a or --app tasks:b",
    ),
    "no app in the file": ({"tasks.py": "import streamwork\n"}, "no app: tasks.py makes no Streamwork; give --app"),
    "a file that has nothing to do with us": ({"tasks.py": "x = 1\n"}, "without a Streamwork; give --app"),
    "no file": ({}, "no tasks.py, app.py or main.py in"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_an_app_is_one_line_and_status_2(bare, what):
    files, words = BROKEN[what]
    for name, text in files.items():
        bare.write(name, text)
    # Both find it wrong without any Redis; the worker does so in its child process.
    for command in (["worker"], ["queues"]):
        run = bare.process if command == ["worker"] else bare.run
        done = run(*command, "--url", "redis://127.0.0.1:1")
        assert done.status == 2, done
        line = one_line(done.err)
        assert words in line
        assert "STREAMWORK_APP" in line or "tasks:a" in line or "cannot be imported" in line


def test_the_traceback_of_a_broken_import_is_for_the_debug_level(bare):
    bare.write("tasks.py", "import streamwork\n\nx = 1 / 0\n")
    done = bare.run("queues", STREAMWORK_LOG_LEVEL="debug")
    assert done.status == 2
    assert 'tasks.py", line 3' in done.err
    assert "Traceback" in done.err
    done = bare.process("worker", "--log-level", "debug")
    assert 'tasks.py", line 3' in done.err


def test_the_file_is_found_without_a_flag_and_tasks_counts_before_app(bare):
    bare.write("app.py", APP.format(name="second"))
    assert bare.run("doctor", "--url", "redis://127.0.0.1:1", "--json").status == 3
    assert _found(bare) == "second"
    bare.write("tasks.py", APP.format(name="first"))
    assert _found(bare) == "first"


def test_a_tasks_file_that_imports_the_app_has_that_app(bare):
    bare.write("shop.py", "from streamwork import Streamwork\nthe_app = Streamwork('shop')\n")
    bare.write("tasks.py", "from shop import the_app as app\n@app.task(name='t')\ndef t() -> None: ...\n")
    assert _found(bare) == "shop"


def test_flag_beats_variable_beats_pyproject_beats_file(bare):
    for name in ("one", "two", "three", "four"):
        bare.write("tasks.py" if name == "one" else f"{name}.py", APP.format(name=name))
    assert _found(bare) == "one"
    bare.write("pyproject.toml", "[tool.streamwork]\napp = 'two:two'\n")
    assert _found(bare) == "two"
    assert _found(bare, STREAMWORK_APP="three") == "three"
    assert _found(bare, "--app", "four:four", STREAMWORK_APP="three") == "four"


def _found(project, *args, **variables):
    """Return the app's name as an error tells it: nothing is sent, and no Redis is needed."""
    done = project.run("enqueue", "no-such-task", *args, **variables)
    return one_line(done.err).partition("app '")[2].partition("'")[0]


def test_what_an_app_prints_does_not_spoil_the_output(bare):
    bare.write("tasks.py", "print('hello from the app')\n" + APP.format(name="a"))
    done = bare.run("config", "show", "url", "--json")
    assert done.status == 0
    assert [row["name"] for row in done.json] == ["url"]
    assert done.err == "hello from the app\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nope:app", "no module 'nope' in"),
        ("tasks.deeper:app", "no module 'tasks.deeper' in"),
        ("tasks:nope", "'nope' in {folder}/tasks.py is not there: did you mean tasks:shop?"),
        ("tasks:t", "'t' in {folder}/tasks.py is a SyncTask, not a Streamwork: did you mean tasks:shop?"),
        ("tasks.py:shop", "app 'tasks.py:shop' is a file: give the module, as --app tasks:shop"),
        ("sub/tasks.py", "is a file: give the module, as --app sub.tasks"),
        ("a b", "app 'a b' is not of the form package.module:name"),
        ("", "app '' is not of the form package.module:name"),
    ],
)
def test_a_wrong_name_is_told_what_would_be_right(bare, name, words):
    bare.write("tasks.py", APP.format(name="shop"))
    for command in ("queues", "worker"):
        done = (bare.process if command == "worker" else bare.run)(command, "--app", name)
        assert done.status == 2
        last = done.err.strip().splitlines()[-1]
        assert words.format(folder=bare.folder) in last
        assert "Traceback" not in done.err


def test_nothing_is_imported_to_find_the_place(tmp_path):
    (tmp_path / "tasks.py").write_text("raise SystemExit('imported')  # streamwork\n")
    (tmp_path / "main.py").write_text("print('a program that has nothing to do with it')\n")
    assert locate(None, tmp_path) == [Target("tasks")]
    assert locate("a.b:c", tmp_path) == [Target("a.b", "c")]
    assert locate("a.b", tmp_path) == [Target("a.b")]
    (tmp_path / "tasks.py").unlink()
    with pytest.raises(AppNotFound, match=r"main\.py in .* without a Streamwork"):
        locate(None, tmp_path)
