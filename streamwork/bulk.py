"""Many calls at once: cut into chunks per queue, each with the handles that are returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from streamwork.broker.outgoing import CHUNK_BYTES, CHUNK_MESSAGES, Outgoing
from streamwork.handle import Call, Handle, Waiting
from streamwork.ids import new_task_ids
from streamwork.store.keys import QueueKeys

R = TypeVar("R")

# Few enough that their common millisecond is still true for the last of them.
_IDS_AT_ONCE = 50


class Bulk(Generic[R]):
    """The calls of one `enqueue_many` on their way: one buffer per queue, handles in the order of the calls.

    Args:
        port: What its handles wait through.
        keys: Gives a queue's keys.
        outgoing: Makes a call's message, given its id and the client's.
        client_id: Who hears of the ends.
    """

    def __init__(
        self,
        port: Waiting,
        keys: Callable[[str], QueueKeys],
        outgoing: Callable[[Call[Any], str, str], Outgoing],
        client_id: str,
    ) -> None:
        self._port = port
        self._keys = keys
        self._outgoing = outgoing
        self._client_id = client_id
        self.handles: list[Handle[R]] = []
        self.queues: set[str] = set()

    def chunks(self, calls: Iterable[Call[R]]) -> Iterator[tuple[QueueKeys, list[Outgoing], list[Handle[R]]]]:
        """Yield (queue, messages, their handles) as soon as a queue's buffer is full, and what is left at the end."""
        port, outgoing, client_id, add = self._port, self._outgoing, self._client_id, self.handles.append
        ids: list[str] = []
        buffers: dict[tuple[str, str], tuple[list[Outgoing], list[Handle[R]]]] = {}
        sizes: dict[tuple[str, str], int] = {}
        for call in calls:
            if not ids:
                ids = new_task_ids(_IDS_AT_ONCE)
            message = outgoing(call, ids.pop(), client_id)
            place, length = (call.queue, message.way), len(message.body)
            handle = Handle(port, message.task_id, call.queue, message.lane, "", call.read_result)
            buffer = buffers.get(place)
            if buffer is not None and (len(buffer[0]) == CHUNK_MESSAGES or sizes[place] + length > CHUNK_BYTES):
                yield self._keys(call.queue), *buffer
                buffer = None
            if buffer is None:
                buffer = buffers[place] = ([], [])
                sizes[place] = 0
                self.queues.add(call.queue)
            buffer[0].append(message)
            buffer[1].append(handle)
            sizes[place] += length
            add(handle)
        for (queue_name, _), buffer in buffers.items():
            yield self._keys(queue_name), *buffer
