"""Limits as options: what is refused and how, names of odd keys, and numbers that travel with the message."""

from __future__ import annotations

import itertools
from datetime import timedelta

import msgspec
import pytest

from streamwork import Debounce, Group, Limit, Rate, Streamwork, Unique
from streamwork.errors import ConfigError
from streamwork.model.flow import NO_FLOW, group_line
from streamwork.model.pausing import mark_of

ODD = ["k" * 10_000, "a\0b", "two\nlines", "\ud800", "\x1b[31m", "a\u2028b"]


def resolved(options, *args, **kwargs):
    """Return the limits of a call as flow.lua reads them."""
    found = NO_FLOW.changed(options).resolve("shop.mail", "1:", (b"args", None), args, kwargs)
    return found and msgspec.msgpack.decode(found.limits)


@pytest.mark.parametrize(
    "text", ["100/parsec", "", "10", "/s", "10/", "-1/s", "1.5/s", "0/s", "5/0s", "10//s", "10/s/s", 10, None, b"1/s"]
)
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ConfigError, match="Rate"):
        Rate(text)


@pytest.mark.parametrize(
    ("text", "count", "period_s"),
    [("10/s", 10, 1), ("100/m", 100, 60), ("5/30s", 5, 30), (" 1 / 2 Hour ", 1, 7200), ("3/d", 3, 86_400)],
)
def test_a_rate_is_so_many_in_so_long(text, count, period_s):
    rate = Rate(text)
    assert (rate.count, rate.period_us) == (count, period_s * 1_000_000)
    (found,) = resolved({"rate": rate})
    assert found == ["t", "t:shop.mail", period_s * 1_000_000 / count, count]


@pytest.mark.parametrize("burst", [0, -1, 1.5, True, "2", 10**10])
def test_a_burst_is_a_whole_number_from_1(burst):
    with pytest.raises(ConfigError, match="burst"):
        Rate("1/s", burst=burst)
    assert resolved({"rate": Rate("10/s", burst=3)})[0][3] == 3


def test_a_window_has_no_burst():
    with pytest.raises(ConfigError, match="window"):
        Rate("1/s", burst=1, window=True)
    assert resolved({"rate": Rate("4/2s", window=True)}) == [["w", "w:shop.mail", 4, 2_000_000]]


@pytest.mark.parametrize("most", [0, -1, 2.0, True, "3", None])
def test_a_limit_is_a_whole_number_from_1(most):
    with pytest.raises(ConfigError, match="most"):
        Limit(most)


@pytest.mark.parametrize("key", [1.5, b"x", [], object()])
@pytest.mark.parametrize(
    "make", [lambda key: Limit(1, key), lambda key: Rate("1/s", key=key), Unique, lambda key: Debounce(1, key)]
)
def test_a_key_is_a_text_or_a_function(make, key):
    with pytest.raises(ConfigError, match="key"):
        make(key)


@pytest.mark.parametrize("weight", [0, -1, 1001, float("nan"), float("inf"), True, "2", None])
def test_a_weight_is_a_number_above_0(weight):
    with pytest.raises(ConfigError, match="weight"):
        Group("a", weight)


@pytest.mark.parametrize("given", [{"name": ""}, {"name": None}, {"name": 5}, {"name": "a", "most": -1}])
def test_a_group_has_a_name_and_at_most_a_number(given):
    with pytest.raises(ConfigError, match="Group"):
        Group(**given)


@pytest.mark.parametrize(
    "given",
    [{"until": "soon"}, {"until": 0}, {"until": -1}, {"until": None}, {"on_duplicate": "explode"}, {"until": []}],
)
def test_unique_knows_its_words(given):
    with pytest.raises(ConfigError, match="Unique"):
        Unique("k", **given)


@pytest.mark.parametrize("quiet", [0, -1, "1", None, timedelta(0)])
def test_a_debounce_is_a_span_above_0(quiet):
    with pytest.raises(ConfigError, match=r"[dD]ebounce"):
        Debounce(quiet)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rate", "10/s"), ("rate", Limit(1)), ("rate", [Rate("1/s"), Limit(1)]), ("concurrency", 5),
        ("concurrency", Rate("1/s")), ("key", 1.5), ("key", []), ("group", ""), ("group", 5), ("group", Limit(1)),
        ("unique", 1.5), ("unique", Debounce(1)), ("debounce", "1"), ("debounce", Unique("k")), ("debounce", 0),
    ],
)  # fmt: skip
def test_an_option_of_another_type_is_named(option, value):
    with pytest.raises(ConfigError, match=option):
        NO_FLOW.changed({option: value})


OF_A_KEY = {
    "key": lambda key: {"key": key},
    "concurrency": lambda key: {"concurrency": Limit(1, key)},
    "group": lambda key: {"group": key},
    "rate": lambda key: {"rate": Rate("1/s", key=key)},
    "unique": lambda key: {"unique": Unique(key)},
    "debounce": lambda key: {"debounce": Debounce(1, key)},
}


@pytest.mark.parametrize("option", OF_A_KEY)
def test_a_function_that_raises_is_named_at_the_caller_and_nothing_is_sent(option, memory_app):
    def broken(number):
        raise LookupError(f"no tenant {number}")

    @memory_app.task(name="limits.mail", **OF_A_KEY[option](broken))
    def mail(number):
        """Never runs."""

    with pytest.raises(ConfigError, match=rf"limits.mail.*{option}.*LookupError: no tenant 7.*nothing was sent"):
        mail.enqueue(7)


@pytest.fixture
def memory_app():
    """An app whose Redis nobody could reach: a send that got so far would fail with another error."""
    return Streamwork("limits", url="redis://127.0.0.1:1/0")


