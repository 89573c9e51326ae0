"""`Where`: what the language over arguments takes, what it means, and what it refuses."""

from __future__ import annotations

import pytest

from streamwork.errors import ConfigError, WhereError
from streamwork.model.where import MOST_CHARACTERS, MOST_DEPTH, Where, named

VALUES = {
    "order_id": 7, "to": "a@b.c", "urgent": False, "note": None, "ratio": 0.5, "size": 10, "and_more": 1,
    "address": {"city": "Bern", "geo": {"lat": -46.9}}, "list": [1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("order_id == 7", True), ("order_id==7", True), ("7 == order_id", True), ("order_id == 8", False),
        ("order_id == 7.0", True), ("order_id != 7", False), ("order_id != 8", True),
        ("order_id < 8", True), ("order_id < 7", False), ("order_id <= 7", True), ("order_id > 6", True),
        ("order_id >= 8", False), ("order_id < size", True), ("ratio == 5e-1", True), ("ratio > .5 == 0", None),
        ("to == 'a@b.c'", True), ('to == "a@b.c"', True), (r"to == 'a\'b'", False), ("to > 'a'", True),
        ("urgent", False), ("not urgent", True), ("urgent == false", True), ("urgent == False", True),
        ("urgent == 0", False), ("order_id == true", False), ("note == null", True), ("note == None", True),
        ("note", False), ("to", True), ("list", True),
        ("order_id == 7 and to == 'x'", False), ("order_id == 7 or to == 'x'", True),
        ("order_id == 8 or to == 'x'", False), ("not order_id == 8 and size == 10", True),
        # `and` binds closer than `or`, `not` closest.
        ("order_id == 7 or size == 1 and urgent", True), ("(order_id == 7 or size == 1) and urgent", False),
        ("not (order_id == 7 and size == 10)", False), ("not not size", True),
        ("address.city == 'Bern'", True), ("address.geo.lat < -46", True), ("address.geo.lat == -46.9", True),
        ("address.street == 'x'", False), ("to.city == 'x'", False), ("and_more == 1", True),
        # What a call does not have fits no comparison, and unlike things have no order.
        ("missing == 1", False), ("missing != 1", False), ("missing", False), ("not missing == 1", True),
        ("missing == null", False), ("order_id < 'a'", False), ("to > 1", False), ("urgent < 1", False),
        ("note < 1", False), ("list == 1", False),
    ],
)  # fmt: skip
def test_what_an_expression_means(text, holds):
    if holds is None:
        with pytest.raises(WhereError):
            Where(text)
    else:
        assert Where(text).fits(VALUES) is holds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "give an expression"), ("   ", "give an expression"), (None, "give an expression"),
        ("order_id = 7", "write =="), ("a & b", "write and"), ("a && b", "write and"), ("a | b", "write or"),
        ("!a", "write not"), ("a ==", "missing"), ("== 7", "missing"), ("a == and b", "missing"), ("a and", "missing"),
        ("not", "missing"), ("(a", "not closed"), ("a)", "one too many"), ("a b", "one too many"),
        ("1 < a < 3", "one too many"), ("a == 'x", "no meaning"), ("-a", "missing"), ("a == 7x", "no meaning"),
        ("a.b()", "one too many"), ("__import__('os')", "one too many"), ("a[0] == 1", "no meaning"),
        ("a + 1 == 2", "no meaning"), ("a; b", "no meaning"), ("lambda: 1", "no meaning"), ("a.", "no meaning"),
        ("(" * 100 + "a" + ")" * 100, "nested deeper"), ("not " * 100 + "a", "nested deeper"),
        ("a == 1 or " * 200 + "a", "are the most"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_language_is_refused_with_the_place(text, why):
    with pytest.raises(WhereError, match=why) as caught:
        Where(text)
    assert isinstance(caught.value, ConfigError)
    assert caught.value.code == "bad_where"


def test_the_bounds_are_reached_and_not_passed():
    deep = MOST_DEPTH - 1
    assert Where("(" * deep + "size" + ")" * deep).fits(VALUES)
    wide = "size == 10 and " * 60 + "size == 10"
    assert len(wide) < MOST_CHARACTERS
    assert Where(wide).fits(VALUES)


def test_the_names_are_told_without_what_stands_behind_a_dot():
    assert Where("a == 1 and not (b.c.d or 'e' == f)").names == {"a", "b", "f"}


def test_arguments_have_the_names_of_the_task_and_their_places():
    assert named([7, "x"], {"size": 1}, ["order_id"]) == {"arg0": 7, "arg1": "x", "order_id": 7, "size": 1}
