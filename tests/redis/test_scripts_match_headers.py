"""What a script's header says, what scripts.py sends and what the script touches are the same."""

from __future__ import annotations

import re

import msgspec
import pytest

from streamwork.broker.outgoing import Sender
from streamwork.model.flow import NO_FLOW
from streamwork.model.limits import Limit, Rate, Unique
from streamwork.model.pausing import held_score
from streamwork.store import healing, scripts
from streamwork.store.archiving import take_records
from streamwork.store.burying import dead_edit, dead_purge, dead_retry
from streamwork.store.commands import plain
from streamwork.store.endpoint import Endpoint
from streamwork.store.keys import queues, spec_of
from streamwork.store.limiting import Beginning, Limited, begin, submit, sweep
from streamwork.store.looking import look
from streamwork.store.pausing import pause, unhold
from streamwork.store.planning import Fired, fire, plan, unique_name
from streamwork.store.scheduling import schedule
from streamwork.store.scripts import ALL_SCRIPTS
from streamwork.store.sync_driver import SyncDriver
from streamwork.store.tapping import tap, tap_read, untap
from streamwork.store.telling import ANNOUNCE, announce
from tests.helpers import body_of, seed
from tests.redis.burial import bury, letter_of
from tests.redis.kit import LANE, deliver, end, outgoing, put, read, take

HIGH = "9:gpu"


def header(script, part):
    """Return one part of a header in one line."""
    lines = script.source.decode().split("\n")
    start = max(
        n for n, line in enumerate(lines) if line.startswith(f"-- {part}  ")
    )  # the last: after what it includes
    text = [lines[start]]
    for line in lines[start + 1 :]:
        if not re.match(r"--  +", line):
            break
        text.append(line[2:].strip())
    return " ".join(text)


def fixed(script, part):
    """Return how many numbered keys or arguments the header names; they must be numbered without a hole."""
    numbers = [int(n) for n in re.findall(r"(?:^-- \w+  |· )(\d+) ", header(script, part))]
    assert numbers == list(range(1, len(numbers) + 1)), header(script, part)
    return len(numbers)


def examples(keys):
    """Return one call of each script with what it repeats: (command, keys that repeat, arguments that repeat)."""
    held = [body_of("tests.echo") for _ in range(2)]
    message = outgoing()
    lanes = [LANE, HIGH]

    class One:
        lane, entry, count, task_id, body, consumer, token = LANE, b"1-1", 1, held[0][0], held[0][1], "w1", "t"

    settled = [end(keys, One, op, reply="r") for op in "SDR"]
    return {
        "enqueue": (scripts.enqueue(keys, "s", 1, lanes, [1, message.body, 2, message.body], 1, 64), 4, 6),
        "settle": (scripts.settle(keys, "w1", settled), 1 + 1 + 3 + 1 + 1 + 11 + 2, 1 + 8 + 10 + 7),
        "promote": (scripts.promote(keys, lanes, 5), 4, 2),
        "register": (scripts.register(keys, "w1", b"", 1), 0, 0),
        "revive": (scripts.revive(keys, "w1", 1), 0, 0),
        "pulse": (scripts.pulse(keys, "r", 1, 1, 1), 0, 0),
        "take": (scripts.take(keys, LANE, "w1", mode="dead", started=[b"1-1", b"1-2"]), 0, 2),
        "release": (scripts.release(keys, LANE, "w1", [(b"1-1", 1), (b"1-2", 1)]), 0, 4),
        "adopt": (scripts.adopt(keys, LANE, "w1", 5, [(b"1-1", 1)]), 0, 2),
        "heal": (healing.heal(keys, LANE, 1), 0, 0),
        "restore": (healing.restore(keys, LANE, b"0 1-1 7", b"1-1", 5, [b"0-1", b"0-2"]), 0, 2),
        "drop_consumer": (scripts.drop_consumer(keys, LANE, "w1"), 0, 0),
        "trim": (healing.trim(keys, "5", 1, 1, "why"), 0, 0),
        "import": (take_records(keys, 1, [("1-1", b"j", b""), ("1-2", b"j", b"d")]), 0, 2 * 3),
        "maintain": (healing.maintain(keys, LANE, "0", 1, 1), 0, 0),
        "cancel": (scripts.cancel(keys, "id", "me", b"", 1, "r", lane=LANE, entry="1-1"), 0, 0),
        "watch": (scripts.watch(keys, "r", 1), 0, 0),
        "schedule": (schedule(keys, "s", 1, [("id", "+5", b"r"), ("id2", "7", b"r")], 1), 0, 6),
        "submit": (submit(keys, ("s", 1, 1), lanes, [Limited(1, "id", "", b"1", b"", b"b")] * 2, 1, 64), 4, 2 + 12),
        "begin": (begin(keys, LANE, "w1", [Beginning("id", b"1-1", 1, b"1", b"b")] * 2), 0, 10),
        "sweep": (sweep(keys, "flow", ["a", "b"], LANE), 1, 2),
        "pause": (pause(keys, "queue", b"{}"), 0, 0),
        "unhold": (unhold(keys, 5), 0, 0),
        "plan": (plan(keys, "nightly", "add", b"r"), 0, 0),
        "fire": (fire(keys, "nightly", b"r", 1, Fired("id", b"1:\n1\nb"), "queue"), 0, 0),
        "dead_retry": (dead_retry(keys, "id", b"l", b"1:\n1\nb", b"", b"j"), 0, 0),
        "dead_edit": (dead_edit(keys, "id", b"l", b"m", b"j"), 0, 0),
        "dead_purge": (dead_purge(keys, "id", b"l", b"j"), 0, 0),
        "announce": (announce(keys.namespace, [("t", b"e"), ("u", b"e")], 1), 0, 4),
        "tap": (tap(keys, "t", dict.fromkeys(lanes, b""), "$", 1), 2, 4),
        "tap_read": (tap_read(keys, "t", lanes, 1, 1), 2, 2),
        "untap": (untap(keys, "t", lanes, only_dead=True), 2, 0),
        "look": (look([plain("HGETALL", keys.added), plain("TIME"), plain("XINFO", "GROUPS", keys.lane(LANE))]), 2, 9),
    }


@pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
def test_as_many_keys_and_arguments_are_sent_as_the_header_says(keys, script):
    command, more_keys, more_args = examples(keys)[script.name]
    assert command.args[:2] == ("EVALSHA", script.sha)
    sent_keys = command.args[2]
    assert sent_keys == fixed(script, "KEYS") + more_keys
    assert len(command.args) - 3 - sent_keys == fixed(script, "ARGV") + more_args


@pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
def test_every_named_key_and_argument_is_used(script):
    code = re.sub(r"--.*", "", script.source.decode())
    for part in ("KEYS", "ARGV"):
        for n in range(1, fixed(script, part) + 1):
            # A script that walks through its arguments names only the first of them.
            assert f"{part}[{n}]" in code, f"{part}[{n}]"


@pytest.mark.parametrize("script", ALL_SCRIPTS, ids=lambda script: script.name)
def test_every_key_sent_is_in_the_table_of_keys_and_in_one_slot(keys, script):
    command, _, _ = examples(keys)[script.name]
    sent = command.args[3 : 3 + command.args[2]]
    tag = "{" + keys.namespace + "}" if script is ANNOUNCE else keys.tag  # events are of all queues
    assert all(key.startswith(tag + ":") for key in sent)
    assert [key for key in sent if spec_of(key) is None] == []


def test_the_key_of_the_namespace_is_in_a_table_of_its_own(app, driver, namespace):
    app.call("tests.echo", 1).enqueue()
    key = queues(namespace)
    spec = spec_of(key)
    assert (spec.kind, spec.owner) == (driver.run(plain("TYPE", key)).decode(), "namespace")
    assert spec_of("{ns:queue}:queues") is None
    assert spec_of("{ns}:lanes") is None


def test_scripts_have_names_of_their_own(driver):
    assert (
        len({script.sha for script in ALL_SCRIPTS}) == len({script.name for script in ALL_SCRIPTS}) == len(ALL_SCRIPTS)
    )
    for script in ALL_SCRIPTS:
        assert driver.run(plain("SCRIPT", "LOAD", script.source)).decode() == script.sha


class Fenced:
    """A driver whose scripts may touch the keys that they declare, and no others."""

    def __init__(self, admin, url):
        self._admin = admin
        admin.run(plain("ACL", "SETUSER", "fenced", "on", "nopass", "+@all", "resetkeys"))
        self._driver = SyncDriver(Endpoint(url), ALL_SCRIPTS)
        self.used = set()

    def run(self, command):
        if command.script is None:
            return self._admin.run(command)
        self.used.add(command.script.name)
        patterns = [f"~{key}" for key in command.args[3 : 3 + command.args[2]]]
        self._admin.run(plain("ACL", "SETUSER", "fenced", "resetkeys", *patterns))
        return self._driver.run(command)

    def close(self):
        self._driver.close()


