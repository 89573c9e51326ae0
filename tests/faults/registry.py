"""The scenarios by name, and one run of one of them: (scenario, seed) → verdict."""

from __future__ import annotations

import fnmatch
import importlib
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.checker import Findings
from tests.faults.stage import NotProven, Stage

SCENARIOS = {}


@dataclass(frozen=True)
class Scenario:
    """A fault with the workload around it.

    Attributes:
        name: What `--only` selects by; kebab-case, and those of one kind begin alike.
        run: Takes the `Stage`. What it asserts are facts of the fault; losses and doubles are the checker's.
        rules: Rules of the protocol that it attacks.
        server_kind: Key of `stage.SERVER_KINDS`.
        ttl_s: The workers' `liveness.ttl_s`.
        is_ordered: Whether first deliveries must begin in the order of their lane: needs one consumer.
        most_duplicated_runs: Runs beyond one per attempt that are allowed; None = any number.
        recovery_s: Reach for the 99th percentile of recoveries over all seeds; None = there is none.
        promise_s: No recovery may take longer; None = nothing is promised.
        needs: Answers why it cannot run on this machine, or "".
    """

    name: str
    run: Callable
    rules: tuple = ()
    server_kind: str = "unix"
    ttl_s: float = 1.0
    is_ordered: bool = False
    most_duplicated_runs: int | None = None
    recovery_s: float | None = None
    promise_s: float | None = None
    needs: Callable = field(default=lambda: "")

    @property
    def what(self):
        """Its docstring's first line."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


@dataclass
class Verdict:
    """What came of one run.

    Attributes:
        status: ``passed``, ``failed`` or ``skipped``.
        why: Violations, a fault that did not bite, what the scenario itself found; or why it was skipped.
        proofs: How the fault was seen to take effect.
        folder: Where history and logs are, where they were kept.
    """

    scenario: str
    seed: int
    status: str
    why: list
    proofs: list
    findings: Findings
    seconds: float = 0.0
    folder: str = ""

    def as_dict(self):
        """Return what the JSON report says of it."""
        return asdict(self)


def scenario(name, **options):
    """Register a function as a scenario."""

    def register(function):
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, function, **options)
        return function

    return register


def load_all():
    """Import every file of tests/faults/scenarios and return the scenarios by name."""
    for path in sorted((Path(__file__).parent / "scenarios").glob("*.py")):
        importlib.import_module(f"tests.faults.scenarios.{path.stem}")
    return SCENARIOS


def chosen(patterns):
    """Return the scenarios whose names fit one of the globs, all without any."""
    known = load_all()
    return [known[name] for name in sorted(known) if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)]


def play(name, seed, *, is_kept=False):
    """Run one scenario with one seed; never raises for what the scenario does.

    Args:
        name: Of the scenario.
        seed: Of everything that it leaves to chance.
        is_kept: Whether history and logs stay where it passed too.
    """
    one = load_all()[name]
    if reason := one.needs():
        return Verdict(name, seed, "skipped", [reason], [], Findings())
    began_s, why = time.monotonic(), []
    stage = Stage(one, seed)
    try:
        try:
            one.run(stage)
        except (AssertionError, NotProven) as error:
            why.append(f"{type(error).__name__}: {error}")
        except Exception:
            why.append(traceback.format_exc())
        stage.settle(has_failed=bool(why))
        findings = stage.judge()
        why += _judged(one, stage, findings)
    finally:
        stage.close(is_kept=is_kept or bool(why))
    status = "failed" if why else "passed"
    folder = str(stage.folder) if why or is_kept else ""
    return Verdict(name, seed, status, why, stage.proofs, findings, time.monotonic() - began_s, folder)


def _judged(one, stage, findings):
    why = list(findings.violations)
    if not stage.proofs:
        why.append("unproven: nothing shows that the fault took effect")
    if one.most_duplicated_runs is not None and len(findings.duplicated_runs) > one.most_duplicated_runs:
        why += [f"duplicated run: {line}" for line in findings.duplicated_runs]
    if one.promise_s is not None:
        why += [f"late: recovered after {time_s:.1f} s" for time_s in findings.recovered_s if time_s > one.promise_s]
    return why
