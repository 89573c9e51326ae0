"""The command `streamwork`: finds the subcommand, and turns every error into one line and an exit status."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, NoReturn

import click
import msgspec

from streamwork.errors import (
    ConfigError,
    EnqueueUnknown,
    StoreError,
    StreamworkError,
    TaskError,
    TooManyLanes,
    WireError,
)

OK, WRONG, USAGE, REDIS, INTERRUPTED = 0, 1, 2, 3, 130
_PIPE_CLOSED = 141

# Name, module, attribute, and the line in `streamwork --help`: a command's module is imported when it is used.
_COMMANDS = {
    "worker": ("streamwork.cli.worker", "worker", "Run tasks until told to stop."),
    "enqueue": ("streamwork.cli.enqueue", "enqueue", "Send a task message; print its id or wait for its result."),
    "status": ("streamwork.cli.status", "status", "Redis, queues and workers on one screen."),
    "queues": ("streamwork.cli.status", "queues", "How many task messages wait, run, are scheduled or dead."),
    "workers": ("streamwork.cli.status", "workers", "Which worker processes there are and what they hold."),
    "tasks": ("streamwork.cli.tasks", "tasks", "Look at one task message by its id, or cancel it."),
    "history": ("streamwork.cli.history", "history", "What came of each attempt: by time, task, state, arguments."),
    "replay": ("streamwork.cli.replay", "replay", "The past again: sent anew, one run here, or all compared."),
    "events": ("streamwork.cli.events", "events", "What happens to tasks, workers, schedules, queues."),
    "tap": ("streamwork.cli.tap", "tap", "Read along what comes into a queue; give it to a program."),
    "dead": ("streamwork.cli.dead", "dead", "What will not run again by itself: look, retry, edit, purge."),
    "pause": ("streamwork.cli.pausing", "pause", "Let nothing of a queue or task begin."),
    "resume": ("streamwork.cli.pausing", "resume", "Let it go on."),
    "schedules": ("streamwork.cli.schedules", "schedules", "What is sent when; change it while everything runs."),
    "scheduler": ("streamwork.cli.scheduler", "scheduler", "Fire schedules and promote what is due; run no task."),
    "routes": ("streamwork.cli.routes", "routes", "Which rules say where calls go; try one out."),
    "doctor": ("streamwork.cli.doctor", "doctor", "Check Redis and the project; say what to do."),
    "config": ("streamwork.cli.settings", "config", "Every setting, its value and where it comes from."),
    "demo": (
        "streamwork.cli.demo",
        "demo",
        "Real work on two workers, one killed half-way, checked to the last count.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that are installed."""
        return [name for name, (module, _, _) in _COMMANDS.items() if find_spec(module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the line, or name the nearest."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f": did you mean {close[0]!r}?" if close else f": there are {', '.join(_COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][2]) for name in self.list_commands(ctx)])


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        try:
            click.echo(f"streamwork {metadata.version('streamwork')}")
        except metadata.PackageNotFoundError:
            click.echo("streamwork, from a folder that is not installed")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit status, for all commands:
  0    done
  1    something is wrong: doctor found a failure (warnings are 0), the task failed or is not in time,
       the id is unknown
  2    wrong usage, settings or app
  3    Redis is not reached or refuses (worker: finished work had to be spooled)
  130  interrupted with Ctrl-C

\b
The app is found without a flag: --app, else STREAMWORK_APP, else [tool.streamwork] app
in pyproject.toml, else the one Streamwork in tasks.py, app.py or main.py here. Redis is
--url, else the app's own, else STREAMWORK_URL, else [tool.streamwork] url, else a private
server in .streamwork/ that starts and stops by itself.

\b
A first try, with tasks.py in this folder:
  streamwork worker                     in one terminal
  streamwork enqueue add 2 3 --wait     in another
""",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Distributed tasks on Redis Streams."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. Errors become one line on standard error, whatever they are."""
    as_json = "--json" in arguments
    try:
        status: Any = cli.main(list(arguments), prog_name="streamwork", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "streamwork"
        _say(f"{where}: {error.format_message().rstrip('.')} (see {where} --help)", "usage", as_json=as_json)
        return USAGE
    except click.ClickException as error:
        _say(f"streamwork: {error.format_message()}", "error", as_json=as_json)
        return error.exit_code
    except StreamworkError as error:
        _say(f"streamwork: {error}", error.code, as_json=as_json)
        return status_of(error)
    except OSError as error:  # a full disk, a file without permission: the system's own words say it best
        _say(f"streamwork: {error}", "os_error", as_json=as_json)
        return WRONG
    return status if isinstance(status, int) else OK


def status_of(error: StreamworkError) -> int:
    """Return the exit status that stands for an error."""
    if isinstance(error, (StoreError, EnqueueUnknown)):
        return REDIS
    if isinstance(error, (ConfigError, TaskError, WireError, TooManyLanes)):
        return USAGE
    return WRONG


def _say(text: str, code: str, *, as_json: bool) -> None:
    """Say it once: in one line on standard error, or as the JSON that was asked for on standard output."""
    line = " ".join(text.split())
    if as_json:
        message = line.partition(": ")[2]
        click.echo(msgspec.json.encode({"error": {"code": code, "message": message}}).decode())
    else:
        click.echo(line, err=True)
