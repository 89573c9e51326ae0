"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from streamwork.config import LOG_FORMATS, LOG_LEVELS
from streamwork.errors import ConfigError
from streamwork.store.keys import checked_name

F = TypeVar("F", bound=Callable[..., Any])


def names(kind: str) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...] | None]:
    """Return an option's callback that reads ``a,b`` as names; None stays None, empty = no tags at all."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        try:
            found = [checked_name(kind, name.strip()) for name in value.split(",") if name.strip()]
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from error
        if kind == "queue" and not found:  # a script's unset variable must not make a worker of all queues
            raise click.BadParameter("names no queue; leave it out for all queues of the app", ctx, param)
        return tuple(dict.fromkeys(found))

    return read


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else.")
app_option = click.option(
    "--app", metavar="MODULE:NAME", help="The app, as pkg.mod:app. [default: found, see streamwork --help]"
)
url_option = click.option(
    "--url", metavar="URL", help="Redis, as redis://[user:password@]host:port/0. [default: the app's]"
)
only_option = click.option(
    "-Q", "--queues", "only", metavar="A,B", callback=names("queue"), help="Look into these only. [default: all]"
)
_namespace_option = click.option(
    "--namespace", metavar="NAME", help="Name of the app; then nothing is imported to learn it."
)


def place_options(command: F) -> F:
    """Add the options that say where to look: --app, --namespace, --url, --json."""
    for option in (json_option, url_option, _namespace_option, app_option):
        command = option(command)
    return command


def log_options(command: F) -> F:
    """Add what a daemon's log lines look like: --log-level, --log-format, --json."""
    for option in (
        click.option(
            "--json", "as_json", is_flag=True, help="Log lines as JSON, on standard output instead of standard error."
        ),
        click.option("--log-format", type=click.Choice(LOG_FORMATS), help="[default: text]"),
        click.option("--log-level", type=click.Choice(LOG_LEVELS), help="[default: info]"),
    ):
        command = option(command)
    return command


def examples(*lines: str) -> str:
    """Return an epilog that shows examples, as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
