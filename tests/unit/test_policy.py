"""Retry policies: waits, bounds, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import pickle

import pytest

from streamwork.errors import ConfigError
from streamwork.model.policy import DEFAULT_RETRY, Retry, in_force, normalized, policy_for


@pytest.mark.parametrize(
    ("policy", "waits_ms"),
    [
        (Retry(base=1, factor=2, max_delay=600), [1_000, 2_000, 4_000, 8_000]),
        (Retry(base=1, factor=2, max_delay=3), [1_000, 2_000, 3_000, 3_000]),
        (Retry(base=0.25, factor=1), [250, 250, 250, 250]),
        (Retry(base=0), [0, 0, 0, 0]),
        (Retry(max_delay=0), [0, 0, 0, 0]),
    ],
)
def test_without_jitter_the_wait_is_the_upper_end(policy, waits_ms):
    exact = Retry(base=policy.base, factor=policy.factor, max_delay=policy.max_delay, jitter=False)
    assert [exact.delay_ms(attempt) for attempt in range(1, 5)] == waits_ms


def test_with_jitter_the_wait_is_spread_over_all_of_it():
    waits = [Retry(base=10, factor=1).delay_ms(1) for _ in range(500)]
    assert 0 <= min(waits) < 1_000
    assert 9_000 < max(waits) <= 10_000


def test_a_large_attempt_does_not_overflow():
    assert Retry(jitter=False).delay_ms(10_000) == 600_000
    assert Retry(jitter=False, factor=1e9).delay_ms(10_000) == 600_000
    assert Retry(jitter=False, base=0, factor=1e9).delay_ms(10_000) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"base": -1},
        {"factor": 0.5},
        {"max_delay": -1},
        {"base": float("nan")},
        {"factor": float("nan")},
        {"max_delay": float("nan")},
        {"max_delay": float("inf")},
        {"factor": float("inf")},
        {"factor": "2"},
        {"factor": True},
        {"max_attempts": 2.5},
        {"max_attempts": "5"},
        {"max_attempts": None},
        {"max_attempts": True},
        {"max_attempts": 10**30},
        {"base": "1"},
        {"base": None},
        {"base": True},
        {"base": 10**400},
        {"jitter": 0},
        {"jitter": 1},
        {"jitter": "no"},
        {"on": ()},
        {"on": []},
        {"on": "ValueError"},
        {"on": ["ValueError"]},
        {"on": ValueError("x")},
        {"on": int},
        {"on": (ValueError, 3)},
        {"on": None},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="Retry"):
        Retry(**wrong)


def test_a_single_type_is_taken_as_a_tuple_of_one():
    assert Retry(on=OSError).on == (OSError,)
    assert policy_for([Retry(on=OSError)], FileNotFoundError()) is not None
    assert policy_for([Retry(on=OSError)], ValueError()) is None


def test_the_first_policy_that_fits_is_taken():
    first, second = Retry(on=(KeyError, OSError)), Retry()
    assert policy_for((first, second), KeyError()) is first
    assert policy_for((first, second), ValueError()) is second
    assert policy_for((), ValueError()) is None


def test_rules_are_normalized():
    assert normalized(None) == ()
    assert normalized(DEFAULT_RETRY) == (DEFAULT_RETRY,)
    assert normalized([DEFAULT_RETRY, Retry(on=OSError)]) == (DEFAULT_RETRY, Retry(on=(OSError,)))
    with pytest.raises(ConfigError, match="give a Retry"):
        normalized([3])
    with pytest.raises(ConfigError, match="give a Retry"):
        normalized(3)


@pytest.mark.parametrize(
    "several", [[ValueError, OSError], {ValueError: 1, OSError: 2}, (kind for kind in (ValueError, OSError))]
)
def test_any_iterable_of_types_will_do(several):
    policy = Retry(on=several)
    assert policy.on == (ValueError, OSError)
    assert policy_for([policy], FileNotFoundError()) is policy


def test_values_are_stored_as_the_plain_types_that_a_message_carries():
    class Times(enum.IntEnum):
        FIVE = 5

    policy = Retry(Times.FIVE, base=dt.timedelta(seconds=1.5), factor=3, max_delay=dt.timedelta(hours=1))
    assert policy == Retry(5, (Exception,), 1.5, 3.0, 3600.0, True)
    assert [type(getattr(policy, field.name)) for field in dataclasses.fields(policy)] == [
        int, tuple, float, float, float, bool,
    ]  # fmt: skip


def test_a_policy_is_a_value():
    policy = Retry(5, on=OSError, base=2)
    assert policy == copy.deepcopy(policy) == pickle.loads(pickle.dumps(policy)) == dataclasses.replace(policy)
    assert dataclasses.replace(policy, base=3).base == 3
    assert hash(policy) == hash(Retry(5, on=[OSError], base=2.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.base = 1


def test_a_messages_own_policy_is_for_every_exception_and_beats_the_tasks():
    declared = (Retry(on=OSError),)
    assert in_force(declared, None) is declared
    assert in_force(declared, (5, 0.5, 2.0, 60.0, False)) == (Retry(5, (Exception,), 0.5, 2.0, 60.0, False),)
    with pytest.raises(ConfigError):
        in_force(declared, (0, 0.5, 2.0, 60.0, False))
