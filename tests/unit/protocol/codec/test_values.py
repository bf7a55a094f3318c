"""Values of Python: which arrive as what, and how it is told which cannot be sent."""

from __future__ import annotations

import array
import enum
import math
import struct
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.codec import NAMES, Record, Structure, borrowed, decode_malformed, encode, nested, refusal, sent
from support.descriptors import Lender
from support.measures import steps_of_python
from support.properties import PROPERTY

from seqrpc.errors import LocalProtocolError, TooLarge
from seqrpc.limits import MAX_VALUES_SEARCHED, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.maps import KEEPS_KEYS

Point = namedtuple("Point", "x y")  # noqa: PYI024 - an untyped one is to be sent, too


@dataclass(frozen=True)
class Key:
    name: Any


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Moment(datetime):
    """As libraries have their own."""


class Unhelpful:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} today")


class UnhelpfulMapping(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items today")


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
    codec = Codec()
    plain, extended, short = Record(1), Record(2), Record(3)
    extended.extra = 5  # type: ignore[attr-defined]
    del short.value
    holder = Record(4)
    holder.fileno = lambda: 0  # type: ignore[attr-defined]

    for _ in range(2):
        assert [codec.decode(encode(record, codec), [])[0][3] for record in (plain, extended, short)] == [
            {"value": 1},
            {"value": 2},
            {},
        ]
        lenders: list[Any] = list(codec.encode((1, 1, None, holder))[1])
        assert lenders == [holder]


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


def timestamp(seconds: int, nanoseconds: int = 0) -> bytes:
    return b"\x91\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds)


def test_4_timestamps_of_all_three_lengths_are_read() -> None:
    moment = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    for data in (b"\x91\xd6\xff\0\0\0\1", b"\x91\xd7\xff\0\0\0\0\0\0\0\1", timestamp(1), timestamp(1, 999)):
        assert Codec().decode(data, []) == ([moment], None)


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 253_402_300_800, -62_135_596_801, 10**15])
def test_4_timestamps_out_of_datetimes_range_are_malformed(seconds: int) -> None:
    assert decode_malformed(timestamp(seconds))


def test_4_timestamps_with_a_thousand_million_nanoseconds_are_malformed() -> None:
    assert "nanoseconds" in decode_malformed(timestamp(0, 10**9))


