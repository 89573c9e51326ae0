"""A task that returns what it was given: values that plain JSON would spoil."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from uuid import UUID

import msgspec

from streamwork import Streamwork

app = Streamwork(os.environ.get("STREAMWORK_TEST_NAMESPACE", "test-apps-values"))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


@dataclass
class Part:
    name: str
    made: date
    sizes: list[Size] = field(default_factory=list)


class Everything(msgspec.Struct):
    colour: Colour
    at: datetime
    key: UUID
    price: Decimal
    path: Path
    raw: bytes
    span: timedelta
    letters: set[str]
    pair: tuple[int, str]
    parts: list[Part]
    nothing: list[int]
    empty: dict[str, int]
    by_number: dict[int, str]
    perhaps: Part | None = None


HOSTILE = Everything(
    colour=Colour.BLUE,
    at=datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC),
    key=UUID("01234567-89ab-cdef-0123-456789abcdef"),
    price=Decimal("0.10"),
    path=Path("a b") / "ü",
    raw=b"\x00\xff\n",
    span=timedelta(days=1, microseconds=1),
    letters={"a", "ß"},
    pair=(-1, ""),
    parts=[Part("p", date(2024, 2, 29), [Size.LARGE]), Part("", date.min)],
    nothing=[],
    empty={},
    by_number={1: "one", -(2**63): "least"},
)


@app.task
async def echo(
    value: Everything, colour: Colour, part: Part, some: list[int], *, at: datetime
) -> tuple[Everything, Colour, Part, list[int], datetime]:
    return value, colour, part, some, at


@app.task
def echo_in_thread(value: Everything) -> Everything:
    return value


@app.task(executor="process")
def echo_in_process(value: Everything) -> Everything:
    return value
