"""Guards of loops and threads that call: rule 37."""

from __future__ import annotations

from tests.faults.guard import STORE, Guard, guard

CALLING: dict[str, Guard] = {
    "use_async": guard(
        37,
        "a blocking call does not stop every coroutine of its loop",
        ("streamwork/context.py", "if asyncio._get_running_loop() is not None:", "if False:"),
    ),
    "driver_per_loop": guard(
        37,
        "a second loop does not use the connection of the first",
        ("streamwork/links.py", "side = self._loops.get(loop)", "side = next(iter(self._loops.values()), None)"),
    ),
    "connection_per_thread": guard(
        37,
        "threads do not take each other's answers",
        (STORE + "sync_driver.py", "self._local = threading.local()", "self._local = lambda: None"),
    ),
    "told_to_its_loop": guard(
        37,
        "a loop that sleeps is woken by the result that it waits for",
        (
            "streamwork/waiting.py",
            "loop.call_soon_threadsafe(lambda: None if arrived.done() else arrived.set_result(record))",
            "arrived.set_result(record)",
        ),
    ),
    "no_slot_no_wait": guard(
        37,
        "a task does not wait for ever for one that needs its own slot",
        (
            "streamwork/guards.py",
            "if context.free_slots is not None and context.free_slots(handle.id) <= 0:",
            "if False:",
        ),
    ),
    "own_queue_warned": guard(
        37,
        "who waits for its own queue hears what that may come to",
        ("streamwork/guards.py", "    warnings.warn(\n", "    (lambda *_, **__: None)(\n"),
    ),
}
