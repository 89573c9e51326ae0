"""`streamwork status`, `queues` and `workers`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.text import Text

from streamwork.broker.checkup import Check
from streamwork.broker.degraded import degraded
from streamwork.broker.info import eviction_warning, info, server_name
from streamwork.broker.pausing import paused_checks
from streamwork.broker.stats import Overview, QueueStats, WorkerStats, overview, queue_names
from streamwork.cli.options import examples, names, place_options
from streamwork.cli.session import Session
from streamwork.cli.show import console, listing, print_json, size, span
from streamwork.clock import SYSTEM_CLOCK

_NUMBERS = (
    "waiting", "running", "scheduled", "dead", "succeeded", "skipped", "cancelled", "expired", "retried", "oldest",
)  # fmt: skip


@click.command(epilog=examples(
    "streamwork status",
    "streamwork status --url redis://queue.internal:6379/0 --namespace shop",
    "streamwork status --json | jq '.queues[] | {queue, waiting}'",
))  # fmt: skip
@place_options
def status(*, app: str | None, url: str | None, namespace: str | None, as_json: bool) -> None:
    """Show Redis, queues and workers on one screen, and what is not as it should be.

    Such as a Redis near its limits, consumer groups that were lost, workers that hold work and give no sign of life, or
    do but claim none, and messages whose task no worker knows.
    """
    with Session(app, url, namespace) as session:
        seen = _look(session, ())
        redis = _redis(session)
        troubles: list[Check] = session.ask(degraded(session.namespace(), seen))
        if as_json:
            unserved = [{**each._asdict(), "text": each.text} for each in seen.unserved]
            print_json({
                "namespace": session.namespace(), "redis": redis, "queues": seen.queues, "workers": seen.workers,
                "unserved": unserved, "degraded": troubles,
            })  # fmt: skip
            return
        out = console()
        _print_headline(out, session.namespace(), redis)
        if redis["warning"]:
            out.print(Text(f"! {redis['warning']}", style="bold red"))
        _print_troubles(out, troubles)
        out.print()
        _print(out, _queue_table(seen.queues), seen.queues, "no queue yet: nothing was ever sent")
        _print_unserved(out, seen)
        out.print()
        _print(out, _worker_table(seen.workers), seen.workers, "no worker: start one with `streamwork worker`")


@click.command(epilog=examples(
    "streamwork queues",
    "streamwork queues --lanes -Q mail          lane by lane: priority and tags",
    "streamwork queues --json | jq 'map(.waiting) | add'",
))  # fmt: skip
@click.option("-Q", "--queues", "only", metavar="A,B", callback=names("queue"), help="Only these.")
@click.option("--lanes", is_flag=True, help="Show each lane of a queue, with the tags it needs.")
@place_options
def queues(only: tuple[str, ...] | None, *, lanes: bool, as_json: bool, **place: Any) -> None:
    """Count task messages by queue and state.

    Waiting, running, scheduled (for later, or to be tried again) and dead are counts of now; the others count what
    ended so, ever. All counts are exact and cost the server the same however many there are. Only where a lane was
    deleted by hand, and new messages came before a worker saw that, what was lost counts as waiting until all of the
    lane is read.
    """
    with Session(**place) as session:
        seen = _look(session, only or ())
        if as_json:
            print_json(seen.queues)
            return
        out = console()
        _print(out, _queue_table(seen.queues, whole=True), seen.queues, "no queue yet: nothing was ever sent")
        if lanes:
            out.print()
            _print(out, _lane_table(seen.queues), seen.queues, "no lane")
        _print_unserved(out, seen)
        _print_troubles(out, session.ask(paused_checks(session.namespace(), seen.queues)))


@click.command(epilog=examples(
    "streamwork workers",
    "streamwork workers --json | jq -r '.[] | select(.alive | not) | .consumer'",
))  # fmt: skip
@place_options
def workers(*, as_json: bool, **place: Any) -> None:
    """Show every worker process: where it runs, what it offers, what it holds, and when it last claimed work.

    A worker is called as in its log: host and pid of its supervisor, to which signals go. A claim is an answer to its
    question for work, or that no slot is free to ask for more; it is told every few seconds. A silent one does not
    renew its liveness: it died or lost Redis, and what it holds is soon run elsewhere.
    """
    with Session(**place) as session:
        seen = _look(session, ())
        if as_json:
            print_json(seen.workers)
            return
        _print(console(), _worker_table(seen.workers), seen.workers, "no worker: start one with `streamwork worker`")


def _look(session: Session, only: Sequence[str]) -> Overview:
    namespace, app = session.namespace(), session.app_if_any()
    known: list[str] = session.ask(queue_names(namespace, app.queues if app is not None else ()))
    seen: Overview = session.ask(overview(namespace, only or known))
    for queue in seen.queues:
        # The set of names may lack one whose announcement failed: what has lanes is there all the same.
        if queue.queue not in known and not queue.lanes:
            close = difflib.get_close_matches(queue.queue, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
            raise click.ClickException(f"no queue {queue.queue!r} in {namespace!r}: {hint}")
    return seen


def _redis(session: Session) -> dict[str, Any]:
    server, memory, persistence = session.driver.run_all([info("server"), info("memory"), info("persistence")])
    return {
        "where": session.connection.endpoint.where,
        "embedded": session.config.url is None,
        "version": server_name(server),
        "uptime_s": int(server.get("uptime_in_seconds", 0)),
        "used_bytes": int(memory.get("used_memory", 0)),
        "max_bytes": int(memory.get("maxmemory", 0)),
        "append_only_file": persistence.get("aof_enabled") == "1",
        "warning": eviction_warning(memory),
    }


def _print_headline(out: Console, namespace: str, redis: dict[str, Any]) -> None:
    used = size(redis["used_bytes"]) + (f" of {size(redis['max_bytes'])}" if redis["max_bytes"] else "")
    where = f"{'embedded, ' if redis['embedded'] else ''}{redis['where']}"
    facts = [redis["version"], where, f"up {span(redis['uptime_s'] * 1000)}", used]
    if len(" · ".join((namespace, *facts))) <= out.width:
        where = ""
    else:
        facts.remove(where)
    out.print(Text.assemble((namespace, "bold"), " · ", " · ".join(facts)))
    if where:
        out.print(Text(where), soft_wrap=True)


def _print_unserved(out: Console, seen: Overview) -> None:
    for each in seen.unserved:
        out.print(Text(f"! {each.waiting:,} waiting: {each.text}", style="bold red"))
        out.print(Text(f"  start one: {each.remedy}"))


def _print_troubles(out: Console, troubles: Sequence[Check]) -> None:
    for each in troubles:
        style = "dim" if each.verdict == "note" else "bold red"
        out.print(Text(f"! {each.found}", style=style))
        out.print(Text(f"  {each.remedy}"))


def _print(out: Console, shown: RenderableType, rows: Sequence[Any], without: str) -> None:
    out.print(shown if rows else Text(without, style="dim"))


def _queue_table(found: Sequence[QueueStats], *, whole: bool = False) -> RenderableType:
    columns = ["queue", "waiting", "running", "scheduled", "dead", "succeeded"]
    columns += ["skipped", "cancelled", "expired", "retried"] if whole else []
    rows = [[*(getattr(queue, column) for column in columns), span(queue.oldest_ms)] for queue in found]
    return listing([*columns, "oldest"], rows, numbers=_NUMBERS)


def _lane_table(found: Sequence[QueueStats]) -> RenderableType:
    rows = [
        [queue.queue, _PRIORITIES[int(lane.lane.partition(":")[0])], lane.tags, lane.waiting, lane.running]
        for queue in found
        for lane in reversed(queue.lanes)
    ]
    return listing(["queue", "priority", "tags", "waiting", "running"], rows, numbers=_NUMBERS)


# Level of a lane to the priorities that go there (protocol rule 4).
_PRIORITIES = ("0–2", "3–5", "6–8", "9")


def _worker_table(found: Sequence[WorkerStats]) -> RenderableType:
    now_ms = SYSTEM_CLOCK.now_ms()
    rows = [
        [
            worker.name, str(worker.pid or ""),
            worker.queues, worker.tags, f"{worker.in_hand} / {worker.slots}",
            span(now_ms - worker.started_at_ms) if worker.started_at_ms else None,
            f"{span(max(0, now_ms - worker.claimed_at_ms))} ago" if worker.claimed_at_ms else None,
            Text("alive", style="green") if worker.alive else Text("silent", style="bold red"),
        ]
        for worker in found
    ]  # fmt: skip
    return listing(
        ["worker", "process", "queues", "tags", "in hand", "up", "last claim", "state"], rows,
        numbers=("process", "in hand", "up", "last claim"), spare=("process", "up"),
    )  # fmt: skip
