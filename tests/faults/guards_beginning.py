"""Guards of a worker that asks before bodies with a rate begin: rule 28."""

from __future__ import annotations

from tests.faults.guard import WORKER, Guard, guard

BEGINNER = WORKER + "beginning.py"

BEGINNING: dict[str, Guard] = {
    "begin_asked_for_all": guard(
        28,
        "a delivery that comes as the last question ends is asked for, too",
        (BEGINNER, "if self._waiting:\n            self._start()", "pass"),
    ),
    "begin_heeds_the_answer": guard(
        28,
        "what has no token does not begin",
        (BEGINNER, "if answer == 1:", "if True:"),
    ),
    "begin_asked_again": guard(
        28,
        "what could not be asked for is asked for again",
        (BEGINNER, "self._waiting.extendleft(reversed(runs))", "pass"),
    ),
    "begin_of_one_consumer": guard(
        28,
        "and for who has it: after a fence two names are in hand",
        (BEGINNER, "if run.lane is not first.lane or run.consumer != first.consumer:", "if False:"),
    ),
}
