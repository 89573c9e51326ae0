"""Whether anybody alive takes from a lane: a task message that nobody takes waits without a word, so others say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from streamwork.broker.steps import Steps, texts
from streamwork.model.lane import lane_tags
from streamwork.store.commands import plain
from streamwork.store.keys import QueueKeys


class Registration(NamedTuple):
    """A consumer of one queue: what it said of itself, whether its liveness key is there, and what that says.

    Attributes:
        claimed_at_ms: When it last asked for work, or had no slot free to ask for any, as far as it has said; 0 = not
            yet, or not within the hour.
    """

    text: str
    is_alive: bool
    claimed_at_ms: int = 0

    @property
    def tags(self) -> frozenset[str] | None:
        """What it offers; None where another version wrote in a form unknown here."""
        try:
            return frozenset(msgspec.json.decode(self.text, type=dict[str, Any]).get("tags") or ())
        except (msgspec.MsgspecError, TypeError):
            return None


class Unserved(NamedTuple):
    """Task messages for which no live worker is there.

    Attributes:
        queue: Where they are, or would be.
        tags: What a worker must offer.
        waiting: How many wait now.
    """

    queue: str
    tags: list[str]
    waiting: int = 0

    @property
    def text(self) -> str:
        """Say what is missing."""
        if not self.tags:
            return f"no live worker reads queue {self.queue}"
        return f"no live worker offers tags {{{', '.join(self.tags)}}} on queue {self.queue}"

    @property
    def remedy(self) -> str:
        """Say how to start the worker that is missing."""
        tags = f" --tags {','.join(self.tags)}" if self.tags else ""
        return f"streamwork worker{'' if self.queue == 'default' else f' -Q {self.queue}'}{tags}"


def registered(keys: QueueKeys) -> Steps[dict[str, Registration]]:
    """Find the consumers of a queue by name."""
    (flat,) = yield [plain("HGETALL", keys.consumers)]
    found = texts(flat)
    if not found:
        return {}
    alive, claimed = yield [plain("MGET", *map(keys.alive, found)), plain("MGET", *map(keys.claimed, found))]
    return {
        name: Registration(text, there is not None, int(at) if at and at.isdigit() else 0)
        for (name, text), there, at in zip(found.items(), alive, claimed, strict=True)
    }


def is_served(lane: str, consumers: Mapping[str, Registration]) -> bool:
    """Whether a live consumer of the queue offers what this lane needs; one that cannot be read is believed to."""
    needed = lane_tags(lane)
    return any(each.is_alive and (each.tags is None or needed <= each.tags) for each in consumers.values())


def unserved(places: Iterable[tuple[QueueKeys, str]]) -> Steps[list[Unserved]]:
    """Find which of these (queue, lane) nobody alive takes from; each tag set of a queue once, waiting not counted."""
    wanted: dict[str, dict[tuple[str, ...], str]] = {}
    keys_of: dict[str, QueueKeys] = {}
    for keys, lane in places:
        keys_of[keys.queue] = keys
        wanted.setdefault(keys.queue, {})[tuple(sorted(lane_tags(lane)))] = lane
    found: list[Unserved] = []
    for queue, lanes in sorted(wanted.items()):
        consumers = yield from registered(keys_of[queue])
        found += [Unserved(queue, list(tags)) for tags, lane in sorted(lanes.items()) if not is_served(lane, consumers)]
    return found
