"""Routes: the first rule that fits says where a call goes, unless its caller does; a wrong one says which and why."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from streamwork import Context, RouteError, Streamwork
from streamwork.errors import ConfigError


@pytest.fixture
def app():
    app = Streamwork("routes")

    @app.task(name="shop.mail.receipt", tags={"backend"}, priority=3)
    async def receipt(order: int, to: str = "nobody@example.com", *more: str, **rest: int) -> None: ...

    @app.task(name="shop.resize", queue="images")
    def resize(ctx: Context, path: Path, at: datetime | None = None) -> None: ...

    return app


def place(call):
    return call.queue, call.lane


def test_without_a_rule_a_call_goes_where_its_task_says(app):
    assert place(app.call("shop.mail.receipt", 1)) == ("default", "1:backend")
    assert app.routes == ()


def test_the_first_rule_that_fits_counts(app):
    app.route("shop.pay.*", queue="no")
    app.route("shop.mail.*", queue="first", tags={"b", "a"}, priority=9)
    app.route("*", queue="second")
    assert place(app.call("shop.mail.receipt", 1)) == ("first", "3:a,b")
    assert place(app.call("shop.resize", "a.png")) == ("second", "1:")
    assert place(app.call("elsewhere", 1)) == ("second", "1:")
    assert app.queues == ["default", "first", "images", "no", "second"]


def test_what_the_caller_says_stays_and_what_the_task_says_does_not(app):
    app.route("*", queue="other", tags=(), priority=9)
    receipt = app.tasks["shop.mail.receipt"]
    assert place(receipt.call(1)) == ("other", "3:")
    assert place(receipt.options(queue="mine").call(1)) == ("mine", "3:")
    assert place(receipt.options(tags={"x"}).options(priority=0).call(1)) == ("other", "0:x")
    assert place(receipt.options(timeout=5).call(1)) == ("other", "3:")
    assert place(app.call_elsewhere("elsewhere", (), {}, priority=4)) == ("other", "1:")


@pytest.mark.parametrize(("base", "boost", "level"), [(3, 2, 1), (3, 9, 3), (5, -9, 0), (8, 1, 3), (2, 1, 1)])
def test_a_boost_is_added_and_kept_between_0_and_9(app, base, boost, level):
    @app.task(name="one", priority=base)
    def one() -> None: ...

    app.route("one", boost=boost)
    assert one.call().lane == f"{level}:"


def test_the_text_urgent_is_boosted_to_critical(app):
    app.route(where={"*": r"(?i)\burgent\b"}, priority=9)
    receipt = app.tasks["shop.mail.receipt"]
    assert receipt.call(1, "URGENT please").lane == "3:backend"
    assert receipt.call(1, "a", "b", "urgent").lane == "1:backend"  # a tuple is no text
    assert receipt.call(1, "insurgents").lane == "1:backend"


def test_conditions_look_at_the_name_and_at_arguments_however_they_are_given(app):
    app.route(match=r"\.mail\.", where={"to": r"@vip\."}, queue="vip")
    app.route(where={"order": r"^7\d$"}, queue="seventies")
    receipt = app.tasks["shop.mail.receipt"]
    assert receipt.call(1, "a@vip.com").queue == receipt.call(to="a@vip.com", order=1).queue == "vip"
    assert receipt.call(71).queue == "seventies"
    assert receipt.call(710).queue == "default"
    assert app.call("shop.resize", "a@vip.png").queue == "images"
    assert app.call_elsewhere("x.mail.y", (), {"to": "a@vip.com"}).queue == "default"  # no names are known there


def test_predicates_get_the_arguments_they_name_typed_and_with_defaults(app):
    seen = []

    @app.route("shop.*", queue="big")
    def big(path, at):
        seen.append((path, at))
        return path.suffix == ".tiff"

    app.route(
        when=lambda order, deep=0, **all_: seen.append((order, deep, all_)) or deep == 3, name="deep", queue="deep"
    )
    resize, receipt = app.tasks["shop.resize"], app.tasks["shop.mail.receipt"]
    assert (resize.call("a.tiff").queue, resize.call(Path("a.png"), "2026-01-01T00:00:00Z").queue) == ("big", "images")
    assert seen[0] == (Path("a.tiff"), None)
    assert seen[1][1].year == 2026
    assert receipt.call(1, deep=3).queue == "deep"
    assert seen[-1] == (1, 3, {"to": "nobody@example.com", "more": ()})
    assert big(Path("a.tiff"), None)  # it is still a function
    assert [route.name for route in app.routes] == ["big", "deep"]


def test_a_predicate_that_raises_is_a_typed_error_that_names_it_and_nothing_is_sent(app):
    @app.route("shop.mail.*", queue="x")
    def broken(order):
        raise KeyError(order)

    with app.inline() as sent:
        with pytest.raises(RouteError, match="route 'broken' raises KeyError: 7; nothing was sent"):
            app.tasks["shop.mail.receipt"].enqueue(7)
        with pytest.raises(RouteError):
            app.enqueue_many([app.tasks["shop.mail.receipt"].call(8)])
        assert sent.sent == []


def test_it_is_explained_which_rule_fits_and_why_the_others_do_not(app):
    app.route("shop.pay.*", name="pay", queue="pay")
    app.route(match="^mail", name="named", queue="x")
    app.route(where={"width": "1"}, name="width", queue="x")
    app.route(where={"to": "vip"}, name="vip", queue="x")
    app.route(where={"*": "vip"}, name="any", queue="x")
    app.route(when=lambda path: True, name="path", queue="x")
    app.route(when=lambda to: False, name="never", queue="x")
    app.route("shop.*", name="shop", queue="shop", boost=4)
    app.route("*", name="rest", queue="rest")
    receipt = app.tasks["shop.mail.receipt"].options(priority=6)
    placed = app.rules.explain(receipt.asked(receipt.signature.encode((1,), {})))
    assert (placed.queue, placed.tags, placed.priority) == ("shop", {"backend"}, 6)
    assert (placed.route, placed.kept) == ("shop", ("priority",))
    assert [(each.route.name, each.outcome, each.why) for each in placed.tried] == [
        ("pay", "not matched", "the name is not like shop.pay.*"),
        ("named", "not matched", "^mail is not found in the name"),
        ("width", "not matched", "there is no argument 'width'"),
        ("vip", "not matched", "vip is not found in to"),
        ("any", "not matched", "vip is not found in any text"),
        ("path", "not matched", "its predicate asks for 'path', and there is no such argument"),
        ("never", "not matched", "its predicate says no"),
        ("shop", "matched", ""),
        ("rest", "not asked", "shop came first"),
    ]


def test_rules_are_data(app):
    def vip(to):
        return True

    app.route("shop.*", where={"to": "x"}, when=vip, tags={"b", "a"}, boost=-1, name="all")
    (route,) = app.routes
    assert route.facts() == {
        "name": "all", "task": "shop.*", "match": None, "where": {"to": "x"}, "queue": None, "tags": ("a", "b"),
        "when": "test_rules_are_data.<locals>.vip", "priority": None, "boost": -1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("glob", "rule", "said"),
    [
        ("*", {}, "changes nothing"),
        ("", {"queue": "q"}, "task="),
        (7, {"queue": "q"}, "task="),
        ("*", {"queue": "a b"}, "queue"),
        ("*", {"tags": "gpu"}, "tags="),
        ("*", {"tags": {"a b"}}, "tag"),
        ("*", {"priority": 10}, "priority"),
        ("*", {"priority": True}, "priority"),
        ("*", {"boost": 10}, "boost"),
        ("*", {"boost": 1.5}, "boost"),
        ("*", {"boost": 1, "priority": 1}, "priority and boost"),
        ("*", {"queue": "q", "match": "("}, "match="),
        ("*", {"queue": "q", "match": 7}, "match="),
        ("*", {"queue": "q", "where": {"to": "["}}, r"where\['to'\]"),
        ("*", {"queue": "q", "where": "to"}, "where="),
        ("*", {"queue": "q", "when": "yes"}, "when="),
        ("*", {"queue": "q", "name": ""}, "name="),
    ],
)
def test_a_rule_that_is_wrong_is_refused_by_name_and_field(app, glob, rule, said):
    with pytest.raises(ConfigError, match=f"route .*{said}"):
        app.route(glob, **rule)
    assert app.routes == ()


def test_names_are_unique_and_a_predicate_is_given_once(app):
    one = app.route("*", queue="q", name="one")
    with pytest.raises(ConfigError, match="two routes are named 'one'"):
        app.route("*", queue="q", name="one")
    other = app.route("a", queue="q")

    def one_(to):
        return True

    one_.__name__ = "one"
    with pytest.raises(ConfigError, match="two routes are named 'one'"):
        other(one_)
    one(one_)
    with pytest.raises(ConfigError, match="has a predicate already"):
        one(one_)

    async def never(to):
        return False

    with pytest.raises(ConfigError, match="a coroutine is always true"):
        other(never)
    assert [route.name for route in app.routes] == ["one", "route-2"]
