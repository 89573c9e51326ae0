"""The driver notices: a fault that did not bite, a loss and a double commit in a real queue, a run that breaks."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.faults import cli, registry, stage
from tests.faults.checker import Findings
from tests.faults.registry import Scenario, Verdict, play
from tests.faults.report import Report, percentile


@pytest.fixture
def stand_in(monkeypatch):
    """Play a function as a scenario; the folders of what fails are removed."""
    verdicts = []

    def stand_in(function, **options):
        registry.load_all()
        monkeypatch.setitem(registry.SCENARIOS, "stand-in", Scenario("stand-in", function, **options))
        verdicts.append(play("stand-in", 1))
        return verdicts[-1]

    yield stand_in
    for verdict in verdicts:
        if verdict.folder:
            shutil.rmtree(verdict.folder)


def test_a_scenario_that_proves_nothing_fails(stand_in):
    verdict = stand_in(lambda stage: stage.worker())
    assert verdict.status == "failed"
    assert verdict.why == ["unproven: nothing shows that the fault took effect"]


def test_a_fault_that_did_not_bite_fails(stand_in):
    verdict = stand_in(lambda stage: stage.prove("a kill", fact=False))
    assert "NotProven: a kill" in verdict.why


def test_a_loss_is_found(stand_in, monkeypatch):
    monkeypatch.setattr(stage, "QUIET_S", 0.5)

    def lose(stage):
        stage.worker()
        stage.producer.send("quick", label="one")
        stage.until(lambda: stage.history.of("seen", "one"), "the first has ended")
        stage.producer.send("held", label="two")
        stage.prove("everything deleted", stage.redis("FLUSHALL") == b"OK")

    verdict = stand_in(lose)
    assert verdict.status == "failed"
    (line,) = verdict.findings.lost
    assert line.startswith("two (")


def test_a_double_commit_is_found(stand_in):
    def double(stage):
        stage.worker()
        stage.producer.send("quick", label="one")
        (record,) = stage.until(lambda: stage.redis("XRANGE", stage.keys.journal, "-", "+"), "its end")
        stage.prove("journal forged", stage.redis("XADD", stage.keys.journal, "*", *record[1]))

    verdict = stand_in(double)
    (line,) = verdict.findings.duplicated_commits
    assert line.endswith("ended 2 times: succeeded, succeeded")


def test_what_must_not_run_twice_and_does_fails(stand_in):
    def rerun(stage):
        stage.worker()
        stage.producer.send("deadly", "exit", 1, label="one")
        stage.prove("two runs", len(stage.started("one", times=2)) == 2)

    assert stand_in(rerun).status == "passed"
    (line,) = stand_in(rerun, most_duplicated_runs=0).why
    assert line.startswith("duplicated run: one ran again")


def test_a_recovery_later_than_was_promised_fails(stand_in):
    def kill(stage):
        victim = stage.worker()
        stage.producer.send("held", label="one")
        stage.started("one")
        stage.worker()
        stage.kill(victim)
        stage.started("one", times=2)

    (line,) = stand_in(kill, promise_s=0.001).why
    assert line.startswith("late: recovered after ")


def test_a_scenario_that_cannot_run_here_says_why(stand_in):
    verdict = stand_in(lambda stage: None, needs=lambda: "no such device")
    assert (verdict.status, verdict.why) == ("skipped", ["no such device"])


def test_an_error_of_the_scenario_fails_and_its_servers_are_gone(stand_in):
    seen = []

    def broken(stage):
        seen.append(stage)
        stage.worker()
        raise KeyError("oh")

    verdict = stand_in(broken)
    assert "KeyError: 'oh'" in verdict.why[0]
    (one,) = seen
    assert one.server.pid == 0
    assert one.workers[0].process.returncode is not None


def verdict_of(name, seed, status="passed", **findings):
    return Verdict(name, seed, status, [], [], Findings(**findings))


def test_the_report_sums_up_and_judges_recoveries_over_all_seeds(tmp_path):
    known = {
        "fast": Scenario("fast", lambda stage: None, recovery_s=3.0),
        "late": Scenario("late", lambda stage: None, recovery_s=1.0),
        "bad": Scenario("bad", lambda stage: None),
    }
    report = Report(known)
    for seed in range(3):
        report.add(verdict_of("fast", seed, acknowledged=5, ok=5, recovered_s=[1.0 + seed]))
        report.add(verdict_of("late", seed, recovered_s=[0.5 + seed]))
    report.add(verdict_of("bad", 7, "failed", acknowledged=2, lost=["one"]))
    assert report.slow == ["late"]
    assert "again: ops/faults --only bad --seed 7 --keep" in report.summary()
    rows = {row[0]: row for row in report.rows()}
    assert rows["bad"][1:3] == ["1", "1"]
    assert rows["bad"][6] == "1"
    assert rows["fast"][-4:] == ["2.00", "3.00", "3.00", "3"]
    report.write(tmp_path / "out.json", tmp_path / "out.md")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["commit"] == report.commit
    assert [run["findings"]["lost"] for run in written["runs"] if run["scenario"] == "bad"] == [["one"]]
    assert "| fast | 3 | 0 |" in (tmp_path / "out.md").read_text()


def test_a_percentile_is_one_of_the_times():
    times = [float(n) for n in range(1, 101)]
    assert (percentile(times, 50), percentile(times, 99), percentile(times, 100)) == (50.0, 99.0, 100.0)
    assert percentile([2.0], 99) == 2.0


def test_the_command_plays_and_tells(tmp_path, capsys):
    out = tmp_path / "out.json"
    assert cli.main(["--only", "fork-after-*", "--seed", "3", "--json", str(out)]) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert (run["scenario"], run["seed"], run["status"]) == ("fork-after-use", 3, "passed")
    assert "fork-after-use" in capsys.readouterr().out


def test_the_command_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--only", "nothing-like-it"])
    assert ended.value.code == 2
    assert "no scenario is named like nothing-like-it" in capsys.readouterr().err


def test_every_scenario_is_listed_with_what_it_does(capsys):
    assert cli.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(registry.SCENARIOS)
    assert all(one.what and one.rules for one in registry.SCENARIOS.values())
