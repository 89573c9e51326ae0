from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import pathlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Generic, Never, NoReturn, ParamSpec, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamwork.errors import ArgumentError, ConfigError, DecodeError, ResultTypeError, WireError
from streamwork.wire.signature import TaskSignature, pack_call

if TYPE_CHECKING:
    from nowhere import Hidden

P = ParamSpec("P")
R = TypeVar("R")
unpack = msgspec.msgpack.decode


class Context(Generic[R]):
    """What a runner would inject."""


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Opaque:
    """A class that nothing knows how to store."""


@dataclasses.dataclass
class Line:
    price: int


@dataclasses.dataclass
class Order:
    lines: list[Line]
    next: Later | None = None


@dataclasses.dataclass
class Later:
    day: dt.date


async def send_receipt(order_id: int, to: str) -> str: ...


def resize(path: pathlib.Path, width: int = 640, mode: Mode = Mode.FAST, note: list[str] = []) -> Order: ...  # noqa: B006


def gather(first: int, *rest: float, unit: str, scale: int = 1) -> None: ...


def anything(*args: int, **options: pathlib.Path) -> Any: ...


def only_names(*, a: int, b: dt.timedelta | None = None) -> None: ...


def loose(a, b=None): ...


def slashed(a: int, /, b: int = 2, **rest: str) -> None: ...


def observe(a: int, b: int = 2, *, c: int = 3, d: dt.date | None = None) -> tuple[object, ...]:
    return a, b, c, d


OBSERVE = TaskSignature(observe)  # one for all examples, so that remembered shapes are tried too


