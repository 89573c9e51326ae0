"""Rule 8: a lost group costs no message, and brings back nothing that was settled."""

from __future__ import annotations

import pytest

from streamwork.store import scripts
from streamwork.store.commands import plain
from streamwork.worker.consumer import Consumer
from tests.faults.proof import must_fail
from tests.faults.reader import is_blocked, without
from tests.helpers import await_until
from tests.redis.kit import LANE, deliver, put, read, settle
from tests.redis.lost import adopt, destroy, heal, maintain, restored
from tests.runtime.kit import with_reader

ALL = "99999999999999"


def lose_and_restore(server, own, keys):
    """Return the entries that come back."""
    destroy(own, keys)
    heal(own, keys)
    restored(server.url, keys)
    return [delivery.entry for delivery in adopt(own, keys)]


def reader_reads_on(consumer, connected, own, keys, within_s=10.0):
    put(own, keys)
    own.run(plain("XGROUP", "SETID", keys.lane(LANE), "workers", "$"))

    async def main(at):
        at.start()
        await await_until(lambda: is_blocked(own), "it waits in its read")
        destroy(own, keys)
        is_there = lambda: own.run(plain("XINFO", "GROUPS", keys.lane(LANE)))
        await await_until(is_there, "a reader whose group is gone makes it anew", within_s)
        put(own, keys)
        await await_until(lambda: at.taken, "and reads on")

    with_reader(connected, keys, main, LANE, consumer=consumer)


def test_a_reader_makes_a_lost_group_anew(connected, own, own_keys):
    reader_reads_on(Consumer, connected, own, own_keys)


def test_without_that_it_reads_no_more(connected, own, own_keys):
    consumer = without("group_made_anew")
    must_fail("group_made_anew", "makes it anew", reader_reads_on, consumer, connected, own, own_keys, within_s=1.0)


def nothing_is_lost(server, own, keys):
    first, second = deliver(own, keys, "w1", 2)
    assert settle(own, keys, first)
    put(own, keys)
    (waiting,) = [row[0] for row in own.run(plain("XRANGE", keys.lane(LANE), b"(" + second.entry, "+"))]
    assert lose_and_restore(server, own, keys) == [second.entry, waiting], "accepted, not settled, and gone"


def test_what_a_lost_group_had_not_settled_comes_back(server, own, own_keys):
    nothing_is_lost(server, own, own_keys)


def test_without_the_note_it_is_lost(server, own, own_keys):
    must_fail("loss_noted", "and gone", nothing_is_lost, server, own, own_keys)


def nothing_settled_comes_back(server, own, keys):
    oldest, *others = deliver(own, keys, "w1", 6)
    for delivery, op in zip(others, "SKCDR", strict=True):
        assert settle(own, keys, delivery, op)
    assert lose_and_restore(server, own, keys) == [oldest.entry], "what was settled comes back, to be committed again"


def test_what_the_journal_knows_does_not_come_back(server, own, own_keys):
    nothing_settled_comes_back(server, own, own_keys)


def test_without_the_journal_it_does(server, own, own_keys):
    must_fail("settled_not_restored", "settled comes back", nothing_settled_comes_back, server, own, own_keys)


def below_the_mark(server, own, keys):
    """The journal is kept from the mark on only."""
    for delivery in deliver(own, keys, "w1", 5):
        assert settle(own, keys, delivery)
    maintain(own, keys)
    own.run(plain("XTRIM", keys.journal, "MAXLEN", 0))
    assert lose_and_restore(server, own, keys) == [], "what lies below the mark comes back"


def test_what_lies_below_the_mark_does_not_come_back(server, own, own_keys):
    below_the_mark(server, own, own_keys)


def test_without_the_mark_it_does(server, own, own_keys):
    must_fail("low_mark", "below the mark comes back", below_the_mark, server, own, own_keys)


def set_back(server, own, keys):
    """Somebody sets the group back to look at history again, and then it is lost."""
    for delivery in deliver(own, keys, "w1", 5):
        assert settle(own, keys, delivery)
    maintain(own, keys)
    own.run(plain("XTRIM", keys.journal, "MAXLEN", 0))
    own.run(plain("XGROUP", "SETID", keys.lane(LANE), "workers", "0"))
    read(own, keys, "w2", 1)
    maintain(own, keys)
    assert lose_and_restore(server, own, keys) == [], "a mark that fell brings back what was settled"


def test_the_mark_never_falls(server, own, own_keys):
    set_back(server, own, own_keys)


def test_one_that_falls_brings_back_what_was_settled(server, own, own_keys):
    must_fail("mark_never_falls", "a mark that fell", set_back, server, own, own_keys)


def in_hand_at_the_mark(server, own, keys):
    (held,) = deliver(own, keys, "w1")
    maintain(own, keys)
    assert lose_and_restore(server, own, keys) == [held.entry], "what was in hand at the mark is lost"


def test_what_is_in_hand_lies_above_the_mark(server, own, own_keys):
    in_hand_at_the_mark(server, own, own_keys)


def test_without_that_it_is_lost(server, own, own_keys):
    must_fail("mark_below_pending", "in hand at the mark is lost", in_hand_at_the_mark, server, own, own_keys)


@pytest.fixture
def own_trim(own):
    """A driver to a server that trims to the entry: it cuts whole nodes only, 100 entries by default."""
    own.run(plain("CONFIG", "SET", "stream-node-max-entries", 1))
    return own


def trimmed_meanwhile(server, own, keys):
    held, *settled = deliver(own, keys, "w1", 5)
    for delivery in settled:
        assert settle(own, keys, delivery)
    destroy(own, keys)
    heal(own, keys)
    maintain(own, keys, ALL)
    restored(server.url, keys)
    assert [delivery.entry for delivery in adopt(own, keys)] == [held.entry], "trimmed before it was restored"


def test_nothing_is_trimmed_before_all_is_restored(server, own_trim, own_keys):
    trimmed_meanwhile(server, own_trim, own_keys)


def test_without_that_it_is_trimmed(server, own_trim, own_keys):
    must_fail("restored_before_trim", "trimmed before", trimmed_meanwhile, server, own_trim, own_keys)


def test_a_delivery_that_outlived_its_group_is_told_so(server, own, own_keys):
    """Its entry comes back, and with it another owner: rule 22 and the gate refuse what it still says."""
    (held,) = deliver(own, own_keys, "w1")
    destroy(own, own_keys)
    heal(own, own_keys)
    restored(server.url, own_keys)
    (again,) = adopt(own, own_keys, "w2")
    assert not settle(own, own_keys, held, "S!")
    assert settle(own, own_keys, again, "S!")
    assert own.run(scripts.release(own_keys, LANE, "w2", [(again.entry, again.count)])) == 0
