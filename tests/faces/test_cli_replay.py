"""`streamwork replay`: what it prints, refuses and answers, of what a real worker did."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from streamwork.ids import new_task_id
from tests.helpers import wait_until


@pytest.fixture
def past(project, worker):
    """Ids of four calls that a real worker ran: two greetings, an addition and one that died."""
    worker()
    ids = []
    for call in (("greet", "milk"), ("greet", "honey"), ("add", "2", "3"), ("boom", "tea")):
        ids.append(project.run("enqueue", *call).out.strip())
        done = lambda: len(project.run("history", "--json").out.splitlines()) == len(ids)
        wait_until(done, lambda: f"{call} to end", 20)  # noqa: B023
    return ids


def change_greet(project, body):
    path = project.folder / "tasks.py"
    text = path.read_text()
    path.write_text(text.replace("    return name.upper() if loud else name\n", f"    {body}\n"))
    assert path.read_text() != text


def test_a_dry_run_says_what_would_be_sent_and_sending_says_how_many(project, past):
    dry = project.run("replay", "--task", "greet", "--into", "trial", "--set", "name=bread", "--dry-run")
    assert dry.status == 0
    assert dry.out.splitlines() == [
        *(f"{each} would be sent: tasks.greet('bread') to trial, lane 1:" for each in past[:2]),
        "2 would be sent to trial",
    ]  # fmt: skip
    assert "queue 'trial' is new" in dry.err
    assert "trial" not in project.run("queues").out
    done = project.run("replay", "--task", "greet", "--into", "trial", "--set", "name=bread", "--json")
    sent = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["answer"], one["id"], one["args"]) for one in sent] == [("sent", each, ["bread"]) for each in past[:2]]
    shown = project.run("tasks", "show", sent[0]["new_id"], "-Q", "trial", "--json").json
    assert (shown["args"], shown["state"]) == (["bread"], "waiting")


def test_what_is_wrong_is_one_line_and_sends_nothing(project, past):
    for args, status, word in (
        ((), 2, "say one of --into"), (("--here", "--compare"), 2, "say one of"), (("--here",), 2, "give its ID"),
        (("--compare", "--rate", "5"), 2, "--rate belongs to --into"), (("--into", "x", "--pdb"), 2, "--pdb belongs"),
        (("--into", "x", "--since", "2 hours ago-ish"), 2, "is no time"),
        (("--into", "x", "--where", "__import__('os')"), 2, "where"), (("--into", "x", "--pace", "fast"), 2, "pace"),
        (("--into", "x", "--set", "colour=red", "--task", "greet"), 2, "nothing was sent"),
        (("--compare", "--slower", "soon"), 2, "slower"), (("--compare", "--allow", "all"), 2, "differences are"),
        (("nowhere", "--into", "x"), 1, "no queue 'nowhere'"), (("--into", "x", "--resume"), 1, "no interrupted"),
        ((new_task_id(), "--here"), 1, "there are: none"), ((past[0], "--here", "--attempt", "9"), 1, "no attempt 9"),
        (("--compare", "--task", "nap"), 1, "nothing was compared"),
    ):  # fmt: skip
        done = project.run("replay", *args)
        assert done.status == status, (args, done)
        assert word in done.err.strip().splitlines()[-1], (args, done)
        assert "Traceback" not in done.err
    assert not re.search(r"^x ", project.run("queues").out, re.MULTILINE)


def test_one_runs_here_with_its_arguments_and_in_the_debugger(project, past):
    done = project.run("replay", past[3], "--here")
    assert done.status == 1
    assert f"tasks.boom('tea'): attempt 1 of {past[3]}, which was dead: failed: ValueError: no tea" in done.out
    assert 'raise ValueError("no " + what)' in done.out
    ran = project.run("replay", past[1], "--here", "--json")
    assert (ran.status, ran.json["state"], ran.json["result"], ran.json["sends"]) == (0, "succeeded", "honey", [])
    dry = project.run("replay", past[1], "--here", "--dry-run")
    assert (dry.status, dry.out) == (
        0, f"tasks.greet('honey'): attempt 1 of {past[1]} would run here; it was succeeded\n"
    )  # fmt: skip


def test_a_comparison_is_a_table_json_and_a_page(project, past):
    same = project.run("replay", "--compare")
    assert same.status == 0
    assert re.search(r"^same +4 ", same.out, re.MULTILINE)
    change_greet(project, 'return {"milk": "<cheese>"}.get(name, name)')
    dry = project.run("replay", "--compare", "--dry-run").out.splitlines()
    assert dry[-1] == "4 would run"
    done = project.run("replay", "--compare", "--html", "report.html")
    assert done.status == 1
    assert f'{past[0]}  result_differs    tasks.greet(\'milk\'): was "milk", is "<cheese>"' in done.out
    assert '-"milk"\n+"<cheese>"' in done.out
    page = (project.folder / "report.html").read_text()
    assert page.count('<tr data-change="result_differs"') == page.count("<tr data-") == 1
    assert "&lt;cheese&gt;" in page
    assert "<cheese>" not in page
    assert not re.search(r"(?:src|href)=|https?:|@import|url\(", page)
    assert 'lang="en"' in page
    assert page.count('aria-sort="none"') == 6
    found = project.run("replay", "--compare", "--json")
    assert (found.status, found.json["total"], found.json["differences"]) == (1, 4, 1)
    assert [one["id"] for one in found.json["different"]] == [past[0]]
    assert project.run("replay", "--compare", "--allow", "result-differs").status == 0


def test_more_than_a_hundred_need_yes(project, past):
    project.write("many.py", "from tasks import add, app\napp.enqueue_many(add.call(n) for n in range(120))\n")
    subprocess.run([sys.executable, "many.py"], cwd=project.folder, env=project.environ, check=True, timeout=30)
    wait_until(lambda: len(project.run("history", "--task", "add", "--json").out.splitlines()) == 121, "all to end", 20)
    for args in (("--into", "trial"), ("--compare",)):
        refused = project.run("replay", "--task", "add", *args)
        assert refused.status == 1
        assert "--yes" in refused.err
    assert project.run("replay", "--task", "add", "--compare", "--yes").status == 0
    sent = project.run("replay", "--task", "add", "--into", "trial", "--yes")
    assert (sent.status, sent.out) == (0, "121 sent to trial\n")
