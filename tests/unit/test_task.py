"""Tasks as they are declared: names, options, what a message carries, and what is refused with one line."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import inspect
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

import streamwork
from streamwork import ArgumentError, ConfigError, DuplicateTaskName, Retry, Streamwork, TaskNotFound
from streamwork.model.policy import DEFAULT_RETRY
from streamwork.wire.message import NO_OPTIONS, Options, decode_message, encode_message

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def app():
    """An app whose Redis is not there: whatever reaches for it fails at once."""
    return Streamwork("declared", "redis://127.0.0.1:1/0", {"client.send_timeout_s": 0.0})


@pytest.fixture
def task(app):
    @app.task(queue="mail", tags={"gpu"}, priority=7, timeout=30, keep=3600, retry=Retry(on=OSError))
    def send(n: int = 0) -> int:
        return n

    return send


def carried(task):
    """Return the options as a worker reads them."""
    return decode_message(encode_message("0" * 32, "t", b"\x90", None, task.call().options, None)).options


def test_without_options_a_message_carries_none(task):
    assert carried(task) is None
    assert task.options(priority=1).call().options is NO_OPTIONS


def test_chained_options_keep_what_was_set_before(task):
    preset = task.options(timeout=5, retry=None, keep=60)
    chained = preset.options(priority=9).options(queue="fast").options(tags=())
    assert carried(chained) == Options(timeout_ms=5_000, keep_ms=60_000, retry=(1, 1.0, 2.0, 600.0, True))
    assert (chained.timeout_s, chained.keep_ms, chained.retry) == (5.0, 60_000, ())
    assert (chained.queue, chained.lane, chained.priority, chained.tags) == ("fast", "3:", 9, frozenset())


def test_the_last_one_of_chained_options_counts(task):
    chained = task.options(timeout=5, keep=60).options(timeout=HOUR, keep=0)
    assert carried(chained) == Options(timeout_ms=3_600_000, keep_ms=0)
    assert carried(task.options(timeout=5).options(timeout=None)) == Options(timeout_ms=0)


def test_options_leave_the_task_itself_as_it_was(task):
    task.options(queue="q", tags=(), priority=0, retry=None, timeout=None, keep=None)
    assert (task.queue, task.lane, task.timeout_s, task.keep_ms) == ("mail", "2:gpu", 30.0, 3_600_000)
    assert task.retry == (Retry(on=OSError),)


def test_no_limit_and_the_apps_retention_are_said_in_the_message(app, task):
    without = task.options(timeout=None, keep=None)
    keep_ms = int(app.config.keep.result_s * 1000)
    assert carried(without) == Options(timeout_ms=0, keep_ms=keep_ms)
    assert (without.timeout_s, without.keep_ms) == (None, keep_ms)


def test_odd_milliseconds_survive_other_options(task):
    assert task.options(keep=1.001, timeout=1.001).options(priority=1).keep_ms == 1_001
    assert carried(task.options(keep=1.001, timeout=0.29).options(priority=1)) == Options(timeout_ms=290, keep_ms=1_001)


def test_a_messages_own_policy_reads_back_whatever_numbers_it_was_made_of(task):
    own = task.options(retry=Retry(5, base=0, factor=2, max_delay=HOUR, jitter=False))
    assert carried(own) == Options(retry=(5, 0.0, 2.0, 3600.0, False))


def test_exception_types_of_a_messages_own_policy_are_refused_not_dropped(task):
    for on in (ValueError, (Exception, OSError), BaseException):
        with pytest.raises(ConfigError, match=r"send: options\(retry=\) is for every exception.*@app\.task"):
            task.options(retry=Retry(on=on))
    with pytest.raises(ConfigError, match="one Retry or None"):
        task.options(retry=[DEFAULT_RETRY])


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - that is what is wrong with it
WRONG = [
    *({"timeout": wrong} for wrong in (float("nan"), float("inf"), "5", "abc", [], True, -1, 0, 1e-5, 1e15, 10**400)),
    *({"keep": wrong} for wrong in (float("nan"), float("inf"), "5", "abc", [], True, -1, 1e-5, 1e15, 1e300)),
    *({"tags": wrong} for wrong in (None, 5, "gpu", b"gpu", [1], ["a b"], [["a"]])),
    *({"queue": wrong} for wrong in (None, "", 5, "a b", ["a"])),
    *({"priority": wrong} for wrong in (None, "5", 10, -1, 5.0, True)),
    *({"retry": wrong} for wrong in (5, "x", [3], True)),
    *({"expires": wrong} for wrong in ("5", [], True, -1, 0, 1e-5, NAIVE, datetime(1960, 1, 1, tzinfo=UTC))),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_wrong_value_is_refused_with_its_name_declared_and_later(app, task, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"^task .*send: .*{name.removesuffix('s')}"):
        task.options(**wrong)
    with pytest.raises(ConfigError, match=rf"^task .*: .*{name.removesuffix('s')}"):
        app.task(name="another", **wrong)(lambda: None)
    assert "another" not in app.tasks


@pytest.mark.parametrize("wrong", [{"name": 5}, {"name": ""}, {"name": "a\nb"}, {"name": "x" * 251}, {"executor": []}])
def test_a_wrong_value_of_a_declaration_is_refused(app, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        app.task(**wrong)(lambda: None)
    assert app.tasks == {}


def test_an_unknown_option_names_the_nearest_and_where_it_stands(app, task):
    with pytest.raises(ConfigError, match=r"^@app\.task: unknown option 'que': did you mean 'queue'\?"):
        app.task(que="mail")
    with pytest.raises(ConfigError, match=r"^task mails: unknown option 'que'"):
        app.task(name="mails", que="mail")
    with pytest.raises(ConfigError, match=r"^task \S+send: unknown option 'timout': did you mean 'timeout'\?"):
        task.options(timout=1)
    with pytest.raises(ConfigError, match=r"unknown option 'executor'"):
        task.options(executor="process")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"countdown": 5}, r"task.options\(delay=...\), in seconds$"),
        ({"eta": datetime(2026, 1, 1, tzinfo=UTC)}, r"task.options\(run_at=...\), a datetime with a time zone$"),
        ({"time_limit": 5}, "timeout=$"),
        ({"max_retries": 3}, r"retry=Retry\(max_attempts=...\), which counts the first run too$"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_celery_are_told_what_they_are_called_here(app, task, option, said):
    (name,) = option
    with pytest.raises(ConfigError, match=f"^task .*send: unknown option '{name}': here it is {said}"):
        task.options(**option)
    with pytest.raises(ConfigError, match=f"^@app.task: unknown option '{name}': here it is {said}"):
        app.task(**option)
    with pytest.raises(ArgumentError, match=f"unexpected keyword argument '{name}'.*; {name} is here {said}"):
        task.call(7, **option)


def test_an_option_that_is_given_as_an_argument_is_told_where_it_goes(task):
    said = r"; if delay is meant as an option, say task\.options\(delay=\.\.\.\)\.enqueue\(\.\.\.\)$"
    with pytest.raises(ArgumentError, match=said):
        task.enqueue(7, delay=5)
    with pytest.raises(ArgumentError) as caught:
        task.enqueue(7, dealy=5)
    assert "option" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "said"), [("apply_async", "enqueue(1, 2)"), ("s", "task.call(1, 2)"), ("AsyncResult", "task.handle")]
)
def test_methods_of_celery_are_told_what_they_are_called_here(task, method, said):
    with pytest.raises(AttributeError, match=rf"send has no attribute '{method}': here it is .*{re.escape(said)}"):
        getattr(task, method)
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        task.nonsense  # noqa: B018 - the look itself is what is tried
    assert not hasattr(copy.copy(task), "apply_async")


class Caller:
    def __call__(self, n: int) -> int:
        return n


def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize("wrong", ["mail", 5, ["f"], b"f"], ids=repr)
def test_what_cannot_be_called_cannot_be_a_task(app, wrong):
    with pytest.raises(ConfigError, match=r"cannot be a task.*@app\.task\(queue="):
        app.task(wrong)
    with pytest.raises(ConfigError, match="cannot be a task"):
        app.task(queue="q")(wrong)


def test_a_task_is_not_made_a_task_twice(app, task):
    with pytest.raises(ConfigError, match="is a task already"):
        app.task(task)


@pytest.mark.parametrize("body", [Caller(), functools.partial(add, 3)], ids=["instance", "partial"])
def test_what_has_no_name_of_its_own_needs_one(app, body):
    with pytest.raises(ConfigError, match=r"no name of its own.*name="):
        app.task(body)
    named = app.task(name="named")(body)
    with app.inline():
        assert named.enqueue(4).result() == body(4)


def test_options_beside_the_function_count(app):
    assert app.task(add, queue="q").queue == "q"


def test_what_is_no_call_is_refused(app, task):
    with pytest.raises(ConfigError, match=r"several calls"):
        app.enqueue_many(task.call(1))
    with pytest.raises(ConfigError, match=r"several calls"):
        app.enqueue_many(None)
    with app.inline() as inline:
        with pytest.raises(ConfigError, match=r"^1 is not a call: give task\.call"):
            app.enqueue_many(iter([task.call(1), 1]))
        assert len(inline.sent) == 1
    for wrong in ("", 5, None, ["t"]):
        with pytest.raises(TaskNotFound, match="cannot be the name"):
            app.call_elsewhere(wrong, (), {})


@pytest.mark.parametrize("wrong", [[1], "worker.slots=3", 5], ids=repr)
def test_settings_are_a_mapping(wrong):
    with pytest.raises(ConfigError, match=r"settings=.*dict"):
        Streamwork("x", settings=wrong)


SOURCE = """
from streamwork import Streamwork
app = Streamwork("shop", "redis://127.0.0.1:1/0")
@app.task
def add() -> None: ...
if __name__ in ("__main__", "__mp_main__"):
    print(*app.tasks)