def call(signature: TaskSignature, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return signature.decode(*signature.encode(args, kwargs))


def by_name(signature: TaskSignature, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return signature.decode(*pack_call(args, kwargs))


class TestCalls:
    def test_positional_arguments_travel_as_one_array(self) -> None:
        signature = TaskSignature(send_receipt)
        for _ in range(3):  # first the checked way, then the short one
            assert signature.encode((7, "a@b.c"), {}) == (b"\x92\x07\xa5a@b.c", None)
            assert signature.decode(b"\x92\x07\xa5a@b.c") == ((7, "a@b.c"), {})

    def test_arguments_by_name_become_positional(self) -> None:
        signature = TaskSignature(send_receipt)
        plain = signature.encode((7, "x"), {})
        for _ in range(3):
            assert signature.encode((7,), {"to": "x"}) == plain
            assert signature.encode((), {"to": "x", "order_id": 7}) == plain

    def test_defaults_that_were_not_given_stay_out(self) -> None:
        assert call(TaskSignature(resize), pathlib.Path("a")) == ((pathlib.Path("a"),), {})
        assert call(TaskSignature(resize), path=pathlib.Path("a"), width=3) == ((pathlib.Path("a"), 3), {})

    def test_a_gap_is_filled_with_a_plain_default_only(self) -> None:
        signature = TaskSignature(resize)
        path = pathlib.Path("a")
        for _ in range(2):
            assert call(signature, path, mode=Mode.SLOW) == ((path, 640, Mode.SLOW), {})
            assert call(signature, path, note=["x"]) == ((path, 640, Mode.FAST, ["x"]), {})

        def shared(a: list[int] = [], b: int = None, c: int = 3, d: int = 4) -> None: ...  # type: ignore[assignment]  # noqa: B006, RUF013

        gapped = TaskSignature(shared)
        for _ in range(2):
            assert call(gapped, b=1) == ((), {"b": 1})
            assert call(gapped, [1], c=1) == (([1],), {"c": 1})
            assert call(gapped, [1], 2, d=1) == (([1], 2, 3, 1), {})

    def test_a_filled_gap_never_shifts_other_names(self) -> None:
        def body(a: int = 1, b: int = 2, *, k: int = 3) -> None: ...

        signature = TaskSignature(body)
        for _ in range(2):
            assert call(signature, b=5, k=6) == ((1, 5), {"k": 6})
            assert call(signature, k=6) == ((), {"k": 6})

    def test_any_number_of_positional_arguments(self) -> None:
        signature = TaskSignature(gather)
        for count in (0, 1, 14, 15, 300, 70_000):
            rest = tuple(float(i) for i in range(count))
            assert call(signature, 1, *rest, unit="m") == ((1, *rest), {"unit": "m"})
        many = TaskSignature(anything)
        for count in (0, 15, 16, 300):
            assert call(many, *range(count)) == (tuple(range(count)), {})
        assert call(many, 1, x=pathlib.Path("a")) == ((1,), {"x": pathlib.Path("a")})

    def test_more_than_fifteen_parameters(self) -> None:
        source = ", ".join(f"p{i}: int = {i}" for i in range(20))
        scope: dict[str, Any] = {}
        exec(f"def wide({source}): ...", scope)
        signature = TaskSignature(scope["wide"])
        for _ in range(2):
            assert call(signature, *range(18)) == (tuple(range(18)), {})
            assert call(signature, p19=7) == ((*range(19), 7), {})
        with pytest.raises(ArgumentError, match=r"^argument 'p17' of wide: expected int, got str$"):
            call(signature, *range(17), "x")

    def test_keyword_only_arguments_travel_as_a_map(self) -> None:
        signature = TaskSignature(only_names)
        for _ in range(3):
            assert signature.encode((), {"a": 1}) == (b"\x90", b"\x81\xa1a\x01")
            assert call(signature, a=1, b=dt.timedelta(1)) == ((), {"a": 1, "b": dt.timedelta(1)})
            assert call(signature, b=None, a=1) == ((), {"b": None, "a": 1})

    def test_unannotated_parameters_take_anything_plain(self) -> None:
        assert call(TaskSignature(loose), {"a": [1]}) == (({"a": [1]},), {})

    def test_a_name_may_be_reused_beside_a_positional_only_one(self) -> None:
        assert call(TaskSignature(slashed), 1, a="x") == ((1,), {"a": "x"})
        assert call(TaskSignature(slashed), 1, b=3, a="x") == ((1, 3), {"a": "x"})

    def test_bytes_and_raw_are_read_alike(self) -> None:
        signature = TaskSignature(only_names)
        packed = signature.encode((), {"a": 1})
        assert packed[1] is not None
        assert signature.decode(msgspec.Raw(packed[0]), msgspec.Raw(packed[1])) == ((), {"a": 1})
        assert TaskSignature(loose).decode(msgspec.Raw(b"\x91\x01"), msgspec.Raw(b"\xc0")) == ((1,), {})

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.data())
    def test_what_the_function_sees_does_not_depend_on_how_it_was_called(self, data: st.DataObject) -> None:
        optional = {"b": st.integers(0, 99), "c": st.integers(0, 9), "d": st.none() | st.dates()}
        chosen = data.draw(st.fixed_dictionaries({"a": st.integers(0, 9)}, optional=optional))
        first = [name for name in ("a", "b") if name in chosen][: data.draw(st.integers(0, 2))]
        args = [chosen[name] for name in first]
        kwargs = {name: chosen[name] for name in data.draw(st.permutations(list(chosen))) if name not in first}
        expected = observe(*args, **kwargs)
        for packed in (OBSERVE.encode(tuple(args), kwargs), pack_call(args, kwargs)):
            positional, named = OBSERVE.decode(*packed)
            assert observe(*positional, **named) == expected


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "args", "kwargs", "text"),
        [
            (
                send_receipt,
                (7,),
                {},
                "send_receipt() missing a required argument: 'to'; it takes (order_id: int, to: str)",
            ),
            (
                send_receipt,
                (7, "x", 1),
                {},
                "send_receipt() too many positional arguments; it takes (order_id: int, to: str)",
            ),
            (
                send_receipt,
                (7, "x"),
                {"cc": 1},
                "send_receipt() got an unexpected keyword argument 'cc'; it takes (order_id: int, to: str)",
            ),
            (
                send_receipt,
                (7,),
                {"order_id": 1},
                "send_receipt() multiple values for argument 'order_id'; it takes (order_id: int, to: str)",
            ),
            (send_receipt, ("7", "x"), {}, "argument 'order_id' of send_receipt: expected int, got str"),
            (send_receipt, (7, None), {}, "argument 'to' of send_receipt: expected str, got None"),
            (send_receipt, (), {"to": 1, "order_id": 1}, "argument 'to' of send_receipt: expected str, got int"),
            (
                resize,
                (1,),
                {},
                "argument 'path' of resize: expected str, got int",
            ),
            (resize, ("a", 1, "warp"), {}, "argument 'mode' of resize: invalid enum value 'warp'"),
            (gather, (1, 2.0, "x"), {"unit": "m"}, "argument 'rest[1]' of gather: expected float, got str"),
            (gather, (1, *range(20), "x"), {"unit": "m"}, "argument 'rest[20]' of gather: expected float, got str"),
            (gather, (1,), {"unit": 3}, "argument 'unit' of gather: expected str, got int"),
            (anything, (), {"x": 3}, "argument 'x' of anything: expected str, got int"),
            (
                send_receipt,
                (7, Opaque()),
                {},
                "argument 'to' of send_receipt: a value of class Opaque cannot be stored: use ",
            ),
            (
                loose,
                (),
                {"a": 2**64},
                "argument 'a' of loose: an integer beyond 64 bits cannot be stored: pass it as a str or a Decimal",
            ),
            (only_names, (), {"a": object}, "argument 'a' of only_names: a value of class type cannot be stored: use "),
        ],
    )
    def test_wrong_arguments_fail_at_the_caller(
        self, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], text: str
    ) -> None:
        signature = TaskSignature(body)
        for _ in range(2):
            with pytest.raises(ArgumentError) as caught:
                signature.encode(args, kwargs)
            assert str(caught.value).startswith(text)
            assert text.endswith("use ") or str(caught.value) == text

    def test_a_missing_keyword_is_named(self) -> None:
        with pytest.raises(
            ArgumentError, match=r"^only_names\(\) missing a required .*'a'; it takes \(\*, a: int, b: "
        ):
            TaskSignature(only_names).encode((), {})

    def test_the_place_inside_an_argument_is_named(self) -> None:
        def book(order: Order) -> None: ...

        with pytest.raises(ArgumentError, match=r"^argument 'order.lines\[1\].price' of book: expected int, got str$"):
            TaskSignature(book).encode(({"lines": [{"price": 1}, {"price": "x"}]},), {})

    def test_a_good_call_before_a_bad_one_changes_nothing(self) -> None:
        signature = TaskSignature(send_receipt)
        signature.encode((), {"order_id": 1, "to": "x"})
        with pytest.raises(ArgumentError, match=r"^argument 'order_id' of send_receipt: expected int, got str$"):
            signature.encode((), {"order_id": "1", "to": "x"})
        named = TaskSignature(only_names)
        call(named, a=1)
        with pytest.raises(ArgumentError, match=r"^argument 'a' of only_names: expected int, got str$"):
            by_name(named, a="1")
        with pytest.raises(ArgumentError, match="unexpected keyword argument 'z'"):
            by_name(named, a=1, z=1)

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [(b"", None), (b"\xc1", None), (b"\x92\x01", None), (b"\x80", None), (b"\x07", None), (b"\x90", b""),
         (b"\x90", b"\x07"), (b"\x90", b"\x81\x01\x01"), (b"\x90", b"\x81\xa1\xff\x01"), (b"\x91\xa1\xff", None)],
    )  # fmt: skip
    def test_foreign_bytes_raise_decode_error(self, args: bytes, kwargs: bytes | None) -> None:
        signature = TaskSignature(loose)
        for _ in range(2):
            with pytest.raises(DecodeError, match=r"^arguments of loose: "):
                signature.decode(args, kwargs)
            signature.decode(b"\x91\x01")


