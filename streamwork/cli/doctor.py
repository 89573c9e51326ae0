"""`streamwork doctor`."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.text import Text

from streamwork.broker.checkup import Check, checkup
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

    Version, persistence, eviction policy, memory, clock, replication, protocol, scripts, and whether the app can be
    imported. Exit status 1 if anything is a failure; warnings alone are 0. Nothing is written.
    """
    with Session(app, url, namespace) as session:
        checks = [*_app(session, namespace), *_server(session)]
    is_fine = all(check.verdict != "failure" for check in checks)
    if as_json:
        print_json({"ok": is_fine, "checks": checks})
    else:
        _print(checks)
    ctx.exit(0 if is_fine else 1)


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
    return [Check("app", "ok", f"{app.name}: {len(app.tasks)} tasks on {', '.join(app.queues) or 'no queue'}")]


def _server(session: Session) -> Sequence[Check]:
    endpoint = session.connection.endpoint
    is_embedded = session.config.url is None
    where = f"embedded, in {session.config.folder}" if is_embedded else endpoint.where
    checks: list[Check] = session.ask(checkup(is_embedded=is_embedded))
    return [Check("redis", "ok", where), *checks]


def _print(checks: Sequence[Check]) -> None:
    out = console()
    for check in checks:
        mark, style = _MARKS[check.verdict]
        out.print(Text.assemble((f"{mark} {check.name:<12}", style), check.found), soft_wrap=True)
        if check.remedy:
            out.print(Text.assemble(" " * 14, ("→ " + check.remedy, style)), soft_wrap=True)
    failures, warnings = (sum(check.verdict == kind for check in checks) for kind in ("failure", "warning"))
    out.print(Text(f"\n{failures} failures, {warnings} warnings" if failures or warnings else "\nall is well"))
