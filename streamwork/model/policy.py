"""Retry policies as data."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from streamwork.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Retry:
    """When a task that raised runs again.

    The wait before attempt n + 1 is drawn from [0, min(max_delay, base × factor^(n−1))] with jitter, its upper end
    without. Full jitter because it empties a thundering herd fastest (Brooker, "Exponential Backoff And Jitter", 2015).

    Attributes:
        max_attempts: Runs in all, the first one included; ≥ 1. Crashes are not counted here.
        on: Exception type, or several, that this policy is for.
        base: Seconds; ≥ 0. 0 = at once.
        factor: Growth per attempt; ≥ 1. 1 = constant.
        max_delay: Seconds; ≥ 0.
        jitter: Draw the wait at random.
    """

    max_attempts: int = 3
    on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,)
    base: float = 1.0
    factor: float = 2.0
    max_delay: float = 600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.on, type):
            object.__setattr__(self, "on", (self.on,))
        if self.max_attempts < 1:
            raise ConfigError(
                f"Retry(max_attempts={self.max_attempts}): at least 1, the first run; for no retries, retry=None"
            )
        # Asked for in this form, nan is refused too; an endless wait would be no wait that Redis can hold.
        if not (0 <= self.base < math.inf and 0 <= self.max_delay < math.inf and 1 <= self.factor < math.inf):
            raise ConfigError("Retry: base and max_delay cannot be negative, factor is at least 1, and all are finite")

    def delay_ms(self, attempt: int) -> int:
        """Return the wait after attempt number `attempt` (1 = first), milliseconds ≥ 0."""
        try:
            upper = min(self.max_delay, self.base * float(self.factor) ** (attempt - 1))
        except OverflowError:
            upper = self.max_delay if self.base else 0.0
        return int(1000 * (random.uniform(0, upper) if self.jitter else upper))


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
