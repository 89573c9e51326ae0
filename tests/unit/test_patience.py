"""How long a send is tried, by made-up instants: away, full, in doubt, with and without a caller who says how long."""

from __future__ import annotations

import pytest

from streamwork.broker.resend import MOST_IN_DOUBT_S, Patience
from streamwork.config import ClientConfig
from streamwork.errors import EnqueueUnknown, StoreFull, StoreUnavailable

CONFIG = ClientConfig(send_timeout_s=10.0, resend_s=60.0)
FULL, AWAY = StoreFull("full"), StoreUnavailable("away", maybe_executed=False)
DOUBT = StoreUnavailable("lost", maybe_executed=True)


def ends(wait_s, error, kind, *instants):
    """Say at which of these instants (s after the first try) it gives up, and that it is so by this error."""
    patience = Patience(CONFIG, 0.0, wait_s)
    for at_s in instants:
        try:
            assert patience.pause_s(error, at_s, ["id"]) >= 0
        except kind:
            return at_s
    return None


@pytest.mark.parametrize(("wait_s", "error", "kind", "at_s"), [
    (None, AWAY, StoreUnavailable, 10.0),
    (0.1, AWAY, StoreUnavailable, 0.1),
    (300.0, AWAY, StoreUnavailable, 300.0),
    (None, FULL, StoreFull, 0.0),
    (0.0, FULL, StoreFull, 0.0),
    (5.0, FULL, StoreFull, 5.0),
    (None, DOUBT, EnqueueUnknown, 60.0),
    (0.1, DOUBT, EnqueueUnknown, 0.1),
    (100.0, DOUBT, EnqueueUnknown, 100.0),
    (1e6, DOUBT, EnqueueUnknown, MOST_IN_DOUBT_S),
])  # fmt: skip
def test_it_gives_up_when_it_was_told_to_and_no_sooner(wait_s, error, kind, at_s):
    before = [at_s - 0.01] if at_s else []
    assert ends(wait_s, error, kind, 0.0, *before, at_s) == at_s


@pytest.mark.parametrize(("wait_s", "by_s"), [(None, None), (0.0, 1.0), (0.3, 1.0), (2.0, 2.0), (300.0, 300.0)])
def test_an_answer_is_waited_for_no_longer_than_the_caller_waits(wait_s, by_s):
    assert Patience(CONFIG, 0.0, wait_s).answer_by_s(0.0) == by_s


def test_a_later_try_has_what_is_left_and_a_moment_at_least():
    patience = Patience(CONFIG, 0.0, 0.3)
    patience.pause_s(AWAY, 0.1, ["id"])
    assert [patience.answer_by_s(at_s) for at_s in (0.2, 0.3)] == [0.3, 0.35]


def test_the_last_pause_ends_when_the_time_is_up():
    patience = Patience(CONFIG, 0.0, 2.0)
    assert max(patience.pause_s(AWAY, 1.999, ["id"]) for _ in range(50)) <= 0.001 + 1e-9


def test_a_full_redis_does_not_settle_a_doubt():
    patience = Patience(CONFIG, 0.0, None)
    patience.pause_s(DOUBT, 1.0, ["id"])
    with pytest.raises(EnqueueUnknown) as caught:
        patience.pause_s(FULL, 2.0, ["id"])
    assert caught.value.task_ids == ["id"]