@pytest.mark.parametrize("option", [name for name in OF_A_KEY if name != "group"])
def test_what_has_no_text_of_its_own_is_no_key(option):
    with pytest.raises(ConfigError, match=option):
        resolved(OF_A_KEY[option](object))


@pytest.mark.parametrize("option", OF_A_KEY)
def test_a_function_that_finds_nothing_leaves_the_call_unlimited(option):
    assert resolved(OF_A_KEY[option](lambda number: None), 7) is None
    found, *_ = resolved(OF_A_KEY[option](lambda number: f"n{number}"), 7)
    assert found[1].endswith(":n7")


@pytest.mark.parametrize("key", ODD)
@pytest.mark.parametrize("option", OF_A_KEY)
def test_odd_keys_have_short_printable_names_of_their_own(option, key):
    (found, *_), (again, *_), (other, *_) = (resolved(OF_A_KEY[option](one)) for one in (key, key, key + "!"))
    assert found == again
    assert found[1] != other[1]
    assert found[1].isprintable()
    assert len(found[1]) < 200


def test_groups_count_together_with_those_that_need_the_same_tags():
    flow = NO_FLOW.changed({"group": Group("a", 2, 3)})
    limits = [
        msgspec.msgpack.decode(flow.resolve("t", lane, (b"", None), (), {}).limits) for lane in ("1:", "3:b,c", "0:b,c")
    ]
    assert [found[0] for found in limits] == [["g", "g:a", 2.0, 3]] * 3
    assert [found[1] for found in limits] == [["v", "*"], ["v", "*b,c"], ["v", "*b,c"]]


def test_a_key_that_looks_like_another_kind_of_limit_is_told_apart():
    names = [resolved(OF_A_KEY[option]("x"))[0][1] for option in OF_A_KEY]
    assert len(set(names)) == len(names)


def test_limits_of_one_name_are_shared_and_others_are_of_their_task():
    shared = {"concurrency": [Limit(2, name="smtp"), Limit(3)], "rate": Rate("1/s", name="smtp")}
    assert [limit[1] for limit in resolved(shared)] == ["c:smtp", "c:shop.mail", "t:smtp"]


def test_the_numbers_travel_with_the_message():
    old, new = (resolved({"concurrency": Limit(most)}) for most in (5, 10))
    assert (old, new) == ([["c", "c:shop.mail", 5]], [["c", "c:shop.mail", 10]])


def test_an_option_of_a_call_takes_the_place_of_the_task_s():
    base = NO_FLOW.changed({"concurrency": Limit(1), "group": "a"})
    assert base.changed({"concurrency": None}).limits == ()
    assert base.changed({"group": Group("b", 2)}).group == Group("b", 2)
    assert base.changed({}) == base


def test_a_debounce_without_a_key_counts_all_calls_of_a_task_and_each_task_by_itself():
    assert resolved({"debounce": 5}, 1) == resolved({"debounce": 5}, 2) == [["u", "d:shop.mail", "d", 0, 1]]
    key = {"debounce": Debounce(5, key=lambda n: n or None)}
    assert resolved(key, 1) != resolved(key, 2)
    assert resolved(key, 0) is None


def test_only_rates_and_names_until_the_start_have_to_be_begun():
    def begins(options):
        return NO_FLOW.changed(options).resolve("t", "1:", (b"", None), (), {}).begins

    assert not begins({"concurrency": Limit(1), "key": "k", "group": "g", "unique": True})
    assert begins({"rate": Rate("1/s")})
    assert begins({"unique": Unique("k", until="start")})
    assert begins({"debounce": 5})


def test_all_arguments_together_are_a_key():
    one, same, other = (
        NO_FLOW.changed({"unique": True}).resolve("t", "1:", (packed, None), (), {}).limits
        for packed in (b"a", b"a", b"b")
    )
    assert one == same != other


@pytest.mark.parametrize("name", ["tenant-7", *ODD])
def test_a_group_is_paused_by_the_name_of_its_line(name):
    assert mark_of(group=name) == "group:" + group_line(name)[2:]
    assert resolved({"group": name})[0][1] == group_line(name)


def named(name, key):
    return resolved({"concurrency": Limit(1, key=key, name=name)})[0][1]


def test_several_limits_of_a_task_are_each_their_own():
    both = {"rate": [Rate("10/s"), Rate("100/m"), Rate("5/s", window=True)], "concurrency": [Limit(1), Limit(5)]}
    names = [limit[1] for limit in resolved(both)]
    assert names == ["c:shop.mail", "c:shop.mail%n1", "t:shop.mail", "t:shop.mail%n1", "w:shop.mail%n2"]
    keyed = {"concurrency": [Limit(1, key="a"), Limit(5, key="a"), Limit(2, name="b"), Limit(3)]}
    names = [limit[1] for limit in resolved(keyed)]
    assert names == ["c:shop.mail:a", "c:shop.mail%n1:a", "c:b", "c:shop.mail%n2"]


@pytest.mark.parametrize("option", [{"rate": [Rate("1/s", name="x")] * 2}, {"concurrency": [Limit(1, name="x")] * 2}])
def test_two_of_one_name_are_refused(option):
    with pytest.raises(ConfigError, match="two of them are called 'x'"):
        NO_FLOW.changed(option)
    NO_FLOW.changed({"concurrency": [Limit(1, name="x"), Limit(2, name="x", key="a")]})


def test_two_limits_never_have_one_name():
    texts = ["".join(letters) for size in range(4) for letters in itertools.product(":%3a", repeat=size)]
    pairs = [(name, key) for name in texts[1:] for key in [None, *texts]]
    assert len({named(*pair) for pair in pairs}) == len(pairs)


def test_neither_by_what_looks_like_a_digest():
    shortened = named("a", "b\n")
    assert named("a", shortened.removeprefix("c:a:")) != shortened
