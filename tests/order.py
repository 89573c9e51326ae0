"""In which order a parallel run takes the tests."""

from __future__ import annotations

# Seconds each and more, most of them spent waiting for processes and leases.
LONG = (
    "tests/faults/test_scenarios.py",
    "tests/system/",
    "tests/runtime/test_processes.py",
    "tests/kit/test_plugin.py",
)
COMPUTING = ("tests/model/test_model.py", "tests/model/test_mutations.py", "tests/model/test_answers.py")


def spread(items):
    """Return the same items: the long ones with the computing ones evenly among them, then the others as they came."""
    long, computing, others = [], [], []
    for item in items:
        place = item.nodeid
        (long if place.startswith(LONG) else computing if place.startswith(COMPUTING) else others).append(item)
    # The last tenth of the long ones is kept free, or the end would be computing alone.
    step = max(1, len(long) * 9 // 10 // max(1, len(computing)))
    found = []
    for number, item in enumerate(long):
        found.append(item)
        if number % step == step - 1 and computing:
            found.append(computing.pop(0))
    return [*found, *computing, *others]
