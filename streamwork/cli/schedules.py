"""`streamwork schedules`: look at what runs when, and change it while everything runs."""

from __future__ import annotations

import difflib
from typing import Any

import click

from streamwork.app import Streamwork
from streamwork.broker.plans import ScheduleView
from streamwork.cli.arguments import full_name, object_of, value_of
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, instant, listing, print_json
from streamwork.errors import ScheduleNotFound
from streamwork.model.schedule import Missed, Overlap
from streamwork.store.keys import checked_name

_NAME = click.argument("name", metavar="NAME")


@click.group(epilog=examples(
    "streamwork schedules list",
    "streamwork schedules add report send_report --cron '0 9 * * mon-fri' --tz Europe/Paris",
    "streamwork schedules pause report",
))  # fmt: skip
def schedules() -> None:
    """Look at the schedules, and change them while everything runs."""


@schedules.command("list", epilog=examples("streamwork schedules list --json"))
@place_options
def list_(*, as_json: bool, **place: Any) -> None:
    """List what is sent when, and what keeps a schedule from it."""
    with Session(**place) as session:
        app = session.app_if_any() or session.unbound()
        found = app.schedules.list()
    if as_json:
        print_json({"schedules": found})
        return
    if not found:
        click.echo("no schedules: declare one with @app.cron, or see `streamwork schedules add --help`")
        return
    rows: list[list[Any]] = []
    for one in found:
        state = one.problem or ("paused" if one.is_paused else "declared" if one.is_declared else "added")
        when = f"{one.when} {one.tz}" if one.tz not in ("", "UTC") else one.when
        upcoming = "–" if one.next_at_ms is None else instant(one.next_at_ms)
        rows.append([one.name, one.task, when, upcoming, one.missed, one.overlap, state])
    columns = ["name", "task", "when", "next", "missed", "overlap", "state"]
    console().print(listing(columns, rows, spare=("missed", "overlap")))


@schedules.command(epilog=examples(
    "streamwork schedules add report send_report '\"all\"' --cron '0 9 * * mon-fri' --tz Europe/Paris",
    "streamwork schedules add tick shop.tasks.tick --every 30 --overlap skip",
    "streamwork schedules add tick shop.tasks.tick --every 60 --replace",
))  # fmt: skip
@_NAME
@click.argument("task", metavar="TASK")
@click.argument("arguments", metavar="ARGS…", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Named arguments, as a JSON object.")
@click.option("--cron", metavar="EXPR", help="Five fields, or six with seconds in front.")
@click.option("--every", type=float, metavar="S", help="Or an interval in seconds, 1 or more.")
@click.option("--tz", default="UTC", metavar="ZONE", help="Time zone of the expression. [default: UTC]")
@click.option("--missed", type=click.Choice(("skip", "last", "all")), default="last", help="[default: last]")
@click.option(
    "--overlap", type=click.Choice(("queue", "skip", "cancel-running")), default="queue", help="[default: queue]"
)
@click.option("--replace", is_flag=True, help="Take the place of one of that name.")
@click.option("--elsewhere", is_flag=True, help="The task is declared in other code than this app's.")
@place_options
def add(
    *, name: str, task: str, arguments: tuple[str, ...], kwargs: str | None, cron: str | None, every: float | None,
    tz: str, missed: Missed, overlap: Overlap, replace: bool, elsewhere: bool, as_json: bool, **place: Any,
) -> None:  # fmt: skip
    """Add a schedule: TASK with ARGS (JSON values, as for `streamwork enqueue`), by --cron or --every."""
    with Session(**place) as session:
        app = session.app_if_any() or session.unbound()
        call = app.call(full_name(app, task), *map(value_of, arguments), **object_of(kwargs))
        is_new = app.schedules.add(
            name,
            call,
            cron=cron,
            every=every,
            tz=tz,
            missed=missed,
            overlap=overlap,
            replace=replace,
            elsewhere=elsewhere,
        )
    _say(as_json, name, "added" if is_new else "the same already", changed=is_new)


def _simple(mode: str, done: str, same: str, text: str) -> click.Command:
    @click.command(mode, help=text, epilog=examples(f"streamwork schedules {mode} report"))
    @_NAME
    @place_options
    def command(*, name: str, as_json: bool, **place: Any) -> None:
        with Session(**place) as session:
            app = session.app_if_any() or session.unbound()
            found = _found(app, name)
            full = found[0].name
            changed = bool(getattr(app.schedules, mode)(full))
        _say(as_json, full, done if changed else same, changed=changed)
        if mode == "remove" and not as_json and _stands_in_code(app, found):
            click.echo(
                "it stands in code, and comes back with the next worker or scheduler that starts: take it out there, "
                f"or let it rest with `streamwork schedules pause {full}`, which lasts"
            )

    return command


schedules.add_command(_simple("pause", "paused", "paused already", "Let a schedule rest."))
schedules.add_command(
    _simple("resume", "resumed", "not paused", "Let it go on from now; its pause is not made up for.")
)
schedules.add_command(_simple("remove", "removed", "gone already", "Remove it; what stands in code comes back."))


@schedules.command("run-now", epilog=examples("streamwork schedules run-now report"))
@_NAME
@place_options
def run_now(*, name: str, as_json: bool, **place: Any) -> None:
    """Send its message now, beside its plan; print the task id."""
    with Session(**place) as session:
        app = session.app_if_any() or session.unbound()
        name = _found(app, name)[0].name
        task_id = app.schedules.run_now(name)
    is_sent = task_id is not None
    if as_json:
        print_json({"schedule": name, "id": task_id, "sent": is_sent})
    else:
        click.echo(task_id or f"schedule {name}: its last run has not ended, and they may not overlap")
    click.get_current_context().exit(0 if is_sent else 1)


def _found(app: Streamwork, name: str) -> list[ScheduleView]:
    """Find a schedule, on each queue that has it, by its name or the part behind the last dot where only one has it."""
    checked_name("schedule", name)
    by_name: dict[str, list[ScheduleView]] = {}
    for one in app.schedules.list():
        by_name.setdefault(one.name, []).append(one)
    ends = [full for full in by_name if full.endswith(f".{name}")]
    if name in by_name or len(ends) == 1:
        return by_name[name if name in by_name else ends[0]]
    short = {full.rpartition(".")[2]: full for full in by_name} | {full: full for full in by_name}
    close = sorted(ends) or sorted({short[text] for text in difflib.get_close_matches(name, short, 3)})
    hint = f"did you mean {' or '.join(close)}?" if close else "see `streamwork schedules list`"
    raise ScheduleNotFound(f"app {app.name!r} has no schedule {name!r}: {hint}")


def _stands_in_code(app: Streamwork, found: list[ScheduleView]) -> bool:
    declared = app.declared_schedules()
    return any(one.is_declared and (not app.tasks or one.name in declared.get(one.queue, {})) for one in found)


def _say(as_json: bool, name: str, state: str, *, changed: bool) -> None:
    if as_json:
        print_json({"schedule": name, "state": state, "changed": changed})
    else:
        click.echo(f"schedule {name}: {state}")
