"""Whole scripts leave the same behind in the model as on a real server, whatever was called before."""

from __future__ import annotations

import re
import time

import hiredis
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streamwork.errors import StoreError
from streamwork.store import healing, scripts
from streamwork.store.commands import plain
from streamwork.store.failures import translated
from streamwork.store.scheduling import schedule
from streamwork.wire.message import decode_message
from tests.helpers import state_of
from tests.model.server import KEYS, ModelServer
from tests.redis.kit import LANE, Delivery, end, outgoing

_ENTRY = re.compile(r"\d{13}-\d+")
_who = st.sampled_from(["w1", "w2", "w3"])
_which = st.integers(0, 3)
_steps = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 2)), st.tuples(st.just("read"), _who, st.integers(1, 3)),
    st.tuples(st.just("read"), _who, st.integers(1, 3)),
    st.tuples(st.just("settle"), _which, st.sampled_from(["S", "K", "C", "R", "D", "S!", "Sm"])),
    st.tuples(st.just("settle"), _which, st.sampled_from(["S", "K", "C", "R", "D", "S!", "Sm"])),
    st.tuples(st.just("take"), _who, st.sampled_from(["reap", "dead", "leave"])),
    st.tuples(st.just("adopt"), _who, st.integers(1, 3)), st.tuples(st.just("audit"), _which),
    st.tuples(st.just("release"), _which), st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["promote", "heal", "ungroup", "maintain", "drop", "restore", "fall", "keep"])),
    st.tuples(st.just("keep")), st.tuples(st.just("later"), st.integers(1, 2), st.sampled_from(["+0", "0", "+60000"])),
    st.tuples(st.just("register"), _who), st.tuples(st.just("revive"), _who), st.tuples(st.just("pulse"), _who),
)  # fmt: skip


class Model:
    """The model as a driver; its clock is the machine's."""

    def __init__(self, version):
        self.server = ModelServer()
        self.server.reset(int(time.time() * 1000), version)

    def run(self, command):
        """Run a command."""
        self.server.now_ms = int(time.time() * 1000)
        if command.args[0] == "KEYS":
            prefix = command.args[1].replace("[", "").replace("]", "").rstrip("*").encode()
            return [key for key in self.server.names() if key.startswith(prefix)]
        reply = self.server.execute(command)
        if isinstance(reply, hiredis.ReplyError):
            raise translated(redis.ResponseError(str(reply)), "the model")
        return command.read(reply.encode() if isinstance(reply, str) else reply)


