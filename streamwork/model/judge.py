"""How a delivery ends: a pure decision from what the body did, the policies and the attempt."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import NamedTuple

from streamwork.errors import Reject, RetryLater, Skip
from streamwork.model.digest import digest_of
from streamwork.model.policy import Retry, in_force, policy_for


class Again(NamedTuple):
    """Run again `delay_ms` from now, as the next attempt; `digest` as `digest_of` has it, empty = by the class only."""

    delay_ms: int
    type_name: str
    message: str
    digest: str = ""


class Dead(NamedTuple):
    """Will not run again by itself; `reason` is one of those of a dead letter, `digest` as in `Again`."""

    reason: str
    type_name: str
    message: str
    traceback: str
    digest: str = ""


class Skipped(NamedTuple):
    """Ended without a result and without a fault."""

    reason: str


Verdict = Again | Dead | Skipped


def decide(
    error: BaseException,
    attempt: int,
    declared: Sequence[Retry],
    carried: tuple[int, float, float, float, bool] | None = None,
) -> Verdict:
    """Return what becomes of a delivery whose body raised, whatever goes wrong in finding out.

    Comparing with the policies' exception types and showing the error may run the user's code, and a message's own
    policy may be nonsense: then the delivery is dead, and the verdict tells of both.

    Args:
        error: What was raised.
        attempt: Number of the run that raised, 1 = first.
        declared: The task's policies.
        carried: The message's own policy, as `in_force` takes it.
    """
    try:
        verdict = judge(error, attempt, in_force(declared, carried))
        if isinstance(verdict, Skipped):
            return verdict
        return verdict._replace(digest=digest_of(verdict.type_name, error.__traceback__))
    except BaseException as wrong:  # noqa: BLE001 - a verdict there must be
        text = f"{text_of(error)} (and its retry policy: {text_of(wrong)})"
        return Dead("failed", type_name(error), text, traceback_text(error))


def judge(error: BaseException, attempt: int, policies: Sequence[Retry]) -> Verdict:
    """Return what becomes of a delivery whose body raised.

    `RetryLater` is bounded by the policy for `Exception` where there is one, since an endless loop that nobody asked
    for fills a queue; with retries turned off it runs again without bound, since then nothing else asks for it.

    Args:
        error: What was raised.
        attempt: Number of the run that raised, 1 = first.
        policies: The task's retry policies in order; () = never again.
    """
    if isinstance(error, Skip):
        return Skipped(shown(error.reason))
    if isinstance(error, Reject):
        return Dead("rejected", "Reject", shown(error.reason), "")
    policy = policy_for(policies, error)
    if isinstance(error, RetryLater):
        if policy is not None and attempt >= policy.max_attempts:
            return Dead("failed", "RetryLater", shown(error.reason) or "retry later", "")
        delay_ms = (policy or Retry()).delay_ms(attempt) if error.in_s is None else int(error.in_s * 1000)
        return Again(delay_ms, "RetryLater", shown(error.reason))
    if policy is None or attempt >= policy.max_attempts:
        return Dead("failed", type_name(error), text_of(error), traceback_text(error))
    return Again(policy.delay_ms(attempt), type_name(error), text_of(error))


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class; without the module for built-in ones."""
    kind = type(error)
    return shown(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def text_of(error: BaseException) -> str:
    """Return an exception's text, even where its __str__ raises; 4,000 characters at most."""
    return shown(error)


def shown(value: object) -> str:
    """Return what str() says of a value, even where that raises; 4,000 characters at most."""
    try:
        return _storable(str(value))[:4000]
    except BaseException as inner:  # noqa: BLE001 - the user's __str__
        return f"<its text cannot be had: {type(inner).__name__}>"


def traceback_text(error: BaseException) -> str:
    """Return the traceback as text; the last 8,000 characters, where the raise is."""
    try:
        return _storable("".join(traceback.format_exception(error)))[-8000:]
    except BaseException:  # noqa: BLE001 - a __repr__ or __str__ in the chain may raise
        return ""


def _storable(text: str) -> str:
    # Lone surrogates, such as those in the name of a file that is not UTF-8, have no stored form.
    return text.encode(errors="backslashreplace").decode()
