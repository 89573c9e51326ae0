"""Events of a whole namespace: one bounded stream beside the queues, in a slot of its own."""

from __future__ import annotations

from collections.abc import Sequence

from streamwork.store.commands import Arg, Command, Script, call_script
from streamwork.store.keys import events, events_trimmed

ANNOUNCE = Script("announce")

# These are rare: starts and ends of workers, schedules, pauses. Some days of a large fleet, and 2 MB.
MOST_EVENTS = 10_000


def announce(
    namespace: str, records: Sequence[tuple[str, bytes]], now_ms: int, most: int = MOST_EVENTS
) -> Command[int]:
    """Tell events, each as its token and record; answers how many were new."""
    args: list[Arg] = [most, now_ms, f"the newest {most} events are kept"]
    for token, record in records:
        args += (token, record)
    return call_script(ANNOUNCE, (events(namespace), events_trimmed(namespace)), args, int)
