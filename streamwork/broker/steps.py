"""Questions to Redis that take several rounds, written once for both drivers.

A question is a generator: it yields the commands of one round, is sent their answers, and returns what it found.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol, TypeVar

from streamwork.store.async_driver import AsyncDriver
from streamwork.store.commands import Command
from streamwork.store.looking import look

T = TypeVar("T")
Steps = Generator[list[Command[Any]], list[Any], T]


class Asked(Protocol):
    """What `ask` needs of a driver."""

    def run_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send commands and return their answers in order."""
        ...


def ask(driver: Asked, steps: Steps[T]) -> T:
    """Run a question from a thread; raises StoreError."""
    try:
        commands = next(steps)
        while True:
            commands = steps.send(driver.run_all(commands) if commands else [])
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def aask(driver: AsyncDriver, steps: Steps[T]) -> T:
    """Run a question from a loop; raises StoreError."""
    try:
        commands = next(steps)
        while True:
            commands = steps.send(await driver.run_all(commands) if commands else [])
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def together(questions: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Return one question that asks several side by side, in as many rounds as the longest of them."""
    found: dict[int, T] = {}
    waiting: dict[int, list[Any] | None] = dict.fromkeys(range(len(questions)))
    while waiting:
        rounds: dict[int, list[Command[Any]]] = {}
        for number, answers in waiting.items():
            try:
                rounds[number] = next(questions[number]) if answers is None else questions[number].send(answers)
            except StopIteration as end:
                found[number] = end.value
        replies = iter((yield [command for commands in rounds.values() for command in commands]))
        waiting = {number: [next(replies) for _ in commands] for number, commands in rounds.items()}
    return [found[number] for number in range(len(questions))]


def at_once(commands: Sequence[Command[Any]]) -> list[Command[Any]]:
    """Return the round that reads all of one queue at one instant; its last answer is the list of theirs.

    A command that Redis refuses (a stream without the group) gives an exception as its answer and spoils no other.
    """
    return [look(commands)]


def refused(answer: Any) -> bool:
    """Return whether an answer of `at_once` is a refusal."""
    return isinstance(answer, Exception)


def pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    """Return a flat reply of names and values (HGETALL, XINFO) as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def texts(flat: Sequence[Any]) -> dict[str, str]:
    """Return a HGETALL reply as texts."""
    return {name.decode(): value.decode(errors="replace") for name, value in pairs(flat).items()}
