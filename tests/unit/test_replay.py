"""The pure parts of replay: pace, what counts as slower, filters that stay the same, the log of what was sent."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamwork import ConfigError, ReplayRefused
from streamwork.model.arguments import changed
from streamwork.model.replay import ReplayCall, slower_of
from streamwork.replay.choosing import Chosen
from streamwork.replay.log import create, digest, unfinished
from streamwork.replay.pace import Pace, by_creation, pace_of, rate_of
from streamwork.replay.window import window_of


def waits(made, **how):
    """Return how long each message waits, with a clock that goes on by just that."""
    now_s, found = [0.0], []
    pace = Pace(how.get("rate"), how.get("factor"), lambda: now_s[0])
    for made_at_ms in made:
        wait_s = pace.wait_s(made_at_ms)
        now_s[0] += wait_s
        found.append(round(now_s[0], 6))
    return found


def test_messages_go_in_the_rhythm_in_which_they_were_made():
    assert waits([1_000, 3_000, 3_000, 11_000], factor=1.0) == [0, 2, 2, 10]
    assert waits([1_000, 3_000, 3_000, 11_000], factor=10.0) == [0, 0.2, 0.2, 1]
    assert waits([5_000, 1_000, 6_000], factor=1.0) == [0, 0, 1]
    assert waits([1_000] * 4) == [0] * 4
    assert waits([1_000] * 4, rate=4) == [0, 0.25, 0.5, 0.75]
    assert waits([1_000, 2_000, 2_000, 2_000], rate=4, factor=1.0) == [0, 1, 1.25, 1.5]


def test_they_are_put_into_the_order_in_which_they_were_made():
    def one(made_at_ms):
        call = ReplayCall(id=str(made_at_ms), task="t", queue="q", lane="1:", args=[], kwargs={}, made_at_ms=made_at_ms)
        return Chosen(call)

    made = [3, 1, 2, *range(20_000, 3, -1)]
    found = [chosen.call.made_at_ms for chosen in by_creation(map(one, [3, 1, 2, *range(4, 20_000)]))]
    assert found == list(range(1, 20_000))
    assert len(list(by_creation(map(one, made)))) == len(made)


def test_paces_rates_and_slower_are_read_or_refused():
    assert [pace_of(said) for said in ("1x", "10x", "0.5x", 3, "max", None)] == [1.0, 10.0, 0.5, 3.0, None, None]
    assert rate_of(5) == 5.0
    for read, wrong in (
        (pace_of, "fast"), (pace_of, "0x"), (pace_of, -1), (pace_of, True), (rate_of, 0), (rate_of, "5"),
        (slower_of, "0.9x"), (slower_of, "soon"), (slower_of, True), (slower_of, []),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            read(wrong)
    double, more = slower_of("2x"), slower_of("200ms")
    assert double.is_slower(100, 201)
    assert not double.is_slower(100, 200)
    assert not double.is_slower(0, 9)  # the journal has whole milliseconds
    assert more == slower_of(0.2) == slower_of(timedelta(seconds=0.2))
    assert more.is_slower(10, 211)
    assert not more.is_slower(10, 210)


def test_arguments_are_changed_by_name_or_by_place():
    assert changed([1, "a"], {"z": 0}, ("n", "to"), {"to": "b", "z": 1, "new": 2}) == ([1, "b"], {"z": 1, "new": 2})
    assert changed([1, "a"], {}, (), {"arg1": "b"}) == ([1, "b"], {})


def test_the_same_filters_are_known_again_whenever_they_are_said():
    first, second = window_of({"since": 60, "state": ["dead", "retried"]}), window_of({"state": ("retried", "dead")})
    assert first.what == second.what
    assert first.what != window_of({"state": "dead"}).what
    assert window_of({"limit": 3}).asked["limit"] == 3
    for name in ("follow", "reverse", "after"):
        with pytest.raises(ConfigError, match=name):
            window_of({name: "1-1" if name == "after" else True})


def test_the_log_says_what_was_sent_and_what_is_in_doubt(tmp_path):
    what = digest("shop", "mail", "again")
    assert unfinished(tmp_path, what) is None
    log = create(tmp_path, what, None, 5, 9)
    with pytest.raises(ReplayRefused, match="running now"):
        unfinished(tmp_path, what)
    log.begin([("a", "1"), ("b", "2"), ("c", "3")])
    log.answer({"b": "unique"}, ["c"])
    log.begin([("c", "4"), ("d", "5")])
    log.close()
    path = next((tmp_path / "replays").iterdir())
    path.write_bytes(path.read_bytes() + b'{"kind":"sen')  # cut short by a crash: never acted on
    assert unfinished(tmp_path, digest("shop", "mail", "other")) is None
    again = unfinished(tmp_path, what)
    assert (again.sent, again.refused, again.in_doubt) == ({"a"}, {"b": "unique"}, [("c", "4"), ("d", "5")])
    assert (again.head.until_ms, again.head.limit) == (5, 9)
    again.answer({}, ["d"])
    assert again.sent == {"a", "c"}
    again.end()
    again.close()
    assert unfinished(tmp_path, what) is None
    path.write_bytes(path.read_bytes().replace(b'{"kind":"end"}', b"garbage"))
    with pytest.raises(ReplayRefused, match="no log of a replay"):
        unfinished(tmp_path, what)
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2').replace(b"garbage\n", b""))
    with pytest.raises(ReplayRefused, match="version 2"):
        unfinished(tmp_path, what)