@pytest.fixture
def fenced(server, own):
    fenced = Fenced(own, server.url.replace("unix://", "unix://fenced:any@"))
    yield fenced
    fenced.close()


def denied(driver):
    """Return what the server refused; also what a script's pcall kept quiet about."""
    rows = [dict(zip(row[::2], row[1::2], strict=True)) for row in driver.run(plain("ACL", "LOG"))]
    return [(row[b"reason"], row[b"object"]) for row in rows]


def test_the_fence_of_this_test_works(server, own, own_keys, fenced):
    own.run(plain("ACL", "SETUSER", "fenced", "resetkeys", "~nothing"))
    with pytest.raises(Exception, match="NOPERM"):
        fenced._driver.run(plain("GET", "anything"))
    assert denied(own) == [(b"key", b"anything")]


def test_scripts_touch_only_keys_that_they_declare(own, own_keys, fenced):
    keys = own_keys
    walk_a_life(fenced, keys)
    walk_faults(fenced, keys)
    walk_limits(fenced, keys)
    walk_schedules(fenced, keys)
    walk_dead_letters(fenced, keys)
    walk_taps(fenced, keys)
    for _ in range(2):
        fenced.run(announce(keys.namespace, [(str(n), b"e") for n in range(200)], 1, 1))
    assert denied(own) == []
    assert fenced.used == {script.name for script in ALL_SCRIPTS}


def walk_a_life(driver, keys):
    """Run every script on its ordinary way."""
    driver.run(schedule(keys, "later", 1, [("0" * 32, "+5000000", b"1:\n1,0,0,1,0\nx")], 60_000))
    driver.run(plain("DEL", keys.due, keys.due_body))
    for known in (b"{}", b""):
        driver.run(plain("ZADD", keys.due, held_score("other"), "0" * 32))
        assert driver.run(pause(keys, "task:x", known))
        assert driver.run(unhold(keys, 5)) == 1
    driver.run(plain("DEL", keys.due))
    limits = msgspec.msgpack.encode([("c", "c:x", 5)])
    for send in (outgoing(), outgoing()._replace(when="+5000000"), outgoing()._replace(limits=limits)):
        driver.run(Sender(64, {"*": 9}).command(keys, [send], 1))
    driver.run(plain("DEL", keys.due, keys.due_body, keys.lanes, keys.added, keys.lane(LANE), keys.bell(LANE)))
    driver.run(look([plain("HGETALL", keys.added), plain("TIME"), plain("XINFO", "GROUPS", keys.lane(LANE))]))
    for client in ("r", "q"):
        driver.run(scripts.watch(keys, client, 60_000))
    driver.run(scripts.register(keys, "w1", b"", 60_000))
    driver.run(scripts.pulse(keys, "a", 60_000, 60_000, 1))
    for _ in range(2):
        held = deliver(driver, keys, "w1", 6) + deliver(driver, keys, "w1", 6, lane=HIGH)
        driver.run(plain("HSET", keys.suspects, "1:/0-1", "1,0,x"))
        driver.run(plain("HSET", keys.cancelled, "nobody", "x"))
        chunk = [
            end(keys, d, op, reply=client, run_at=1)
            for d, op, client in zip(held, ("S", "Sms!", "K", "C", "D", "R") * 2, "rq" * 6, strict=True)
        ]
        assert driver.run(scripts.settle(keys, "w1", chunk)) == []
        assert driver.run(scripts.settle(keys, "w1", chunk)) == []
        assert driver.run(scripts.cancel(keys, held[5].task_id, "me", b"c\nc\n", 1000, "r", lane=LANE, entry="1-1"))
        driver.run(plain("DEL", keys.lanes, keys.bell(HIGH)))
        assert driver.run(scripts.promote(keys, [LANE, HIGH], 10)).moved == 1
        (again,) = read(driver, keys, "w1", lane=HIGH)
        assert (
            driver.run(scripts.cancel(keys, again.task_id, "me", b"c\nc\n", 1000, "r", lane=HIGH, entry="0-1"))
            == "requested"
        )
        assert driver.run(scripts.settle(keys, "w1", [end(keys, again, "Cm")])) == []
        driver.run(healing.maintain(keys, LANE, "1", 100, 1))
        driver.run(healing.maintain(keys, HIGH, "99999999999999", 100, 1))
        driver.run(healing.trim(keys, "99999999999999", 0, 1, "why"))
        driver.run(take_records(keys, 60_000, [("1-1", b"j", b"d")]))