class Side:
    """One of the two, with what it was told; all it says is compared with entries as their numbers."""

    def __init__(self, driver):
        self.driver = driver
        self.held = []
        self.entries = {}
        self.sent = 0

    def do(self, step, bodies):
        """Do one step and answer what it said."""
        try:
            return self._numbered(getattr(self, step[0])(bodies, *step[1:]))
        except StoreError as error:
            return type(error).__name__

    def state(self):
        """What is in the queue now."""
        try:
            state = state_of(self.driver, KEYS)._replace(low={}, journal=[])
            # Instants differ by a moment.
            state = state._replace(due={task_id: min(at_ms, 10**12) for task_id, at_ms in state.due.items()})
            kept = self._run(plain("HGETALL", KEYS.kept))
        except StoreError as error:  # the group is lost
            return type(error).__name__
        ordered = {
            name: sorted(value.items()) if isinstance(value, dict) else sorted(value)
            for name, value in state._asdict().items()
        }
        return self._numbered((ordered, sorted(zip(kept[::2], kept[1::2], strict=True))))

    def _numbered(self, answer):
        return _ENTRY.sub(lambda found: f"#{self.entries.setdefault(found[0], len(self.entries))}", repr(answer))

    def _run(self, command):
        return self.driver.run(command)

    def put(self, bodies, count):
        """Enqueue."""
        chunk = bodies[self.sent : self.sent + count]
        items = [part for message in chunk for part in (1, message.body)]
        found = self._run(scripts.enqueue(KEYS, "sender", self.sent + 1, [LANE], items, 1, 64)) if chunk else []
        self.sent += 1 if chunk else 0
        for entry in found:
            self.entries.setdefault(entry, len(self.entries))
        return found

    def _take_in(self, consumer, entry, fields, count):
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        body = named[b"d"]
        self.entries.setdefault(entry.decode(), len(self.entries))
        self.held.append(Delivery(LANE, entry, count, decode_message(body).id, body, consumer))

    def read(self, bodies, consumer, count):
        """Read."""
        reply = self._run(scripts.read_new([(KEYS.lane(LANE),)], consumer, count, None))
        for entry, fields in reply[0][1] if reply else ():
            self._take_in(consumer, entry, fields, 1)
        return reply

    def _pick(self, which):
        return self.held[which % len(self.held)] if self.held else None

    def settle(self, bodies, which, op):
        """Settle one of those held, rightly or not."""
        delivery = self._pick(which)
        if delivery is None:
            return None
        return self._run(scripts.settle(KEYS, delivery.consumer, [end(KEYS, delivery, op, run_at=1)]))

    def take(self, bodies, consumer, mode):
        """Mark what a consumer has."""
        started = [d.entry for d in self.held if d.consumer == consumer][:1]
        return self._run(scripts.take(KEYS, LANE, consumer, mode=mode, evidence="x", started=started))

    def adopt(self, bodies, consumer, most):
        """Adopt."""
        return self._adopted(consumer, self._run(scripts.adopt(KEYS, LANE, consumer, most)))

    def _adopted(self, consumer, rows):
        for row in rows:
            if row.fields:
                self._take_in(consumer, row.entry, row.fields, row.delivered)
        return rows

    def audit(self, bodies, which):
        """Adopt one's own."""
        held = self._pick(which)
        if held is None:
            return None
        rows = self._run(scripts.adopt(KEYS, LANE, held.consumer, 1, [(held.entry, held.count)]))
        return self._adopted(held.consumer, rows)

    def release(self, bodies, which):
        """Give back."""
        held = self._pick(which)
        return held and self._run(scripts.release(KEYS, LANE, held.consumer, [(held.entry, held.count)]))

    def cancel(self, bodies, which):
        """Cancel."""
        return self._run(
            scripts.cancel(KEYS, bodies[which].task_id, "me", b"t\ncancelled\n", 1_000_000, "r", lane=LANE)
        )

    def promote(self, bodies):
        """Promote what is due."""
        return self._run(scripts.promote(KEYS, [LANE], 10)).moved

    def heal(self, bodies):
        """Heal the lane."""
        return self._run(healing.heal(KEYS, LANE, 1))

    def ungroup(self, bodies):
        """Lose the group."""
        return self._run(plain("XGROUP", "DESTROY", KEYS.lane(LANE), "workers"))

    def maintain(self, bodies):
        """Keep the lane."""
        kept = self._run(healing.maintain(KEYS, LANE, "0", 100, 1))
        return kept.trimmed, kept.first_open

    def keep(self, bodies):
        """Keep the lane where all is old and two entries are too many: bodies of pending ones are copied."""
        kept = self._run(healing.maintain(KEYS, LANE, "9000000000000", 100, 1, healing.Bounds(1)))
        return kept.trimmed, kept.first_open

    def later(self, bodies, count, when):
        """Schedule."""
        chunk = bodies[self.sent : self.sent + count]
        records = [(one.task_id, when, b"%b\n1,0,0,1,0\n%b" % (LANE.encode(), one.body)) for one in chunk]
        found = self._run(schedule(KEYS, "sender", self.sent + 1, records, 60_000)) if chunk else []
        self.sent += 1 if chunk else 0
        return found

    def restore(self, bodies):
        """Restore without a journal."""
        note = self._run(plain("HGET", KEYS.restoring, LANE))
        if note is None:
            return None
        step = self._run(healing.restore(KEYS, LANE, note, note.split(b" ")[1], 100, []))
        return step.note == b"", step.entries

    def drop(self, bodies):
        """Drop an empty consumer."""
        return self._run(scripts.drop_consumer(KEYS, LANE, "w3"))

    def fall(self, bodies):
        """Let grace and a liveness key end."""
        return self._run(plain("DEL", KEYS.grace, KEYS.alive("w1")))

    def register(self, bodies, consumer):
        """Register."""
        return self._run(scripts.register(KEYS, consumer, b"", 100_000))

    def revive(self, bodies, consumer):
        """Beat after a lapse."""
        return self._run(scripts.revive(KEYS, consumer, 100_000))

    def pulse(self, bodies, consumer):
        """Renew the pulse."""
        return self._run(scripts.pulse(KEYS, consumer, 100_000, 100_000, 1))[:2]


def _emptied(driver):
    keys = driver.run(plain("KEYS", "{m:q}*"))
    if keys:
        driver.run(plain("DEL", *keys))


def test_scripts_leave_the_same_behind(driver):
    text = driver.run(plain("INFO", "server")).decode()
    version = int(text.partition("redis_version:")[2].partition(".")[0])
    bodies = [outgoing(LANE, number) for number in range(100)]

    @settings(
        max_examples=120, deadline=None, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(_steps, min_size=4, max_size=30))
    def alike(steps):
        _emptied(driver)
        real, ours = Side(driver), Side(Model(version))
        for number, step in enumerate([("put", 2), *steps], 1):
            assert ours.do(step, bodies) == real.do(step, bodies), f"{number}: {step}"
        assert ours.state() == real.state()

    try:
        alike()
    finally:
        _emptied(driver)