class TestByName:
    def test_parameters_by_name_are_read_by_their_own_types(self) -> None:
        signature = TaskSignature(resize)
        for _ in range(3):
            assert by_name(signature, path="a", mode="slow") == ((), {"path": pathlib.Path("a"), "mode": Mode.SLOW})
            assert by_name(signature, "a", note=["x"]) == ((pathlib.Path("a"),), {"note": ["x"]})

    def test_long_forms_of_the_array_header_are_understood(self) -> None:
        assert TaskSignature(send_receipt).decode(b"\xdc\x00\x02\x07\xa1x") == ((7, "x"), {})

    def test_what_does_not_fit_is_refused_by_the_worker(self) -> None:
        signature = TaskSignature(send_receipt)
        for args, kwargs in [((7, "x"), {}), ((7,), {"to": "x"}), ((), {"order_id": 7, "to": "x"})]:
            by_name(signature, *args, **kwargs)  # so that the short ways are open
        for args, kwargs, text in [
            ((7,), {}, "missing a required argument: 'to'"),
            ((7,), {"too": "x", "cc": 1}, "missing a required argument: 'to', and there is no 'too', 'cc'"),
            ((), {"to": "x"}, "missing a required argument: 'order_id'"),
            ((7, "x", 1), {}, "too many positional arguments"),
            ((7, "x"), {"cc": 1}, "got an unexpected keyword argument 'cc'"),
            ((7, "x"), {"to": "y"}, "multiple values for argument 'to'"),
            (("7", "x"), {}, "argument 'order_id' of send_receipt: expected int, got str"),
            ((7,), {"to": 1}, "argument 'to' of send_receipt: expected str, got int"),
        ]:
            with pytest.raises(ArgumentError) as caught:
                by_name(signature, *args, **kwargs)
            assert text in str(caught.value)

    def test_calls_without_a_signature(self) -> None:
        assert pack_call((1, "x"), {}) == (b"\x92\x01\xa1x", None)
        args, kwargs = pack_call([pathlib.Path("a")], {"n": {1}})
        assert (unpack(args), unpack(kwargs or b"")) == (["a"], {"n": [1]})
        with pytest.raises(WireError, match="Opaque cannot be stored"):
            pack_call((Opaque(),), {})

    def test_remembered_shapes_are_bounded(self) -> None:
        signature = TaskSignature(anything)
        for count in range(300):
            by_name(signature, *range(count))
            by_name(signature, **{f"n{count}": "x"})
        assert len(signature._shapes) <= 256
        spread = TaskSignature(gather)
        for count in range(300):
            call(spread, 1, *range(count), unit="m")
        assert len(spread._shapes) <= 256


