"""`streamwork routes list` and `routes test`."""

from __future__ import annotations

import pytest

from tests.faces.conftest import one_line

ROUTES = """
app.route("tasks.add", name="sums", queue="math", tags={"cpu"}, boost=3)


@app.route("tasks.*", priority=9)
def urgent(name):
    return 1 / len(name) < 0.2


app.route("tasks.greet", name="other", where={"name": "^B"}, queue="b")
"""


@pytest.fixture
def routed(project):
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + ROUTES)
    return project


def test_the_rules_are_listed_in_their_order(routed):
    done = routed.run("routes", "list")
    assert (done.status, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["sums", "urgent", "other"]
    rules = routed.run("routes", "list", "--json").json
    assert [(rule["name"], rule["when"]) for rule in rules] == [("sums", None), ("urgent", "urgent"), ("other", None)]
    assert rules[0]["tags"] == ["cpu"]


def test_it_is_told_which_rule_fits_and_why_others_do_not(routed):
    done = routed.run("routes", "test", "greet", "Bo")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "tasks.greet → queue b, priority 5 (by route other)"
    assert lines[1:] == [
        "✗ sums  not matched: the name is not like tasks.add",
        "✗ urgent  not matched: its predicate says no",
        "✓ other  matched",
    ]
    found = routed.run("routes", "test", "add", "-5", "--priority", "2", "--json").json
    assert (found["queue"], found["tags"], found["priority"], found["lane"]) == ("math", ["cpu"], 2, "0:cpu")
    assert (found["route"], found["kept"]) == ("sums", ["priority"])
    assert found["tried"][1] == {"route": "urgent", "outcome": "not asked", "why": "sums came first"}


def test_what_is_sent_goes_where_the_test_said(routed):
    assert routed.run("routes", "test", "greet", "Barnaby", "--json").json["lane"] == "3:"
    sent = routed.run("enqueue", "greet", "Barnaby", "--json").json
    assert (sent["queue"], sent["lane"]) == ("default", "3:")
    assert routed.run("enqueue", "add", "1", "--json").json["queue"] == "math"
    assert routed.run("enqueue", "add", "1", "--queue", "default", "--json").json["queue"] == "default"


def test_what_is_wrong_is_one_line(routed, project):
    for command in ("enqueue", "routes test"):
        done = routed.run(*command.split(), "greet", "")
        assert done.status == 2
        assert "route 'urgent' raises ZeroDivisionError" in one_line(done.err)
    assert routed.run("routes", "test", "nothing").status == 2
    (project.folder / "tasks.py").unlink()
    assert "routes belong to an app" in one_line(project.run("routes", "list").err)


def test_without_a_rule_it_says_so(project):
    assert "no route" in project.run("routes", "list").out
    assert "no route fits" in project.run("routes", "test", "add", "1").out