def walk_limits(driver, keys):
    """Run messages through lines, rates, groups and names, and end them in every way."""
    flow = NO_FLOW.changed({
        "rate": [Rate("1/h"), Rate("1/h", window=True)], "concurrency": Limit(1), "key": "k", "group": "g",
        "unique": Unique("u", until="start", on_duplicate="replace"), "debounce": 5,
    })  # fmt: skip
    limits = flow.resolve("t", "1:", (b"", b""), (), {}).limits
    bare = NO_FLOW.changed({"concurrency": Limit(1)}).resolve("t", "1:", (b"", b""), (), {}).limits
    sent = [body_of("tests.echo") for _ in range(5)]
    messages = [Limited(1, i, "", b"1,0,0,1,0", limits, body) for i, body in sent[:2]]
    messages += [Limited(1, sent[2][0], "+1", b"1,0,0,1,0", limits, sent[2][1])]
    messages += [Limited(2, i, "", b"1,0,0,1,0", bare, body) for i, body in sent[3:]]
    sender = "limited", 1, 60_000
    answers = driver.run(submit(keys, sender, [LANE, HIGH], messages, 1, 64))
    assert driver.run(submit(keys, sender, [LANE, HIGH], messages, 1, 64)) == answers
    (held,) = read(driver, keys, "w9")
    begun = [Beginning(held.task_id, held.entry, n, b"1,0,0,1,0", held.body) for n in (1, 7, 1)]
    assert driver.run(begin(keys, LANE, "w9", begun)) == [1, -1, 0]
    driver.run(scripts.settle(keys, "w9", [end(keys, held, "Sm")]))
    driver.run(scripts.promote(keys, [LANE, HIGH], 10))
    for task_id, _ in sent:
        driver.run(scripts.cancel(keys, task_id, "me", b"c", 1, "r", lane=HIGH))
    for what in ("flow", "unique", "rates"):
        driver.run(sweep(keys, what, [sent[0][0], "c:t\0" + sent[0][0], "w:t"], LANE))
    driver.run(sweep(keys, "counts", [100]))


def walk_kept(driver, keys):
    """Run what happens when an entry is trimmed under its owner."""
    bounds = healing.Bounds(entries=1, nearly_full_ms=1000)
    for n, end_of in enumerate((
        lambda entry: scripts.take(keys, LANE, "w1", mode="leave"),
        lambda entry: scripts.release(keys, LANE, "w1", [(entry, 1)]),
        lambda entry: scripts.adopt(keys, LANE, "w1", 1, [(entry, 1)]),
        lambda entry: healing.heal(keys, LANE, 1),
    )):  # fmt: skip
        driver.run(plain("DEL", keys.grace, keys.alive("w1")))
        old, other = deliver(driver, keys, "w1", 2)
        assert driver.run(scripts.settle(keys, "w1", [end(keys, other)])) == []
        driver.run(plain("HSET", keys.suspects, f"{LANE}/{old.entry.decode()}", "1,0,x"))
        driver.run(healing.maintain(keys, LANE, "99999999999999", 100, 1, bounds))
        assert driver.run(plain("HLEN", keys.kept)) == 1
        if n == 3:
            driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers"))
        driver.run(end_of(old.entry))
        assert driver.run(plain("HLEN", keys.kept)) == 0
    driver.run(plain("DEL", keys.due, keys.due_body, keys.nearly_full, keys.restoring))


