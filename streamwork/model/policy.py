"""Retry policies as data."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from streamwork.errors import ConfigError
from streamwork.model.span import Seconds, seconds

# What an attempt record can count to, and more than any task will see.
_MOST_ATTEMPTS = 2**31 - 1
_MOST_FACTOR = sys.float_info.max

ErrorTypes = type[BaseException] | Iterable[type[BaseException]]


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """When a task that raised runs again.

    The wait before attempt n + 1 is drawn from [0, min(max_delay, base × factor^(n−1))] with jitter, its upper end
    without. Full jitter because it empties a thundering herd fastest (Brooker, "Exponential Backoff And Jitter", 2015).

    Attributes:
        max_attempts: Runs in all, the first one included; ≥ 1. Crashes are not counted here.
        on: Exception type, or several, that this policy is for.
        base: Seconds, or a timedelta; ≥ 0. 0 = at once.
        factor: Growth per attempt; ≥ 1. 1 = constant.
        max_delay: Seconds, or a timedelta; ≥ 0.
        jitter: Draw the wait at random.

    Raises:
        ConfigError: One of them is of another type or out of range.
    """

    max_attempts: int
    on: tuple[type[BaseException], ...]
    base: float
    factor: float
    max_delay: float
    jitter: bool

    def __init__(
        self, max_attempts: int = 3, on: ErrorTypes = (Exception,), base: Seconds = 1.0, factor: float = 2.0,
        max_delay: Seconds = 600.0, jitter: bool = True,
    ) -> None:  # fmt: skip
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int):
            raise ConfigError(f"Retry(max_attempts={max_attempts!r}): give a whole number")
        if not 1 <= max_attempts <= _MOST_ATTEMPTS:
            raise ConfigError(
                f"Retry(max_attempts={max_attempts}): at least 1, the first run, and {_MOST_ATTEMPTS} at most; "
                "for no retries, retry=None"
            )
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 <= factor <= _MOST_FACTOR:
            raise ConfigError(f"Retry(factor={factor!r}): give a finite number, at least 1")
        if not isinstance(jitter, bool):
            raise ConfigError(f"Retry(jitter={jitter!r}): give True or False")
        put = object.__setattr__
        put(self, "max_attempts", int(max_attempts))
        put(self, "on", _error_types(on))
        put(self, "base", _span("base", base))
        put(self, "factor", float(factor))
        put(self, "max_delay", _span("max_delay", max_delay))
        put(self, "jitter", jitter)

    def delay_ms(self, attempt: int) -> int:
        """Return the wait after attempt number `attempt` (1 = first), milliseconds ≥ 0."""
        try:
            upper = min(self.max_delay, self.base * self.factor ** (attempt - 1))
        except OverflowError:
            upper = self.max_delay if self.base else 0.0
        return int(1000 * (random.uniform(0, upper) if self.jitter else upper))


def _span(name: str, value: Seconds) -> float:
    span = seconds(value, f"Retry: {name}")
    if span is None:
        raise ConfigError(f"Retry({name}=None): give seconds as a number, or a timedelta")
    return span


def _error_types(on: object) -> tuple[type[BaseException], ...]:
    found = tuple(on) if isinstance(on, Iterable) and not isinstance(on, (type, str, bytes)) else (on,)
    if not found or not all(isinstance(one, type) and issubclass(one, BaseException) for one in found):
        raise ConfigError(f"Retry(on={on!r}): give an exception class, or several; for no retries, retry=None")
    return cast(tuple[type[BaseException], ...], found)


DEFAULT_RETRY = Retry()

RetryRule = Retry | Sequence[Retry] | None


def normalized(rule: RetryRule) -> tuple[Retry, ...]:
    """Return a retry option as a tuple of policies; None becomes (), which never retries."""
    if rule is None:
        return ()
    if isinstance(rule, Retry):
        return (rule,)
    policies = tuple(rule) if isinstance(rule, Sequence) else (rule,)
    if not all(isinstance(policy, Retry) for policy in policies):
        raise ConfigError(f"retry={rule!r}: give a Retry, a list of them (the first that fits counts) or None")
    return policies


def policy_for(policies: Sequence[Retry], error: BaseException) -> Retry | None:
    """Return the first policy that is for this exception, or None."""
    return next((policy for policy in policies if isinstance(error, policy.on)), None)


def in_force(declared: Sequence[Retry], carried: tuple[int, float, float, float, bool] | None) -> Sequence[Retry]:
    """Return the policies that count for a message: its own, which is for every exception, or else the task's.

    Raises:
        ConfigError: The message's own is none that can be followed.
    """
    if carried is None:
        return declared
    attempts, base, factor, max_delay, jitter = carried
    return (Retry(attempts, (Exception,), base, factor, max_delay, jitter),)


def carried_policy(task: str, policy: object) -> tuple[int, float, float, float, bool]:
    """Return a policy as a message carries it, and `in_force` takes it; raises ConfigError for what it cannot carry."""
    if policy is None:
        policy = Retry(max_attempts=1)
    if not isinstance(policy, Retry):
        raise ConfigError(f"task {task}: options(retry=) takes one Retry or None; a list goes to @app.task")
    if policy.on != DEFAULT_RETRY.on:
        # A message never names a class.
        raise ConfigError(f"task {task}: options(retry=) is for every exception: Retry(on=...) goes to @app.task")
    return policy.max_attempts, policy.base, policy.factor, policy.max_delay, policy.jitter
