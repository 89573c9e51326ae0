"""Task messages for later: what puts them into due."""

from __future__ import annotations

from collections.abc import Sequence

from streamwork.store.commands import Arg, Command, Script, call_script
from streamwork.store.keys import QueueKeys

SCHEDULE = Script("schedule")


def schedule(
    keys: QueueKeys,
    sender: str,
    number: int,
    messages: Sequence[tuple[str, str, bytes]],
    life_ms: int,
    most: int = 0,
) -> Command[list[str]]:
    """Put one chunk into due; answers an empty entry id for each message, since it has none yet.

    Args:
        keys: The queue.
        sender: Id of the sender.
        number: The chunk's number, one more than the sender's last on this queue.
        messages: (task id, when, record): when is ``+ms`` from now on or ms since 1970; the record is lane, attempt
            record and body, a line each.
        life_ms: Life of the sender's mark.
        most: Bound of the queue's backlog; 0 = none.
    """
    items: list[Arg] = [part for message in messages for part in message]
    bounded = (keys.added, keys.parked_body, keys.settled, keys.due) if most else ()
    count = len(messages)
    return call_script(
        SCHEDULE,
        (keys.sender(sender), keys.due, keys.due_body, keys.control, *bounded),
        (number, life_ms, *items, *((most,) if most else ())),
        lambda _: [""] * count,
    )