"""


def printed(folder, *arguments):
    command = [sys.executable, *arguments]
    path = {"PYTHONPATH": str(next(iter(streamwork.__path__)) + "/..")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_task_has_one_name_however_its_program_is_started(tmp_path):
    shop = tmp_path / "shop"
    inner = shop / "inner"
    inner.mkdir(parents=True)
    for folder in (shop, inner):
        (folder / "__init__.py").touch()
        (folder / "tasks.py").write_text(SOURCE)
        (folder / "__main__.py").write_text(SOURCE)
    (tmp_path / "alone.py").write_text(SOURCE)
    inside = "import tasks; print(*tasks.app.tasks)"
    spawned = "import multiprocessing as m; m.set_start_method('spawn'); import shop.tasks as t; print(*t.app.tasks)"
    for folder, arguments, names in (
        (tmp_path, ("-m", "shop.tasks"), ["shop.tasks.add"]),
        (tmp_path, ("shop/tasks.py",), ["shop.tasks.add"]),
        (shop, ("tasks.py",), ["shop.tasks.add"]),
        (shop, ("-m", "tasks"), ["shop.tasks.add"]),
        (inner, ("tasks.py",), ["shop.inner.tasks.add"]),
        (tmp_path, ("-m", "shop"), ["shop.add"]),
        (tmp_path, ("-c", spawned), ["shop.tasks.add"]),
        (tmp_path, ("alone.py",), ["alone.add"]),
        (tmp_path, ("-m", "alone"), ["alone.add"]),
        (shop, ("-c", inside), ["shop.tasks.add"]),
    ):
        assert printed(folder, *arguments) == names, (folder, arguments)


def test_what_docstrings_say_is_raised_can_be_imported_from_the_top():
    said = set()
    for name in streamwork.__all__:
        for text in (getattr(streamwork, name), *vars(getattr(streamwork, name)).values()):
            raises = re.search(r"Raises:\n(.*?)(\n\n|\Z)", inspect.getdoc(text) or "", re.DOTALL)
            entries = re.findall(r"^    (\w[\w, ]*):", raises[1], re.MULTILINE) if raises else []
            said.update(error for entry in entries for error in entry.split(", "))
    assert {"UseAsync", "StoreFull", "DuplicateTaskName", "TooManyLanes"} <= said
    assert said <= set(streamwork.__all__)


def test_a_name_that_is_taken_is_refused_with_both_places(app):
    def once(n: int) -> int: ...

    def again(n: int) -> int: ...

    here = re.escape(__file__)
    app.task(name="t")(once)
    with pytest.raises(
        DuplicateTaskName, match=rf"two tasks are named 't': {here}:\d+ and {here}:\d+; give one .* name="
    ):
        app.task(name="t")(again)
    with pytest.raises(DuplicateTaskName, match=rf"one function is declared twice as the task 't': {here}:\d+; give"):
        app.task(name="t")(once)


@pytest.mark.parametrize("url", ["foo", "http://x", "redis://h:port", "", "redis://h/0?nonsense=1"])
def test_what_is_no_url_is_refused_at_once(url):
    with pytest.raises(ConfigError, match=r"use redis://host:port/0|url"):
        Streamwork("x", url)


def test_a_task_with_options_shows_them(app):
    @app.task(name="tests.shown", queue="mail")
    def shown() -> None: ...

    assert repr(shown) == "Task('tests.shown', queue='mail')"
    assert repr(shown.options(priority=9, wait=3)) == "Task('tests.shown', queue='mail', priority=9, wait=3)"
