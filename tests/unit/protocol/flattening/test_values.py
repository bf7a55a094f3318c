"""Values of Python: which arrive as what."""

from __future__ import annotations

import array
import enum
import math
import struct
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coding import Record, Structure, encode, refusal, sent
from support.measures import steps_of_python
from support.properties import PROPERTY

from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.maps import KEEPS_KEYS


@dataclass(frozen=True)
class Key:
    name: Any


Point = namedtuple("Point", "x y")  # noqa: PYI024 - an untyped one is to be sent, too


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Moment(datetime):
    """As libraries have their own."""


@pytest.mark.parametrize(
    "value, arrived",
    [
        (Record([Record(1)]), {"value": [{"value": 1}]}),
        (Structure({"a": Structure(1)}), {"value": {"a": {"value": 1}}}),
        (Record({Key("a")}), {"value": [{"name": "a"}]}),
        (Colour.RED, "red"),
        (Number.ONE, 1),
        ({Colour.RED: Number.ONE}, {"red": 1}),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({UUID(int=1): UUID(int=2)}, {str(UUID(int=1)): str(UUID(int=2))}),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), "NaN"),
        ({1}, [1]),
        (frozenset("a"), ["a"]),
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (bytearray(b"bytes"), b"bytes"),
        (memoryview(b"bytes"), b"bytes"),
        (memoryview(array.array("H", [1])), struct.pack("=H", 1)),
        (Record(bytearray(b"bytes")), {"value": b"bytes"}),
        (Record(memoryview(b"bytes")), {"value": b"bytes"}),
        (date(2020, 2, 29), "2020-02-29"),
        (timedelta(days=1), "P1D"),
        (datetime(2020, 1, 1), "2020-01-01T00:00:00"),  # noqa: DTZ001 - naive on purpose
        (Record(datetime(2020, 1, 1)), {"value": "2020-01-01T00:00:00"}),  # noqa: DTZ001
        (Moment(2020, 1, 1), "2020-01-01T00:00:00"),
        (Record(Moment(2020, 1, 1)), {"value": "2020-01-01T00:00:00"}),
        (-0.0, 0.0),
        (math.inf, math.inf),
        ({True: 2, -1: 3, None: 4, 1.5: 5, b"k": 6}, {True: 2, -1: 3, None: 4, 1.5: 5, b"k": 6}),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (True, True),
    ],
    ids=repr,
)
def test_values_of_python_arrive_as_what_messagepack_has_for_them(value: Any, arrived: Any) -> None:
    result = sent(value)
    assert result == arrived
    assert type(result) is type(arrived)


def test_a_dataclass_is_taken_apart_the_same_each_time_whatever_else_its_objects_hold() -> None:
    encoder, decoder = Encoder(), Decoder()
    plain, extended, short = Record(1), Record(2), Record(3)
    extended.extra = 5  # type: ignore[attr-defined]
    del short.value
    holder = Record(4)
    holder.fileno = lambda: 0  # type: ignore[attr-defined] # its class says that it is data

    for _ in range(2):
        assert [decoder.decode(encode(record, encoder), [])[0][3] for record in (plain, extended, short, holder)] == [
            {"value": 1},
            {"value": 2},
            {},
            {"value": 4},
        ]


def test_nan_arrives_as_nan() -> None:
    assert math.isnan(sent(math.nan))


@PROPERTY
@given(st.datetimes(timezones=st.timezones() | st.sampled_from([UTC, timezone(timedelta(hours=14))])))
def test_aware_datetimes_arrive_as_the_same_moment_or_are_not_sent(moment: datetime) -> None:
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        assert "a moment is before the year 1 or after 9999" in refusal(moment)
        return
    assert sent(moment) == utc
    assert sent(Record(moment)) == {"value": utc}


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)])
def test_the_first_and_the_last_moment_arrive(moment: datetime) -> None:
    assert sent({moment: moment}) == {moment: moment}


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=1))),
    ],
)
@pytest.mark.parametrize(
    "around, place",
    [
        (lambda m: m, "result"),
        (lambda m: [Record({m: m})], "result[0].value[{!r}]"),
        (lambda m: {(1, 2): m}, "result[(1, 2)]"),
    ],
    ids=["itself", "in a dataclass", "in a map"],
)
def test_a_moment_that_utc_has_no_year_for_is_not_sent(
    moment: datetime, around: Callable[[datetime], Any], place: str
) -> None:
    place = place.format(moment)[:200] + "…" * (len(place.format(moment)) > 200)
    assert refusal(around(moment)) == f"cannot send {place}: a moment is before the year 1 or after 9999, in UTC"


def test_bytes_that_look_like_a_far_moment_arrive() -> None:
    looks = b"\xc7\x0c\xff" + b"\x7f" * 12
    assert sent({(looks,): [looks]}) == {(looks,): [looks]}


def test_aware_datetimes_of_a_subclass_are_moments_too() -> None:
    moment = Moment(2020, 7, 1, 12, 30, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert sent([moment, Record(moment), {moment: 1}]) == [moment, {"value": moment}, {moment: 1}]


class Loose(msgspec.Struct):
    value: Any


def test_structs_of_a_great_many_values_are_not_looked_through_one_by_one() -> None:
    many = list(range(100_000))
    # More keys than may be interned are read one by one, and where they would be kept all are.
    texts = [str(number) for number in range(0 if KEEPS_KEYS else 50_000)]
    with steps_of_python() as steps:
        assert sent(Loose([many, dict.fromkeys(texts, "x")])) == {"value": [many, dict.fromkeys(texts, "x")]}
    assert steps[0] < 10_000


class Day(date):
    """Not only a date."""


class Clock(time):
    """Not only a time."""


@dataclass
class Sparse:
    a: int | msgspec.UnsetType = msgspec.UNSET
    b: int = 1


def test_what_is_unset_is_not_sent_and_subclasses_of_dates_are_dates() -> None:
    assert [sent(Sparse()), sent(Sparse(5)), sent([Sparse()])] == [{"b": 1}, {"a": 5, "b": 1}, [{"b": 1}]]
    assert [sent(Day(2026, 1, 2)), sent(Clock(3, 4))] == ["2026-01-02", "03:04:00"]
    assert sent(time(3, 4, tzinfo=timezone(timedelta(hours=5, minutes=30)))) == "03:04:00+05:30"
