"""The checker notices: one history by hand per kind of violation, and none in a history without."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.checker import QueueEnd, check
from tests.faults.history import History, Record
from tests.helpers import ROOT


class Book:
    """Writes a history by hand; each record comes a second after the one before."""

    def __init__(self):
        self.records, self.at_s = [], 0

    def write(self, kind, label="", task_id="", pid=1, **facts):
        self.at_s += 1
        self.records.append(Record(self.at_s * 10**9, kind, pid, label, task_id, facts))

    def sent(self, label, *, lane="1:", expects="value"):
        self.write("attempted", label, expects=expects)
        self.write("acknowledged", label, f"id-{label}", lane=lane, entry=f"{self.at_s}-0")

    def ran(self, label, *, pid=2, attempt=1, value=None):
        self.write("started", label, f"id-{label}", pid=pid, attempt=attempt)
        self.write("effect", label, f"id-{label}", pid=pid, attempt=attempt, value=value or f"{label}/{pid}")

    def seen(self, label, value="", state="succeeded"):
        self.write("seen", label, f"id-{label}", state=state, value=value or f"{label}/2")

    def check(self, *journal, is_ordered=False, **end):
        ends = tuple((f"id-{label}", state) for label, state in journal)
        return check(self.records, QueueEnd(journal=ends, **end), is_ordered=is_ordered)


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def good(book):
    """One message that was sent, ran, and was seen."""
    book.sent("a")
    book.ran("a")
    book.seen("a")
    return book


DONE = ("a", "succeeded")


def test_a_history_in_which_all_is_well_has_no_finding(good):
    found = good.check(DONE, results={"id-a": ("succeeded", "a/2")})
    assert found.violations == []
    assert (found.attempted, found.acknowledged, found.ok, found.duplicated_runs) == (1, 1, 1, [])


def test_what_was_acknowledged_and_never_ended_is_lost(good):
    good.sent("b")
    good.ran("b")
    found = good.check(DONE)
    assert found.violations == ["lost: b (id-b) was acknowledged and never ended"]
    assert found.ok == 1


def test_a_seen_end_counts_where_the_journal_is_gone(good):
    assert good.check().violations == []


def test_what_still_waits_at_the_end_is_not_lost_and_not_right(good):
    good.sent("b")
    found = good.check(DONE, backlog=1)
    assert found.lost == []
    assert found.violations == ["unexpected: 1 messages are still in the backlog at the end"]


def test_what_was_destroyed_on_purpose_is_not_judged(book):
    book.sent("a")
    book.write("erased")
    book.sent("b")
    found = book.check()
    assert found.erased == 1
    assert found.lost == ["b (id-b) was acknowledged and never ended"]


def test_a_second_run_of_an_attempt_is_a_figure_and_no_violation(good):
    good.ran("a", pid=3)
    found = good.check(DONE)
    assert found.violations == []
    assert found.duplicated_runs == ["a ran again in 3, attempt 1"]


def test_a_retry_is_no_duplicated_run(book):
    book.sent("a")
    book.ran("a", attempt=1)
    book.ran("a", attempt=2)
    book.seen("a")
    assert book.check(("a", "retried"), DONE).duplicated_runs == []


@pytest.mark.parametrize("second", ["succeeded", "dead", "cancelled"])
def test_two_ends_of_one_message_are_a_duplicated_commit(good, second):
    assert good.check(DONE, ("a", second)).duplicated_commits == [f"id-a ended 2 times: succeeded, {second}"]


def test_a_result_that_changed_after_it_was_seen_is_a_duplicated_commit(good):
    good.ran("a", pid=3)
    found = good.check(DONE, results={"id-a": ("succeeded", "a/3")})
    assert found.duplicated_commits == ["id-a was seen as ('succeeded', 'a/2') and is kept as ('succeeded', 'a/3')"]


def test_two_waiters_that_saw_different_results_are_a_duplicated_commit(good):
    good.ran("a", pid=3)
    good.seen("a", "a/3")
    (line,) = good.check(DONE).duplicated_commits
    assert line.startswith("a was seen as ('succeeded', 'a/2') and later as")


def test_one_send_that_became_two_messages_is_a_duplicated_commit(good):
    good.write("started", "a", "id-other", pid=3, attempt=1)
    good.write("effect", "a", "id-other", pid=3, attempt=1, value="a/3")
    found = good.check(DONE, ("other", "succeeded"))
    assert found.violations == ["duplicated commits: a was sent once and is there as 2 messages: id-a, id-other"]


def test_a_recovery_is_from_the_fault_to_the_start_elsewhere(book):
    book.sent("a")
    book.sent("b")
    book.ran("a", pid=2)
    book.ran("b", pid=9)
    book.write("fault", what="killed", pids=[2], ids=[])
    book.at_s += 3
    book.ran("a", pid=3)
    book.ran("b", pid=3)  # another attempt of it: its process was not the one that died
    assert book.check(DONE, ("b", "succeeded")).recovered_s == [4.0]


def test_a_retry_elsewhere_is_no_recovery(book):
    book.sent("a")
    book.ran("a", pid=2, attempt=1)
    book.write("fault", what="killed", pids=[2], ids=[])
    book.ran("a", pid=3, attempt=2)
    assert book.check(DONE).recovered_s == []


def test_what_had_not_begun_recovers_where_the_fault_names_it(book):
    book.sent("a")
    book.write("fault", what="killed", pids=[2], ids=["id-a"])
    book.ran("a", pid=3)
    assert book.check(DONE).recovered_s == [1.0]


def test_what_began_before_its_elder_on_the_lane_is_out_of_order(book):
    for label in "abc":
        book.sent(label)
    book.sent("d", lane="0:")
    for label in "dacb":
        book.ran(label)
    journal = [(label, "succeeded") for label in "abcd"]
    assert book.check(*journal, is_ordered=True).out_of_order == ["c began before b, which is ahead of it on '1:'"]
    assert book.check(*journal).violations == []


def test_a_second_delivery_is_not_out_of_order(book):
    book.sent("a")
    book.sent("b")
    for label, pid in (("a", 2), ("b", 2), ("a", 3)):
        book.ran(label, pid=pid)
    assert book.check(DONE, ("b", "succeeded"), is_ordered=True).violations == []


def test_what_nobody_sent_is_unexpected(good):
    good.ran("z")
    found = good.check(DONE, ("y", "succeeded"), dead={"id-x": "failed"})
    assert set(found.unexpected) == {
        "z (id-z) ran and was never attempted",
        "id-y ended and was never attempted",
        "id-x ended and was never attempted",
    }


def test_a_result_that_no_run_returned_is_unexpected(good):
    good.sent("b")
    good.ran("b")
    good.seen("b", "a/2")
    assert good.check(DONE, ("b", "succeeded")).unexpected == [
        "b has the result 'a/2', which none of its runs returned"
    ]


def test_a_refused_send_that_ran_all_the_same_is_unexpected(book):
    book.write("attempted", "a", expects="value")
    book.write("refused", "a", error="StoreUnavailable: away")
    book.ran("a")
    found = book.check(DONE)
    assert (found.refused, found.acknowledged) == (1, 0)
    assert found.unexpected == ["a ran, and its producer was told that it was not sent"]


@pytest.mark.parametrize("has_arrived", [True, False])
def test_a_doubtful_send_may_have_arrived_or_not(book, has_arrived):
    book.write("attempted", "a", expects="value")
    book.write("doubtful", "a", error="EnqueueUnknown", ids=["id-a"])
    if has_arrived:
        book.ran("a")
    found = book.check(*[DONE][:has_arrived])
    assert (found.doubtful, found.violations) == (1, [])


def test_an_error_of_no_type_of_ours_is_unexpected(book):
    book.write("attempted", "a", expects="value")
    book.write("broke", "a", error="OSError()")
    assert book.check().unexpected == ["a: the producer got OSError(), no error of the tree"]


def test_a_waiter_that_was_never_told_is_unexpected(book):
    book.sent("a")
    book.ran("a")
    book.write("unseen", "a", "id-a", error="too late")
    assert book.check(DONE).unexpected == ["a ended, and its waiter was never told: too late"]


@pytest.mark.parametrize(
    ("expects", "reason", "lines"),
    [
        ("value", "quarantined", ["a (id-a) ended as quarantined, expected value"]),
        ("quarantined", "failed", ["a (id-a) ended as failed, expected quarantined"]),
        ("quarantined", "quarantined", []),
        ("anything", "failed", []),
    ],
)
def test_a_dead_letter_is_right_where_it_was_expected(book, expects, reason, lines):
    book.sent("a", expects=expects)
    assert book.check(("a", "dead"), dead={"id-a": reason}).unexpected == lines


def test_a_success_where_a_dead_letter_was_expected_is_unexpected(book):
    book.sent("a", expects="quarantined")
    book.ran("a")
    assert book.check(DONE).unexpected == ["a (id-a) ended as succeeded, expected quarantined"]


def test_what_was_planted_must_be_dead_of_what_was_expected(good):
    for name in ("one", "two"):
        good.write("planted", "", name, expects="undecodable")
    found = good.check(DONE, dead={"one": "undecodable"})
    assert found.unexpected == ["two was planted: dead as None, expected undecodable"]


def test_what_is_left_behind_is_unexpected(good):
    assert good.check(DONE, leaks=("key: no TTL",)).unexpected == ["left behind: key: no TTL"]


def test_each_process_writes_a_file_of_its_own_and_a_torn_last_line_is_nothing(tmp_path):
    history = History(tmp_path)
    history.write("attempted", "a", expects="value")
    code = "import sys, tests.faults.history as h; h.History(sys.argv[1]).write('started', 'a', 'id-a', attempt=1)"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)
    first, second = history.read()
    assert (first.kind, first.facts) == ("attempted", {"expects": "value"})
    assert (second.kind, second.id, second.facts) == ("started", "id-a", {"attempt": 1})
    assert first.pid != second.pid
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    with (tmp_path / f"{first.pid}.jsonl").open("a") as file:
        file.write('{"at_ns": 1, "ki')
    assert history.read() == [first, second]