class TestContext:
    def test_the_context_is_no_argument(self) -> None:
        def first(ctx: Context[int], a: int) -> None: ...
        def middle(a: int, ctx: Annotated[Context[int], "x"], b: int = 2) -> None: ...
        def last(a: int, ctx: Context[int] | None = None) -> None: ...
        def named(a: int, *, ctx: Context[Any]) -> None: ...
        def slash(a: int, ctx: Context[int], /, b: int = 2) -> None: ...
        def rest(a: int, ctx: Context[int], *more: int) -> None: ...

        for body in (first, middle, last, named, slash, rest):
            signature = TaskSignature(body, context_type=Context)
            assert signature.context_parameter == "ctx"
            assert call(signature, 1) == ((1,), {})
            with pytest.raises(ArgumentError, match="unexpected keyword argument 'ctx'"):
                signature.encode((1,), {"ctx": 1})

    def test_inject_puts_it_where_the_function_takes_it(self) -> None:
        token = Context[int]()
        seen: list[Any] = []

        def body(a: int = 1, ctx: Context[int] = None, b: int = 2, *more: int) -> None:  # type: ignore[assignment]
            seen.append((a, ctx, b, more))

        signature = TaskSignature(body, context_type=Context)
        for args, kwargs in [
            ((), {}),
            ((5,), {}),
            ((5, 6, 7, 8), {}),
            ((), {"b": 6}),
            ((5,), {"b": 6}),
            ((), {"a": 5}),
        ]:
            positional, named = signature.inject(*by_name(signature, *args, **kwargs), token)
            body(*positional, **named)
        assert seen == [
            (1, token, 2, ()),
            (5, token, 2, ()),
            (5, token, 6, (7, 8)),
            (1, token, 6, ()),
            (5, token, 6, ()),
            (5, token, 2, ()),
        ]
        only = TaskSignature(only_names, context_type=Context)
        assert only.inject((), {"a": 1}, token) == ((), {"a": 1})

        def by_keyword(*, ctx: Context[int], **rest: int) -> None: ...

        keyword = TaskSignature(by_keyword, context_type=Context)
        assert keyword.inject(*call(keyword, x=1), token) == ((), {"x": 1, "ctx": token})
        with pytest.raises(ArgumentError, match="unexpected keyword argument 'ctx'"):
            by_name(keyword, ctx=3)

    def test_a_subclass_of_the_context_is_injected_too(self) -> None:
        class Richer(Context[int]): ...

        def body(ctx: Richer) -> None: ...

        assert TaskSignature(body, context_type=Context, localns=locals()).context_parameter == "ctx"

    def test_ambiguous_contexts_are_refused(self) -> None:
        def two(a: Context[int], b: Context[int]) -> None: ...
        def starred(*ctx: Context[int]) -> None: ...
        def late(a: int = 1, ctx: Context[int] = None, /) -> None: ...  # type: ignore[assignment]

        for body, text in [
            (two, "two: only one parameter can take the Context, not a, b"),
            (starred, "starred: the Context needs a plain parameter, not *ctx"),
            (late, "late: the positional-only 'ctx' must come before parameters with defaults"),
        ]:
            with pytest.raises(ConfigError) as caught:
                TaskSignature(body, context_type=Context)
            assert str(caught.value) == text


