"""A queue with limits at the level of scripts: send, read, begin and end messages, and see where each one is."""

from __future__ import annotations

from collections import Counter

import msgspec

from streamwork.ids import random_id
from streamwork.model.flow import group_of, held_limits
from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.store.limiting import Beginning, Limited, begin, submit
from streamwork.wire.message import decode_message, encode_result
from tests.helpers import body_of, state_of
from tests.redis.kit import LANE, Delivery, hand_over, settle

PAST = b"1,0,0,1,0"
RECORD = encode_result("cancel", "cancelled", b"\xc0")


def c(name="c:x", most=1):
    """How many at once."""
    return ("c", name, most)


def k(name="k:x"):
    """One at a time, in order."""
    return ("k", name)


def g(name="g:x", weight=1.0, most=0):
    """A group; what is sent with it counts in the window of all groups, too."""
    return ("g", name, weight, most)


def t(us, burst=1, name="t:x"):
    """A bucket: us for each token."""
    return ("t", name, float(us), burst)


def w(most, us, name="w:x"):
    """A window."""
    return ("w", name, most, us)


def u(name="u:x", policy="c", ms=0, until_start=0):
    """A name that one has."""
    return ("u", name, policy, ms, until_start)


def with_window(limits, window="*"):
    """Return limits as a producer sends them: a group's with the window behind it."""
    return [one for limit in limits for one in ([limit, ("v", window)] if limit[0] == "g" else [limit])]


class Flow:
    """What a test does with one queue.

    Attributes:
        ids: Of all that was sent, in order.
    """

    def __init__(self, driver, keys):
        self.driver = driver
        self.keys = keys
        self.ids = []
        self.sender = random_id()
        self.number = 0

    def run(self, *args):
        return self.driver.run(plain(*args))

    def limited(self, *limits, lane=1, when="", task_id=None, window="*"):
        task_id, body = body_of("tests.echo", task_id=task_id)
        return Limited(lane, task_id, when, PAST, msgspec.msgpack.encode(with_window(limits, window)), body)

    def chunk(self, messages, lanes=(LANE,), number=None, most=0):
        """Send messages; returns the answers."""
        self.number = number or self.number + 1
        return self.driver.run(submit(self.keys, (self.sender, self.number, 60_000), lanes, messages, 1, 64, most))

    def send(self, *limits, count=1, lane=LANE, when=""):
        """Send messages one by one; returns (their ids, the answers)."""
        ids, answers = [], []
        for _ in range(count):
            message = self.limited(*limits, when=when)
            answers += self.chunk([message], [lane])
            ids.append(message.task_id)
        self.ids += ids
        return ids, answers

    def read(self, consumer="w1", count=1000, lane=LANE):
        """Read what is new; the attempt records are kept aside as `past`."""
        reply = self.driver.run(scripts.read_new([(self.keys.lane(lane),)], consumer, count, None))
        found = []
        for entry, fields in reply[0][1] if reply else []:
            body = dict(zip(fields[::2], fields[1::2], strict=True))[b"d"]
            found.append(Delivery(lane, entry, 1, decode_message(body).id, body, consumer))
        return found

    def begin(self, *deliveries):
        """Ask whether deliveries of one lane and consumer may start."""
        asked = [Beginning(d.task_id, d.entry, d.count, PAST, d.body) for d in deliveries]
        return self.driver.run(begin(self.keys, deliveries[0].lane, deliveries[0].consumer, asked))

    def end(self, delivery, op="S", run_at=1):
        """End a delivery, also what was promoted or woken."""
        flags = "m" if self.run("HEXISTS", self.keys.moved, delivery.task_id) else ""
        assert settle(self.driver, self.keys, delivery, op + flags, run_at=run_at)

    def promote(self, lanes=(LANE,), most=100):
        return self.driver.run(scripts.promote(self.keys, list(lanes), most))

    def cancel(self, task_id):
        return self.driver.run(scripts.cancel(self.keys, task_id, "me", RECORD, 60_000, "me"))

    def release(self, delivery):
        entries = [(delivery.entry, delivery.count)]
        return self.driver.run(scripts.release(self.keys, delivery.lane, delivery.consumer, entries))

    def adopt(self, delivery, consumer="w2"):
        """Let another consumer have it after its owner's death."""
        return hand_over(self.driver, self.keys, delivery, consumer)

    def holders(self, name):
        """Return who has a permit, or a reservation, of a limit."""
        return sorted(i for n, i in self.permits() if n == name)

    def line(self, name):
        """Return who waits for a limit, first comes first."""
        rows = [row.split(b"\0") for row in self.run("ZRANGEBYLEX", self.keys.parked, "-", "+")]
        return [row[2].decode() for row in rows if row[0].decode() == name]

    def lines(self):
        """Return the names of the lines in which anybody waits."""
        return {row.split(b"\0")[0].decode() for row in self.run("ZRANGEBYLEX", self.keys.parked, "-", "+")}

    def on_lane(self, lane=LANE):
        """Return the ids on a lane that nobody has settled, in order."""
        groups = self.run("XINFO", "GROUPS", self.keys.lane(lane))
        last, pending = b"0-0", set()
        if groups:  # else it was lost, and the healer is to make it again
            last = groups[0][groups[0].index(b"last-delivered-id") + 1]
            pending = {row[0] for row in self.run("XPENDING", self.keys.lane(lane), "workers", "-", "+", 10_000)}
        rows = self.run("XRANGE", self.keys.lane(lane), "-", "+")
        return [
            decode_message(fields[-1]).id for entry, fields in rows if entry in pending or _at(entry) > _at(last)
        ]  # fmt: skip

    def due(self):
        """Return the ids in due."""
        return [i.decode() for i in self.run("ZRANGE", self.keys.due, 0, -1)]

    def parked(self):
        """Return the ids in any line."""
        return sorted(i.decode() for i in self.run("HKEYS", self.keys.parked_body))

    def owner(self, name="u:x"):
        """Return who has a name, None = nobody."""
        found = self.run("HGET", self.keys.unique, name)
        return found and found.decode().split()[0]

    def rest(self):
        """Return what is left of messages with limits anywhere; {} once all have ended."""
        keys = self.keys
        names = "flow permits parked parked_body turns unique due due_body moved cancelled suspects kept"
        left = {name: self.run("EXISTS", getattr(keys, name)) for name in names.split()}
        left["backlog"] = state_of(self.driver, keys).backlog
        return {name: n for name, n in left.items() if n}

    def permits(self):
        """Return (limit, task id) for each permit that anybody has."""
        flat = self.run("HGETALL", self.keys.flow)
        return [(n, i.decode()) for i, record in zip(flat[::2], flat[1::2], strict=True) for n in held_limits(record)]

    def numbers(self):
        """Return how many have, and wait for, each limit, as the scripts keep it."""
        flat = self.run("HGETALL", self.keys.permits)
        return {field.decode(): int(n) for field, n in zip(flat[::2], flat[1::2], strict=True)}

    def turns(self):
        """Return how many of a group wait in a line by (line, level, group): as it is kept, and as it is."""
        flat = self.run("HGETALL", self.keys.turns)
        fields = [field.decode().split("\0") for field in flat[::2]]
        kept = {tuple(field): int(value.split()[0]) for field, value in zip(fields, flat[1::2], strict=True)}
        are = Counter()
        for row in self.run("ZRANGEBYLEX", self.keys.parked, "-", "+"):
            name, order, task_id = row.decode().split("\0")
            if name[0] not in "gk":
                are[name, order[-1], group_of(self.run("HGET", self.keys.flow, task_id))] += 1
        return kept, are


def _at(entry):
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number)
