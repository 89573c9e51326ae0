"""The arguments and options of a call as they are typed: TASK, ARGS, --kwargs, --queue, --tags, --priority."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from streamwork.app import Streamwork
from streamwork.cli.options import names
from streamwork.cli.show import json_of
from streamwork.pausing import whole_name

F = TypeVar("F", bound=Callable[..., Any])

_NEGATIVE = re.compile(r"-\.?\d")
# Stands before a negative number until click has told options and arguments apart.
_SHIELD = "\0"


class WithNegativeNumbers(click.Command):
    """A command that takes -5 for an argument where no option came before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line."""
        shielded = [
            _SHIELD + text if _NEGATIVE.match(text) and not before.startswith("--") else text
            for before, text in zip(["", *args], args, strict=False)
        ]
        return super().parse_args(ctx, shielded)


def said_options(command: F) -> F:
    """Add what a caller may say of a call: --queue, --tags, --priority."""
    for option in (
        click.option("--priority", type=click.IntRange(0, 9), help="0 (last) to 9 (first). [default: the task's]"),
        click.option(
            "--tags", metavar="A,B", callback=names("tag"), help="What a worker must offer, instead of the task's."
        ),
        click.option("--queue", metavar="NAME", help="Another queue than the task's."),
    ):
        command = option(command)
    return command


def full_name(app: Streamwork, name: str) -> str:
    """Return a task's whole name, given that or the part behind its last dot where only one has it."""
    return whole_name(app.tasks, name)


def value_of(text: str) -> Any:
    """Return an argument: JSON, or else plain text."""
    text = text.removeprefix(_SHIELD)
    try:
        return json_of(text)
    except ValueError:
        return text


def object_of(text: str | None) -> dict[str, Any]:
    """Return named arguments, of --kwargs."""
    if text is None:
        return {}
    try:
        value = json_of(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}", param_hint="--kwargs") from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object, such as '{{\"width\": 640}}'", param_hint="--kwargs")
    return value