@pytest.mark.parametrize(
    "value, reason",
    [
        (2**64, "cannot send result: integers have at most 64 bits, this one has 65"),
        (-(2**63) - 1, "cannot send result: integers have at most 64 bits, this one has 64"),
        ([1, {"a": (0, 2**64)}], "cannot send result[1]['a'][1]: integers have at most 64 bits, this one has 65"),
        ({2**64: 1}, "cannot send result's key 18446744073709551616: integers have at most 64 bits"),
        (Record(2**64), "cannot send result.value: integers have at most 64 bits, this one has 65"),
        (object(), "cannot send result: a value of type object cannot be sent"),
        (
            {"a": [Lender(), Record(object())]},
            "cannot send result['a'][1].value: a value of type object cannot be sent",
        ),
        ([[1], {2: ()}, object()], "cannot send result[2]: a value of type object cannot be sent"),
        (1j, "cannot send result: a value of type complex cannot be sent"),
        ("\udcff", "cannot send result: 'utf-8' codec can't encode character"),
        (Record("\udcff"), "cannot send result.value: 'utf-8' codec can't encode character"),
        ({"\udcff": 1}, "cannot send result's key '\\udcff': 'utf-8' codec can't encode character"),
        (memoryview(bytes(9))[::2], "cannot send result: memoryview: underlying buffer is not C-contiguous"),
        (Unhelpful(), "cannot send result: no fileno today"),
        ([Record(Unhelpful())], "cannot send result[0].value: no fileno today"),
        (UnhelpfulMapping(a=1), "cannot send: no items today"),
        ({"x" * 5000: 2**64}, f"cannot send result['{'x' * 192}…: integers"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_sent_is_named(value: Any, reason: str) -> None:
    codec = Codec()
    assert refusal(value, codec).startswith(reason)
    assert encode(1, codec) == b"\x94\x01\x01\xc0\x01", "what failed left something behind"


def test_what_cannot_be_sent_is_told_without_its_place_if_that_would_take_long() -> None:
    told = refusal([*[0] * 100_000, 2**64])
    assert told == "cannot send: Integer value out of range (it is not among the first 16384 values)"


def test_what_cannot_be_sent_is_told_without_names_too() -> None:
    with pytest.raises(LocalProtocolError, match=r"^cannot send: a value of type object cannot be sent$"):
        Codec().encode((3, object()))


def test_an_exception_without_a_text_is_told_by_its_class() -> None:
    class Silent:
        @property
        def fileno(self) -> int:
            raise RuntimeError

    class SilentMapping(dict[str, int]):
        def items(self) -> Any:
            raise KeyError

    assert refusal(Silent()) == "cannot send result: RuntimeError"
    assert refusal(SilentMapping(a=1)) == "cannot send: KeyError"


def test_values_nested_as_deeply_as_allowed_arrive_and_deeper_ones_are_not_sent() -> None:
    assert sent(nested(63)) == nested(63)
    for depth in (64, 500, 600, 100_000):
        assert "nested" in refusal(nested(depth))


def test_a_bound_beyond_what_msgpack_packs_is_told_too() -> None:
    codec = Codec(Limits(max_depth=3_000))
    assert codec.decode(encode(nested(300), codec), [])[0][3] == nested(300)
    assert "nested too deeply" in refusal(nested(2_000), codec)


@pytest.mark.parametrize("depth", [70, 3_000])
def test_deep_dataclasses_are_not_sent(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = Record(value)
    assert refusal(value)


def test_what_holds_itself_is_not_sent() -> None:
    in_list: list[Any] = [1, 2]
    in_list.append(in_list)
    in_dict: dict[str, Any] = {}
    in_dict["me"] = in_dict
    in_record = Record(None)
    in_record.value = [in_record]

    assert refusal(in_list).endswith(": it is nested too deeply, or holds itself")
    assert refusal(in_dict).endswith(": it is nested too deeply, or holds itself")
    assert refusal(in_record)


def test_a_value_is_explained_also_when_the_stack_is_nearly_full() -> None:
    codec = Codec(Limits(max_depth=500))
    value: Any = object()
    for _ in range(400):
        value = [value]

    def far_down(levels: int) -> str:
        return far_down(levels - 1) if levels else refusal(value, codec)

    assert far_down(550).startswith("cannot send")


@pytest.mark.parametrize(
    "value, arrived",
    [
        ({(1, (2, 3)): "v"}, {(1, (2, 3)): "v"}),
        ({(): {}}, {(): {}}),
        ({frozenset([1]): 2}, {(1,): 2}),
        (Record({(1, 2): 3}), {"value": {(1, 2): 3}}),
        ({Key("a"): 1}, {("name", "a"): 1}),
        ({Key(Key((1, 2))): 1}, {("name", ("name", (1, 2))): 1}),
        ([{(1,): {(2,): [{(3,): 4}]}}, {5: 6}], [{(1,): {(2,): [{(3,): 4}]}}, {5: 6}]),
    ],
    ids=repr,
)
def test_arrays_and_maps_as_keys_arrive_as_tuples(value: Any, arrived: Any) -> None:
    assert sent(value) == arrived


def test_descriptors_beside_and_in_such_keys_arrive() -> None:
    lender = Lender()
    data, lenders = Codec().encode((1, 1, None, {(1, lender): [Lender()]}), NAMES)

    message, problem = Codec().decode(bytes(data), borrowed(lenders))

    assert problem is None
    assert message[3] == {(1, lender): [lenders[1]]}


def test_2_3_many_such_keys_are_too_large_for_their_hashes_can_be_made_to_collide() -> None:
    def packet(number: int) -> bytes:
        return (
            b"\xde" + number.to_bytes(2, "big") + b"".join(b"\x91" + msgpack.packb(i) + b"\xc0" for i in range(number))
        )

    assert Codec().decode(packet(1_024), [])[0] == {(number,): None for number in range(1_024)}
    with pytest.raises(TooLarge, match="at most 1024 keys"):
        Codec().decode(packet(1_025), [])
    many = dict.fromkeys(range(1_000))
    assert sent([{(1,): 2}, many]) == [{(1,): 2}, many]


def test_a_few_scalars_are_encoded_one_after_the_other() -> None:
    codec = Codec()
    for values_ in ([], [1], [1, "a", None, True, 1.5, b"x"], list(range(15)), list(range(16)), ["text"] * 256):
        assert codec.encode_run(values_) == b"".join(msgpack.packb(value) for value in values_)
        assert codec.array_header(len(values_)) + codec.encode_run(values_) == codec.encode(values_)[0]
    for bad in (2**64, "\udcff"):
        with pytest.raises((OverflowError, UnicodeEncodeError)):
            codec.encode_run([1, bad, 2])
        assert codec.encode_run([1, 2]) == b"\x01\x02", "what failed left something behind"


def test_of_what_cannot_be_sent_the_place_is_told_if_it_is_not_far_behind() -> None:
    many = [1] * MAX_VALUES_SEARCHED
    assert refusal([*many[:100], object()]) == "cannot send result[100]: a value of type object cannot be sent"
    for value in ([many, object()], {"a": dict.fromkeys(range(MAX_VALUES_SEARCHED)), "b": object()}):
        with steps_of_python() as steps:
            assert refusal(value).startswith("cannot send: a value of type object cannot be sent")
        assert steps[0] < 40 * MAX_VALUES_SEARCHED
    many *= 100
    with steps_of_python() as steps:
        assert "cannot be sent" in refusal([many, object()])
    assert steps[0] < 40 * MAX_VALUES_SEARCHED


def test_the_place_of_what_cannot_be_sent_is_told_shortly() -> None:
    text = refusal({"k" * 1_000_000: [1, object()]})
    assert text.startswith("cannot send result['kkkkk")
    assert len(text) < 300


class Loose(msgspec.Struct):
    value: Any


def test_structs_of_a_great_many_values_are_not_looked_through_one_by_one() -> None:
    many = list(range(100_000))
    # More keys than may be interned are read one by one, and where they would be kept all are.
    texts = [str(number) for number in range(0 if KEEPS_KEYS else 50_000)]
    with steps_of_python() as steps:
        assert sent(Loose([many, dict.fromkeys(texts, "x")])) == {"value": [many, dict.fromkeys(texts, "x")]}
    assert steps[0] < 10_000
