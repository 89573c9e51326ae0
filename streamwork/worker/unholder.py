"""Let what was set aside for a paused task go on, once that is resumed."""

from __future__ import annotations

from streamwork.service import Service
from streamwork.store.async_driver import AsyncDriver
from streamwork.store.pausing import unhold
from streamwork.worker.member import QueueFacts


class Unholder(Service):
    """Make due what waits for no paused task: when one is resumed, and now and then."""

    name = "unholder"
    BATCH = 500
    # What a worker that heard of the end of a pause too late leaves behind waits so long at most.
    interval_s = 30.0
    # It hears of it within 100 ms; what it had set aside by then is in due a moment later.
    AGAIN_S = (0.25, 1.0, 4.0)

    def __init__(self, driver: AsyncDriver, queue: QueueFacts) -> None:
        super().__init__()
        self._driver = driver
        self._queue = queue
        self._again: list[float] = []

    def nudge(self) -> None:
        """Look now, and some more times soon."""
        self._again = list(self.AGAIN_S)
        super().nudge()

    async def tick(self) -> float | None:
        """Let a batch go on."""
        if await self._driver.run(unhold(self._queue.keys, self.BATCH)) == self.BATCH:
            return 0.0
        return self._again.pop(0) if self._again else None
