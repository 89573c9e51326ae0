from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import math
import pathlib
import subprocess
import sys
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamwork.errors import ConfigError, DecodeError, WireError
from streamwork.wire.codec import pack, unpacker

Item = TypeVar("Item")
UserId = NewType("UserId", int)
Small = Annotated[int, msgspec.Meta(ge=0, lt=10)]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Options(TypedDict, total=False):
    width: int
    path: pathlib.Path


class Box(msgspec.Struct, Generic[Item]):
    item: Item


@dataclasses.dataclass
class Node:
    value: int
    at: dt.datetime | None = None
    where: pathlib.Path | None = None
    next: Node | None = None


@dataclasses.dataclass
class Touchy:
    value: int

    def __post_init__(self) -> None:
        if self.value == 1:
            raise ValueError("One is refused")
        if self.value == 2:
            raise KeyError("two")


class Plain:
    """A class that nothing knows how to store."""


class Slug(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not the value"


def round_trip(hint: Any, value: object) -> Any:
    return unpacker(hint)(pack(value))


# A fixed alphabet: hypothesis takes two seconds to tabulate all of Unicode.
_texts = st.text("a\0\n\x7fé€\U0001f600", max_size=5)
# An aware datetime within a day of the calendar's ends has no UTC form.
_aware = st.datetimes(
    min_value=dt.datetime(1, 1, 3),  # noqa: DTZ001
    max_value=dt.datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
)
_paths = st.lists(st.text("abc.é ", min_size=1, max_size=5), max_size=4).map(lambda parts: pathlib.Path(*parts))
_nodes = st.recursive(
    st.builds(Node, st.integers(0, 9), st.none() | _aware, st.none() | _paths),
    lambda inner: st.builds(Node, st.integers(0, 9), next=inner),
    max_leaves=4,
)

STRATEGIES = [
    (int, st.integers(-(2**63), 2**64 - 1)),
    (float, st.floats(allow_nan=False)),
    (complex, st.complex_numbers(allow_nan=False)),
    (str, _texts),
    (bytes, st.binary()),
    (dt.datetime, st.datetimes()),
    (dt.datetime, _aware),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Right, st.sampled_from([Right.READ, Right.READ | Right.WRITE, Right(0)])),
    (pathlib.Path, _paths),
    (pathlib.PurePosixPath, _paths.map(pathlib.PurePosixPath)),
    (ipaddress.IPv4Address | ipaddress.IPv6Address, st.ip_addresses()),
    (set[int], st.sets(st.integers(0, 99))),
    (frozenset[str], st.frozensets(_texts)),
    (set[tuple[int, str]], st.sets(st.tuples(st.integers(0, 9), _texts))),
    (dict[int, list[bytes]], st.dictionaries(st.integers(0, 9), st.lists(st.binary(max_size=3), max_size=3))),
    (dict[pathlib.Path, Colour], st.dictionaries(_paths, st.sampled_from(Colour), max_size=3)),
    (list[pathlib.Path | None], st.lists(st.none() | _paths, max_size=3)),
    (pathlib.Path | int | None, st.none() | st.integers(0, 9) | _paths),
    (Node, _nodes),
    (Box[set[int]], st.builds(Box, st.sets(st.integers(0, 9)))),
    (Point, st.builds(Point, st.integers(0, 9), st.floats(allow_nan=False))),
]


@pytest.mark.parametrize(("hint", "values"), STRATEGIES, ids=lambda item: getattr(item, "__name__", str(item))[:40])
def test_typed_values_come_back_as_they_were(hint: Any, values: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=15, deadline=None, database=None)
    @given(values)
    def check(value: object) -> None:
        again = round_trip(hint, value)
        assert again == value
        assert type(again) is type(value)

    check()


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Any, None),
        (None, None),
        (object, [1, "a"]),
        (list, []),
        (set[int], set()),
        (dict[str, int], {}),
        (tuple[()], ()),
        (bytes, b""),
        (str, ""),
        (UserId, 7),
        (Small, 9),
        (Literal["a", 1], 1),
        (Options, {"width": 3, "path": pathlib.Path("x")}),
        (Options, {}),
        (int | str | None, "x"),
        (collections.abc.Sequence[int], [1]),
        (collections.abc.Mapping[str, int], {"a": 1}),
        (collections.abc.Iterable[int], [1, 2]),
        (Annotated[pathlib.Path | str, "note"], pathlib.Path("a")),
        (bytearray, bytearray(b"x")),
        (float, math.inf),
        (float, 1),
        (Slug, Slug("x")),
        (decimal.Decimal, decimal.Decimal("1E+400")),
    ],
    ids=repr,
)
def test_other_annotations_work(hint: Any, value: object) -> None:
    assert round_trip(hint, value) == value


def test_not_a_number_survives() -> None:
    assert math.isnan(round_trip(float, math.nan))
    assert round_trip(decimal.Decimal, decimal.Decimal("NaN")).is_nan()