class TestDeclaration:
    def test_names_defined_later_in_the_module_are_found(self) -> None:
        order = Order([Line(1)], Later(dt.date(2026, 1, 1)))

        def book(order: Order, when: Later) -> Order: ...

        signature = TaskSignature(book)
        assert call(signature, order, order.next) == ((order, order.next), {})
        assert signature.decode_result(signature.encode_result(order)) == order

    def test_unknown_names_say_what_to_do(self) -> None:
        class Local(msgspec.Struct):
            a: int

        def body(n: int, x: list[Local]) -> None: ...
        def hidden(x: Hidden) -> None: ...
        def result() -> Hidden: ...

        with pytest.raises(ConfigError) as caught:
            TaskSignature(body, "shop.body")
        assert str(caught.value) == (
            f"shop.body: the annotation of parameter 'x' names 'Local', which is not known in module {__name__}: "
            "import or define it at module level, neither inside a function nor under TYPE_CHECKING"
        )
        with pytest.raises(ConfigError, match=r"^hidden: the annotation of parameter 'x' names 'Hidden'"):
            TaskSignature(hidden)
        with pytest.raises(ConfigError, match=r"^result: the return annotation names 'Hidden'"):
            TaskSignature(result)
        assert call(TaskSignature(body, localns=locals()), 1, [Local(2)]) == ((1, [Local(2)]), {})

    def test_classes_that_cannot_be_stored_are_refused(self) -> None:
        def takes(a: int, x: Opaque) -> None: ...
        def returns() -> list[Opaque]: ...

        with pytest.raises(ConfigError, match=r"^parameter 'x' of takes: values of class Opaque cannot be stored: use"):
            TaskSignature(takes)
        with pytest.raises(ConfigError, match=r"^result of returns: values of class Opaque cannot be stored: use"):
            TaskSignature(returns)

    def test_kinds_of_functions(self) -> None:
        class Callable_:
            async def __call__(self, a: int) -> str: ...

        def steps() -> Iterator[int]:
            yield 1

        async def asteps() -> AsyncIterator[int]:
            yield 1

        assert TaskSignature(send_receipt).is_async
        assert not TaskSignature(resize).is_async
        assert TaskSignature(functools.partial(send_receipt, 7)).is_async
        assert call(TaskSignature(functools.partial(send_receipt, 7)), "x") == (("x",), {})
        instance = TaskSignature(Callable_())
        assert instance.is_async
        assert instance.name == "Callable_"
        assert call(instance, 1) == ((1,), {})
        for body in (steps, asteps):
            with pytest.raises(ConfigError, match="it is a generator; return a list instead"):
                TaskSignature(body)

    def test_decorated_functions_keep_their_types(self) -> None:
        def traced(body: Callable[P, R]) -> Callable[P, R]:
            @functools.wraps(body)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                return body(*args, **kwargs)

            return wrapper

        def bare(body: Callable[P, R]) -> Callable[P, R]:
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
                return body(*args, **kwargs)

            return wrapper

        signature = TaskSignature(traced(resize))
        assert signature.name == "resize"
        assert call(signature, pathlib.Path("a"), 3) == ((pathlib.Path("a"), 3), {})
        assert call(TaskSignature(bare(loose), "loose", localns={"P": P, "R": R}), 1, b="x") == ((1,), {"b": "x"})


