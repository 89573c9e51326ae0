"""A producer of the model, which also asks for cancellations; and the messages there are."""

from __future__ import annotations

import contextlib

from streamwork.broker.async_sender import AsyncSender
from streamwork.broker.outgoing import Outgoing
from streamwork.errors import EnqueueUnknown, StoreError
from streamwork.model.state import State
from streamwork.store import scripts
from streamwork.wire.message import NO_OPTIONS, Failure, encode_message, encode_record, encode_result
from tests.model.parts import CONFIG, Party
from tests.model.server import KEYS

IDS = [f"{number:032x}" for number in range(1, 17)]
BODIES = {task_id: encode_message(task_id, "work", b"\x90", None, NO_OPTIONS, None) for task_id in IDS}
CANCELLED = encode_record(Failure("Cancelled", "cancelled before it ran"))


class Client(Party):
    """Sends task messages, or cancels some."""

    def __init__(self, world, name):
        super().__init__(world, name)
        self.driver = self.make_driver("driver", CONFIG.client.deadline_s)
        self.sender = AsyncSender(self.driver, CONFIG.client)
        self.is_sending = False

    async def send(self, task_ids, lanes, whens):
        """Send one chunk, as `AsyncSender` does."""
        world = self.world
        chunk = [
            Outgoing(task_id, lane, BODIES[task_id], when)
            for task_id, lane, when in zip(task_ids, lanes, whens, strict=True)
        ]
        try:
            entries = await self.sender._send_chunk(KEYS, (KEYS.tag, None, bool(whens[0])), chunk)
        except (EnqueueUnknown, StoreError):
            pass
        else:
            for task_id, lane, entry in zip(task_ids, lanes, entries, strict=True):
                world.accepted(self.name_here, task_id, lane, entry)
        self.is_sending = False

    async def cancel(self, task_id, lane, entry):
        """Ask for a cancellation, once; for every other message also that its run is ended."""
        record = encode_result(f"cancel/{self.world.number()}", State.CANCELLED, CANCELLED)
        with contextlib.suppress(StoreError):
            ended = int(task_id[-1], 16) % 2 == 1
            where = {"lane": lane, "entry": entry, "terminate": ended}
            await self.driver.run(scripts.cancel(KEYS, task_id, "model", record, 3_600_000, "nobody", **where))