def test_a_str_in_a_union_with_a_path_goes_to_the_first_member() -> None:
    assert round_trip(str | pathlib.Path, pathlib.Path("a")) == "a"
    assert round_trip(pathlib.Path | str, "a") == pathlib.Path("a")
    with pytest.raises(DecodeError, match=r"^value: expected Path \| str, got int$"):
        round_trip(pathlib.Path | str, 3)


def test_subclasses_of_scalars_are_stored_by_value() -> None:
    class Number(int):
        def __int__(self) -> int:
            return -1

    class Ratio(float):
        __slots__ = ()

    class Blob(bytes):
        __slots__ = ()

    assert round_trip(Any, [Slug("s"), Number(3), Ratio(0.5), Blob(b"b")]) == ["s", 3, 0.5, b"b"]


def test_unstorable_values_are_refused_with_the_remedy() -> None:
    loop: list[object] = []
    loop.append(loop)
    cases: list[tuple[object, str]] = [
        ([Plain()], "a value of class Plain cannot be stored: use built-in types, a dataclass"),
        ((i for i in ()), "a value of class generator cannot be stored"),
        (2**64, "an integer beyond 64 bits cannot be stored: pass it as a str or a Decimal"),
        ({"deep": [-(2**63) - 1]}, "an integer beyond 64 bits"),
        ("\ud800", "lone surrogates"),
        (loop, "contains itself"),
        (dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5))), "class datetime cannot be stored"),
    ]
    for value, text in cases:
        with pytest.raises(WireError) as caught:
            pack(value)
        assert text in str(caught.value)
        assert type(caught.value) is WireError


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (int, "7", "value: expected int, got str"),
        (str, b"x", "value: expected str, got bytes"),
        (bool, 1, "value: expected bool, got int"),
        (int, True, "value: expected int, got bool"),
        (Small, 10, "value: expected int <= 9"),
        (Colour, "green", "value: invalid enum value 'green'"),
        (pathlib.Path, 3, "value: expected str, got int"),
        (pathlib.Path, [], "value: expected str, got array"),
        (Node, {"value": 1, "next": {"value": "x"}}, "value.next.value: expected int, got str"),
        (Node, {}, "value: object missing required field 'value'"),
        (dict[int, int], {"a": 1}, "value: expected int, got str (as a key)"),
        (list[Touchy], [{"value": 1}], "value[0]: One is refused"),
        (list[Touchy], [{"value": 2}], "value: KeyError: 'two'"),
    ],
)
def test_reading_is_strict_and_names_the_field(hint: Any, value: object, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        round_trip(hint, value)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x92\x01", b"\x01\x01", b"\xa1\xff", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff"]
)
def test_malformed_bytes_raise_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        unpacker(Any)(data)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (Plain, "x: values of class Plain cannot be stored: use built-in types"),
        (list[dict[str, Plain]], "x: values of class Plain cannot be stored"),
        (Box[Plain], "x: values of class Plain cannot be stored"),
        (collections.abc.Callable[[], int], "x: values of class Callable cannot be stored"),
        (
            list[int] | set[int],
            "x: its annotation cannot be used: Type unions may not contain more than one array-like",
        ),
        (pathlib.Path | Plain, "x: in the union: values of class Plain cannot be stored"),
        (enum.Enum("Mixed", {"A": 1, "B": "x"}), "x: its annotation cannot be used: Enums must contain either"),
        ("Unresolved", "x: its annotation cannot be used"),
    ],
)
def test_unusable_annotations_are_refused_when_declared(hint: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        unpacker(hint, "x")
    assert str(caught.value).startswith(text)


def test_self_referring_types_are_checked_without_end() -> None:
    assert round_trip(Node, Node(1, next=Node(2))) == Node(1, next=Node(2))


def test_pydantic_is_not_imported_by_the_codec() -> None:
    code = "import sys, streamwork.wire.signature; sys.exit('pydantic' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=pathlib.Path(__file__).parents[2]).returncode == 0
    )


class TestPydantic:
    def test_models_come_back_as_models(self) -> None:
        pydantic = pytest.importorskip("pydantic", reason="pydantic is optional")

        class Line(pydantic.BaseModel):
            price: decimal.Decimal
            seen: set[dt.datetime] = pydantic.Field(default_factory=set)

        class Order(pydantic.BaseModel):
            model_config = pydantic.ConfigDict(extra="forbid")
            id: int = pydantic.Field(alias="orderId")
            lines: list[Line]
            path: pathlib.Path
            raw: bytes = b"\xff"
            link: pydantic.HttpUrl | None = None

            @pydantic.computed_field
            def total(self) -> int:
                return len(self.lines)

        line = Line(price=decimal.Decimal("1.5"), seen={dt.datetime(2026, 1, 1)})  # noqa: DTZ001
        order = Order(orderId=7, lines=[line], path="a/b", link="https://a.b/c")
        assert round_trip(Order, order) == order
        assert round_trip(Order | None, None) is None
        assert round_trip(dict[str, list[Order]], {"a": [order]}) == {"a": [order]}
        with pytest.raises(DecodeError, match=r"^value\[0\]: not a valid Line: price: Field required$"):
            round_trip(list[Line], [{}])
        with pytest.raises(WireError, match="SecretStr cannot be stored"):
            pack(pydantic.SecretStr("x"))