class TestResults:
    @pytest.mark.parametrize(
        ("hint", "value", "again"),
        [
            (None, None, None),
            (int, 7, 7),
            (set[dt.date], {dt.date(2026, 1, 1)}, {dt.date(2026, 1, 1)}),
            (Any, {1}, [1]),
            (NoReturn, None, None),
            (Never, None, None),
            (Order | None, Order([Line(1)]), Order([Line(1)])),
        ],
    )
    def test_results_come_back_by_the_return_annotation(self, hint: Any, value: object, again: object) -> None:
        def body(): ...

        body.__annotations__["return"] = hint
        signature = TaskSignature(body)
        assert signature.decode_result(signature.encode_result(value)) == again

    def test_without_an_annotation_the_plain_form_comes_back(self) -> None:
        signature = TaskSignature(loose)
        assert signature.decode_result(signature.encode_result({"a": (1, 2)})) == {"a": [1, 2]}

    def test_bad_results_name_the_task(self) -> None:
        signature = TaskSignature(send_receipt, "shop.send_receipt")
        with pytest.raises(WireError, match=r"^result of shop.send_receipt: a value of class Opaque cannot be stored"):
            signature.encode_result([Opaque()])
        with pytest.raises(ResultTypeError, match=r"^result of shop.send_receipt: expected str, got int: correct the"):
            signature.encode_result(7)
        with pytest.raises(DecodeError, match=r"^result of shop.send_receipt: expected str, got int$"):
            signature.decode_result(b"\x07")

    @pytest.mark.parametrize(
        ("hint", "value", "text"),
        [
            (int, "7", "result of body: expected int, got str"),
            (int, True, "result of body: expected int, got bool"),
            (int, 7.0, "result of body: expected int, got float"),
            (str, None, "result of body: expected str, got None"),
            (None, 7, "result of body: expected null, got int"),
            (list, {"a": 1}, "result of body: expected array, got object"),
            (list[int], [1, "2"], r"result of body\[1\]: expected int, got str"),
            (Order | None, {"lines": [{}]}, r"result of body.lines\[0\]: object missing required field"),
        ],
        ids=repr,
    )
    def test_a_result_of_another_type_is_refused_where_it_is_made(self, hint: Any, value: object, text: str) -> None:
        def body(): ...

        body.__annotations__["return"] = hint
        with pytest.raises(ResultTypeError, match=f"^{text}"):
            TaskSignature(body).encode_result(value)

    @pytest.mark.parametrize(
        ("hint", "value"),
        [(float, 7), (list, [1, "2"]), (dict, {1: "a"}), (bool, True), (bytes, b"x"), (object, 7), (Any, {1})],
        ids=repr,
    )
    def test_a_result_that_fits_is_taken(self, hint: Any, value: object) -> None:
        def body(): ...

        body.__annotations__["return"] = hint
        assert TaskSignature(body).encode_result(value)


def test_pydantic_arguments_are_validated_at_the_caller() -> None:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is optional")

    class Mail(pydantic.BaseModel):
        to: str
        copies: set[int] = pydantic.Field(default_factory=set)

    def send(mail: Mail, more: list[Mail] | None = None) -> Mail: ...

    signature = TaskSignature(send, localns=locals())
    mail = Mail(to="x", copies={1})
    for _ in range(2):
        assert call(signature, mail, [mail]) == ((mail, [mail]), {})
        assert by_name(signature, mail={"to": "x", "copies": [1]}) == ((), {"mail": mail})
    assert signature.decode_result(signature.encode_result(mail)) == mail
    with pytest.raises(ArgumentError, match=r"^argument 'mail' of send: not a valid Mail: to: Field required$"):
        signature.encode(({"copies": []},), {})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type aliases are 3.12 syntax")
def test_type_aliases_of_the_language() -> None:
    scope: dict[str, Any] = {}
    exec("type Ids = list[int]\ndef body(ids: Ids) -> Ids: ...", scope)
    assert call(TaskSignature(scope["body"]), [1]) == (([1],), {})