def walk_faults(driver, keys):
    """Run what happens when a worker dies or a key is lost."""
    walk_kept(driver, keys)
    held = deliver(driver, keys, "w1", 4)
    driver.run(plain("XDEL", keys.lane(LANE), held[0].entry))
    driver.run(scripts.release(keys, LANE, "w1", [(held[1].entry, 1)]))
    take(driver, keys)
    driver.run(plain("DEL", keys.grace, keys.alive("w1")))
    take(driver, keys)
    assert driver.run(scripts.revive(keys, "w1", 1000)) == "fenced"
    driver.run(plain("HSET", keys.consumers, "w1", ""))
    assert driver.run(scripts.revive(keys, "w1", 1000)) == "revived"
    rows = driver.run(scripts.adopt(keys, LANE, "w2", 10))
    driver.run(scripts.take(keys, LANE, "w2", mode="dead", evidence="x", started=[rows[-1].entry]))
    driver.run(scripts.adopt(keys, LANE, "w3", 10))
    driver.run(scripts.adopt(keys, LANE, "w3", 10, [(rows[-1].entry, rows[-1].delivered + 1)]))
    driver.run(scripts.drop_consumer(keys, LANE, "w2"))
    for near in (1, 60_000):
        driver.run(scripts.pulse(keys, "b", 60_000, 60_000, near))
    seed(driver, keys, body_of("tests.echo"), due_at_ms=1)
    assert (
        driver.run(scripts.cancel(keys, driver.run(plain("ZRANGE", keys.due, 0, 0))[0].decode(), "me", b"c", 1, "r"))
        == "cancelled"
    )
    assert driver.run(scripts.cancel(keys, "nobody", "me", b"c", 1, "r")) == "requested"
    driver.run(plain("HSET", keys.due_body, "garbage", "x"))
    driver.run(plain("ZADD", keys.due, 1, "garbage"))
    driver.run(scripts.promote(keys, [LANE], 10))
    put(driver, keys, lane="0:")
    driver.run(plain("XGROUP", "DESTROY", keys.lane(LANE), "workers"))
    driver.run(healing.heal(keys, LANE, 1))
    note = driver.run(plain("HGET", keys.restoring, LANE))
    while note:
        note = driver.run(healing.restore(keys, LANE, note, note.split()[1], 5, [])).note
    driver.run(plain("DEL", keys.lane(LANE)))
    driver.run(scripts.settle(keys, "w3", [end(keys, held[2], op) for op in ("S", "R", "D!")]))
    driver.run(healing.heal(keys, LANE, 1))
    driver.run(scripts.watch(keys, "r", 1000))


def walk_dead_letters(driver, keys):
    """Let messages with limits die, run again, change and go."""
    one, other = bury(driver, keys, 2)
    limits = msgspec.msgpack.encode([("u", "dead", "r", 0, 0), ("c", "c:dead", 1)])
    seen = letter_of(driver, keys, one.task_id)
    for name in (one.task_id, other.task_id):
        driver.run(dead_retry(keys, name, letter_of(driver, keys, name).letter, b"1:\n1\nb", limits, b"j"))
    assert driver.run(dead_retry(keys, one.task_id, seen.letter, b"", b"", b"j")) == "gone"
    letter = letter_of(driver, keys, other.task_id).letter
    assert driver.run(dead_edit(keys, other.task_id, letter, letter + b"x", b"j")) == ""
    assert driver.run(dead_purge(keys, other.task_id, b"", b"j")) == ""


def walk_taps(driver, keys):
    """Let a tap begin, read, miss something, go on and end."""
    lanes = [HIGH, LANE]
    for lane in lanes:
        put(driver, keys, 2, lane)
    for since in ("$", "0-1"):
        driver.run(tap(keys, "t", {HIGH: b"", LANE: b"1-1"}, since, 1))
        put(driver, keys, 3)
        driver.run(plain("XTRIM", keys.lane(LANE), "MAXLEN", 1))
        assert driver.run(tap_read(keys, "t", lanes, 50, 1_000_000)).tapped
        driver.run(plain("PEXPIRE", keys.tap("t"), 1000))
        assert driver.run(tap_read(keys, "t", lanes, 50, 1_000_000)).tapped
        assert driver.run(untap(keys, "t", lanes, only_dead=False))
    assert not driver.run(untap(keys, "t", lanes, only_dead=True))


def walk_schedules(driver, keys):
    """Run what happens to a schedule, and all that it sends."""
    for mode in ("declare", "add", "replace", "pause", "resume"):
        driver.run(plan(keys, "nightly", mode, b"r"))
    driver.run(plain("HSET", keys.schedule_marks, "nightly", "1000 -"))
    one, two = "1" * 32, "2" * 32
    message = lambda task_id: Fired(task_id, b"1:\n1,0,0,1,0\nx", msgspec.msgpack.encode([("u", "u", "r", 0, 0)]))
    assert driver.run(fire(keys, "nightly", b"r", 2000, Fired(), "queue")) == "passed"
    assert driver.run(fire(keys, "nightly", b"r", 3000, message(one), "skip")) == "fired"
    driver.run(plain("HSET", keys.unique, unique_name("nightly"), f"{one} 0"))
    assert driver.run(fire(keys, "nightly", b"r", 4000, message(two), "skip")) == "running"
    assert driver.run(fire(keys, "nightly", b"r", 5000, message(two), "cancel-running")) == "fired"
    assert driver.run(fire(keys, "nightly", b"r", None, message(one), "queue")) == "fired"
    assert driver.run(plan(keys, "nightly", "remove")) == "done"
