"""The checker notices what exceeds a limit: one history by hand per kind, and real runs without a guard."""

from __future__ import annotations

import shutil

import pytest

from tests.faults import limit_load, registry, stage
from tests.faults.registry import Scenario, play
from tests.faults.test_checker import Book
from tests.faults.unguarded import scripts_without

TWO = {"at_once": {"two": 2}}


class LimitBook(Book):
    """Writes runs that begin and are over, each record a second after the one before."""

    def sent(self, label, limits):
        self.write("attempted", label, expects="value", limits=limits)
        self.write("acknowledged", label, f"id-{label}", lane="1:", entry=f"{self.at_s}-0")

    def begun(self, label, pid=2, attempt=1):
        self.write("started", label, f"id-{label}", pid=pid, attempt=attempt)

    def over(self, label, pid=2, attempt=1):
        self.write("ended", label, f"id-{label}", pid=pid, attempt=attempt)


@pytest.fixture
def book():
    return LimitBook()


def several(book, limits, *labels):
    for label in labels:
        book.sent(label, limits)


def test_as_many_as_may_are_no_breach_and_one_more_is(book):
    several(book, TWO, "a", "b", "c")
    for label in "ab":
        book.begun(label)
    book.over("a")
    book.begun("c")
    assert book.check().over_limit == []
    book.begun("a", attempt=2)
    assert book.check().over_limit == ["two: 3 ran at once, 2 may: a, b, c"]


def test_who_was_killed_runs_no_longer(book):
    several(book, TWO, "a", "b", "c", "d")
    book.begun("a", pid=2)
    book.begun("b", pid=3)
    book.write("fault", what="killed", pids=[2])
    book.begun("a", pid=3)
    assert book.check().over_limit == []
    book.begun("c", pid=3)
    assert book.check().over_limit == ["two: 3 ran at once, 2 may: a, b, c"]


def test_a_zombie_may_run_beside_the_others(book):
    several(book, {"at_once": {"one": 1}}, "a", "b", "c")
    book.begun("a", pid=2)
    book.write("fault", what="frozen", pids=[2])
    book.begun("a", pid=3)
    book.begun("b", pid=2)  # it had this in hand, too
    book.begun("b", pid=4)
    book.over("b", pid=4)
    found = book.check().over_limit
    assert found == ["one: 2 ran at once, 1 may: a, b"]  # those that are no zombies


def test_where_a_zombie_ends_it_first_the_next_may_come(book):
    several(book, {"at_once": {"one": 1}}, "a", "b")
    book.begun("a", pid=2)
    book.write("fault", what="frozen", pids=[2])
    book.begun("a", pid=3)
    book.over("a", pid=2)
    book.begun("b", pid=4)
    book.over("a", pid=3)
    assert book.check().over_limit == []


def test_a_strict_order_goes_by_sending_and_through_retries(book):
    several(book, {"key": "k"}, "a", "b")
    book.begun("a")
    book.over("a")
    book.begun("b")
    book.over("b")
    assert book.check().out_of_order == []
    book.begun("a", attempt=2)
    book.over("a", attempt=2)
    assert book.check().out_of_order == ["b began before a had ended, which is ahead of it for the key 'k'"]


def test_a_later_one_that_begins_first_is_out_of_order(book):
    several(book, {"key": "k"}, "a", "b")
    for label in "ba":
        book.begun(label)
        book.over(label)
    assert len(book.check().out_of_order) == 1


@pytest.mark.parametrize(("rate", "is_fine"), [((2, 4, None), True), ((2, 5, None), False)])
def test_a_window_lets_so_many_start_in_each_span(book, rate, is_fine):
    several(book, {"rates": {"r": rate}}, "a", "b", "c")  # from the first second on
    book.at_s = 2
    for label in "abc":
        book.begun(label)  # at 3, 4 and 5
    assert (book.check().over_limit == []) == is_fine


@pytest.mark.parametrize(("rate", "is_fine"), [((1, 2, 1), True), ((1, 3, 1), False), ((1, 3, 2), True)])
def test_a_bucket_lets_its_burst_start_and_then_one_each_period(book, rate, is_fine):
    several(book, {"rates": {"r": rate}}, "a", "b", "c")
    book.at_s = 2
    for label in "abc":
        book.begun(label)
    assert (book.check().over_limit == []) == is_fine


@pytest.fixture
def played(monkeypatch):
    """Play a load of limits without harm; the folders of what fails are removed."""
    verdicts = []
    monkeypatch.setattr(stage, "QUIET_S", 0.5)

    def run(stage):
        stage.worker(slots=20)
        limit_load.send_burst(stage, 60)
        limit_load.send_crowd(stage)
        load = limit_load.LimitedLoad(stage.producer, stage.random)
        stage.on_settle(load.stop)
        stage.sent(40)
        stage.prove("nothing", fact=True)

    def play_it():
        registry.load_all()
        monkeypatch.setitem(registry.SCENARIOS, "stand-in", Scenario("stand-in", run))
        verdicts.append(play("stand-in", 1))
        return verdicts[-1]

    yield play_it
    for verdict in verdicts:
        if verdict.folder:
            shutil.rmtree(verdict.folder)


def test_a_load_without_harm_breaks_nothing(played):
    assert played().why == []


@pytest.mark.parametrize(
    ("guard", "why"),
    [
        ("flow_at_once", "over limit: three"),
        ("flow_one_of_a_key", "out of order: counted"),
        ("flow_starts_counted", "over limit: window"),
        ("submit_keeps_limits", "out of order"),
    ],
)
def test_where_a_guard_is_off_in_what_sends_the_checker_sees_it(played, monkeypatch, guard, why):
    monkeypatch.setattr(stage, "PATIENCE_S", 3.0)
    with scripts_without(guard):
        found = played().why
    assert any(why in line for line in found), found
