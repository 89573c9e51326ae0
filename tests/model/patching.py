"""What the product sees of the world while it is modelled: its clock, its chance, its spool."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from types import SimpleNamespace

from streamwork import spool
from streamwork.broker import async_sender, outgoing, resend
from streamwork.clock import SYSTEM_CLOCK
from streamwork.store import healing
from streamwork.worker import consumer, control, registrar, settle

# The world that is stepped now, and how many are over.
NOW = SimpleNamespace(world=None, closed=0)
_Bounds = healing.Bounds


class SpoolFile:
    """A file of the spool, in memory; it stays when its process, its supervisor or the server dies."""

    def __init__(self, world, outcomes):
        self.world = world
        self.outcomes = outcomes

    def unlink(self):
        """Go, now that all in it is settled; says so where it is not."""
        if self not in self.world.files:
            raise FileNotFoundError
        self.world.files.remove(self)
        self.world.spool_settled(self.outcomes)

    def with_suffix(self, suffix):
        """Nothing in the model is refused for good."""
        self.world.broken = self.world.broken or "P8: a spooled outcome was refused"
        return self

    def rename(self, path):
        """See `with_suffix`."""
        return path


def _write(folder, namespace, outcomes):
    file = SpoolFile(NOW.world, outcomes)
    NOW.world.files.append(file)
    NOW.world.spooled += 1
    return file


def _read(file):
    if file not in NOW.world.files:
        raise FileNotFoundError
    return file.outcomes


def _bounds(nearly_full_ms=0):
    return _Bounds(NOW.world.shape.most_entries, nearly_full_ms=nearly_full_ms)


@contextlib.contextmanager
def patched():
    """Let the product see the virtual clock, and no randomness; for this process, until the end of the block."""
    calm = lambda failures: min(1.0, 0.05 * 2**failures)
    clock = SimpleNamespace(monotonic=lambda: NOW.world.steady_ms / 1000)
    spots = [
        (SYSTEM_CLOCK, "now_ms", lambda: NOW.world.wall_ms + NOW.world.skew_ms),
        (SYSTEM_CLOCK, "steady_ms", lambda: NOW.world.steady_ms),
        (async_sender, "time", clock),
        (outgoing, "random_id", lambda: f"sender{NOW.world.number()}"),
        (healing, "Bounds", _bounds),
        (spool, "write", _write),
        (spool, "read", _read),
        (spool, "files", lambda folder, namespace: list(NOW.world.files)),
        *((module, "backoff_s", calm) for module in (consumer, control, registrar, resend, settle)),
    ]
    before = [(place, name, place.__dict__.get(name)) for place, name, _ in spots]
    level, loop = logging.root.manager.disable, asyncio._get_running_loop()
    logging.disable(logging.CRITICAL)
    # A world is full of circles: `World.close` breaks them, and to look for more at every turn costs a quarter.
    gc.disable()
    for place, name, value in spots:
        setattr(place, name, value)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        logging.disable(level)
        gc.enable()
        for place, name, value in before:
            if value is None:
                delattr(place, name)
            else:
                setattr(place, name, value)
