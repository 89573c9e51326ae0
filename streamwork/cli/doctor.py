"""`streamwork doctor`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click
from rich.text import Text

from streamwork.app import Streamwork
from streamwork.broker.checkup import Check, checkup
from streamwork.broker.coverage import Unserved, unserved
from streamwork.broker.degraded import degraded
from streamwork.broker.plans import schedule_checks
from streamwork.broker.stats import Overview, overview, queue_names
from streamwork.cli.options import examples, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, print_json
from streamwork.errors import ConfigError

_MARKS = {"ok": ("✓", "green"), "note": ("·", "dim"), "warning": ("!", "yellow"), "failure": ("✗", "bold red")}


@click.command(epilog=examples(
    "streamwork doctor",
    "streamwork doctor --url redis://queue.internal:6379/0",
    "streamwork doctor --json | jq '.checks[] | select(.verdict == \"failure\")'",
))  # fmt: skip
@place_options
@click.pass_context
def doctor(ctx: click.Context, /, *, app: str | None, url: str | None, namespace: str | None, as_json: bool) -> None:
    """Check Redis and the project, and say what to do.

    Version, persistence, eviction policy, memory, clock, replication, protocol, scripts, whether the app can be
    imported and has what it needs, whether live workers take from its queues and claim work, schedules that do not
    fire, lost consumer groups, messages whose task nobody knows, dead letters, finished work in files, and variables
    that look like settings.
    Exit status 1 if anything is a failure; warnings alone are 0. Nothing is written.
    """
    with Session(app, url, namespace) as session:
        checks = [*_settings(session), *_app(session, namespace), *_server(session), *_queues(session)]
    is_fine = all(check.verdict != "failure" for check in checks)
    if as_json:
        print_json({"ok": is_fine, "checks": checks})
    else:
        _print(checks)
    ctx.exit(0 if is_fine else 1)


def _settings(session: Session) -> list[Check]:
    remedy = "unset it if it is a misspelt setting; Kubernetes makes such ones for a Service named streamwork"
    return [Check("settings", "warning", text, remedy) for text in session.loaded.unknown]


def _app(session: Session, namespace: str | None) -> list[Check]:
    if namespace is not None:
        return []
    try:
        app = session.app_if_any()
    except ConfigError as error:
        session.give_up_app()
        return [Check("app", "failure", str(error), "correct it: no worker can start here")]
    if app is None:
        return [Check("app", "note", "none found here", "see streamwork --help for how one is found")]
    count = _count(len(app.tasks), "task") or "no task"
    found = [Check("app", "ok", f"{app.name}: {count} on {', '.join(app.queues) or 'no queue'}")]
    return [*found, *_lifespan(app), *_processes(app)]


def _lifespan(app: Streamwork) -> list[Check]:
    declared = app.lifespan_of
    if declared is None or not (inspect.isasyncgenfunction(declared) or inspect.iscoroutinefunction(declared)):
        return []
    remedy = "decorate it with contextlib.asynccontextmanager below @app.lifespan: no worker can start"
    return [Check("lifespan", "failure", f"{_name(declared)} makes no async context manager", remedy)]


def _processes(app: Streamwork) -> list[Check]:
    tasks = sorted(task.name for task in app.tasks.values() if task.executor == "process")
    if not tasks or find_spec("pebble") is not None:
        return []
    what = f"executor='process' of {', '.join(tasks)} needs the package pebble"
    return [Check("processes", "failure", what, "pip install '<path to the clone>[process]'")]


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))


def _server(session: Session) -> Sequence[Check]:
    endpoint = session.connection.endpoint
    is_embedded = session.config.url is None
    where = f"embedded, in {session.config.folder}" if is_embedded else endpoint.where
    checks: list[Check] = session.ask(checkup(is_embedded=is_embedded))
    return [Check("redis", "ok", where), *checks]


def _queues(session: Session) -> list[Check]:
    try:
        namespace, app = session.namespace(), session.app_if_any()
    except ConfigError:
        return []
    names = session.ask(queue_names(namespace, app.queues if app is not None else ()))
    seen: Overview = session.ask(overview(namespace, names))
    troubles: list[Check] = session.ask(degraded(namespace, seen))
    # The server itself was looked at above.
    troubles = [each for each in troubles if each.name not in ("persistence", "memory", "connections")]
    return [*_workers(session, seen), *troubles, *_schedules(session), *_dead(seen), *_spooled(session)]


def _schedules(session: Session) -> list[Check]:
    found = (session.app_if_any() or session.unbound()).schedules.list()
    checks: list[Check] = session.ask(schedule_checks(session.namespace(), found))
    return checks


def _dead(seen: Overview) -> list[Check]:
    remedy = (
        "streamwork tasks show ID says why, with the ids of the workers' log lines; they stay until they are purged"
    )
    return [
        Check("dead", "note", f"{_count(queue.dead, 'dead letter')} in queue {queue.queue}", remedy)
        for queue in seen.queues
        if queue.dead
    ]


def _spooled(session: Session) -> list[Check]:
    folder = Path(session.config.folder) / "spool"
    files = len(list(folder.glob("*"))) if folder.is_dir() else 0
    if not files:
        return []
    what = f"{_count(files, 'file')} of finished work in {folder}: Redis was away when a worker ended"
    return [Check("spool", "warning", what, "start a worker in this folder: it writes them first")]


def _workers(session: Session, seen: Overview) -> list[Check]:
    """Look for what nobody alive takes: what waits, and what the app's tasks would need."""
    app = session.app_if_any()
    alive = sum(worker.alive for worker in seen.workers)
    waiting = seen.unserved
    found = [
        Check("workers", "warning", f"{each.waiting:,} waiting: {each.text}", f"start one: {each.remedy}")
        for each in waiting
    ]
    if alive:
        declared = [(session.keys(task.queue), task.lane) for task in app.tasks.values()] if app is not None else []
        said = {(each.queue, *each.tags) for each in waiting}
        missing: list[Unserved] = session.ask(unserved(declared))
        found += [
            Check("workers", "warning", each.text, f"start one: {each.remedy}")
            for each in missing
            if (each.queue, *each.tags) not in said
        ]
    elif not found:
        return [Check("workers", "note", "none is alive", "start one: streamwork worker")]
    return found or [Check("workers", "ok", f"{alive} alive, and all that is declared has one that takes it")]


def _print(checks: Sequence[Check]) -> None:
    out = console()
    for check in checks:
        mark, style = _MARKS[check.verdict]
        out.print(Text.assemble((f"{mark} {check.name:<12}", style), check.found), soft_wrap=True)
        if check.remedy:
            out.print(Text.assemble(" " * 14, ("→ " + check.remedy, style)), soft_wrap=True)
    failures, warnings = (sum(check.verdict == kind for check in checks) for kind in ("failure", "warning"))
    found = [_count(failures, "failure"), _count(warnings, "warning")]
    out.print(Text("\n" + (", ".join(filter(None, found)) or "all is well")))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""
