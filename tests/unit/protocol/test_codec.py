from __future__ import annotations

import array
import enum
import gc
import io
import math
import mmap
import os
import random
import socket
import struct
import tempfile
import time
import tracemalloc
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgpack
import msgspec
import pytest
from helpers import (
    PROPERTY,
    Lender,
    address_space_used_up,
    duplicates,
    memory_file,
    owned,
    peak_bytes,
    scalars,
    steps_of_python,
    values,
    write_only,
)
from hypothesis import given
from hypothesis import strategies as st

from seqrpc.errors import LocalProtocolError, Overloaded, RemoteProtocolError, RpcError, TooLarge
from seqrpc.kernel import memfd
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, ValueFd, close_all
from seqrpc.kernel.memfd import Pieces
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, MAX_VALUES_SEARCHED, Limits
from seqrpc.protocol.codec import (
    Codec,
    tell_sent,
    tell_unsent,
    unpack_plain,
)
from seqrpc.protocol.maps import KEEPS_KEYS
from seqrpc.protocol.pieces import EXT_TAKEN
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM, Export, Handle

NAMES = ("kind", "id", "error", "result")

Point = namedtuple("Point", "x y")  # noqa: PYI024 - an untyped one is to be sent, too


@dataclass
class Record:
    value: Any


@dataclass(frozen=True)
class Key:
    name: Any


class Structure(msgspec.Struct):
    value: Any


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


def encode(value: Any, codec: Codec | None = None) -> bytes | memoryview:
    data, lenders = (codec or Codec()).encode((1, 1, None, value), NAMES)
    assert lenders == []
    return data


def sent(value: Any) -> Any:
    """Return what arrives of a value without descriptors."""
    message, problem = Codec().decode(encode(value), [])
    assert problem is None
    return message[3]


def refusal(value: Any, codec: Codec | None = None) -> str:
    """Return the reason for which a value is not sent."""
    with pytest.raises(LocalProtocolError) as caught:
        encode(value, codec)
    return str(caught.value)


def decode_malformed(data: bytes, codec: Codec | None = None) -> str:
    """Return the reason for which a packet is malformed."""
    with pytest.raises(RemoteProtocolError, match=rf"^malformed packet of {len(data)} bytes: ") as caught:
        (codec or Codec()).decode(data, [])
    return str(caught.value).partition("bytes: ")[2]


def borrowed(lenders: Any) -> list[OwnedFd]:
    """Return lenders in the place of the descriptors that would arrive: the codec only points at them."""
    return cast("list[OwnedFd]", list(lenders))


@PROPERTY
@given(values())
def test_plain_values_arrive_as_they_were_sent(value: Any) -> None:
    assert sent(value) == value


@PROPERTY
@given(values(scalars() | st.builds(Lender)))
def test_values_with_descriptors_at_any_depth_arrive_as_they_were_sent(value: Any) -> None:
    codec = Codec()
    data, lenders = codec.encode((1, 1, None, value), NAMES)

    message, problem = codec.decode(data, borrowed(lenders))

    assert problem is None
    assert message == [1, 1, None, value]  # lenders equal nothing but themselves


@PROPERTY
@given(st.binary(max_size=200), st.integers(0, 3))
def test_1_5_any_bytes_are_a_value_or_malformed(data: bytes, descriptors: int) -> None:
    codec = Codec()
    fds = borrowed(Lender() for _ in range(descriptors))
    try:
        value, problem = codec.decode(data, fds)
    except RemoteProtocolError:
        return
    if problem is None:  # what was taken can be handed on
        again, lenders = codec.encode((value,))
        assert {id(lender) for lender in lenders} <= {id(fd) for fd in fds}
        assert codec.encode((codec.decode(again, borrowed(lenders))[0][0],))[0] == again


@PROPERTY
@given(values(), st.data())
def test_1_5_a_changed_packet_is_a_value_or_malformed(value: Any, data: st.DataObject) -> None:
    packet = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(packet) - 1))
        packet[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        packet = packet or bytearray(1)
    reason = ""
    try:
        Codec().decode(bytes(packet), [])
    except RemoteProtocolError as exc:
        reason = str(exc)
    assert len(reason) < 500


@PROPERTY
@given(values(), st.binary(min_size=1, max_size=5))
def test_1_1_bytes_after_the_value_are_malformed(value: Any, rest: bytes) -> None:
    assert decode_malformed(bytes(encode(value)) + rest)


@PROPERTY
@given(values(), st.data())
def test_1_1_a_cut_value_is_malformed(value: Any, data: st.DataObject) -> None:
    packet = bytes(encode(value))
    assert decode_malformed(packet[: data.draw(st.integers(0, len(packet) - 1))])


def test_1_3_an_empty_packet_is_no_message() -> None:
    assert "incomplete" in decode_malformed(b"")


@pytest.mark.parametrize("data", [b"\xc1", b"\x91\xc1", b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xc7\x05\xff12345"])
def test_1_1_what_is_no_messagepack_is_malformed(data: bytes) -> None:
    assert decode_malformed(data)


def test_1_2_a_message_of_exactly_the_largest_size_passes() -> None:
    text = "x" * (MAX_PACKET - 7)
    data = encode(text)
    assert len(data) == MAX_PACKET
    assert Codec().decode(data, []) == ([1, 1, None, text], None)


def test_1_2_a_message_longer_than_a_packet_is_a_memoryview_and_decodes_as_one() -> None:
    codec = Codec()
    for text in ("x" * (MAX_PACKET - 6), "y" * 1_000_000):
        data = encode(text, codec)
        assert isinstance(data, memoryview)
        assert codec.decode(data, []) == ([1, 1, None, text], None)
        assert codec.decode(bytes(data), []) == ([1, 1, None, text], None)
    assert isinstance(encode("x" * (MAX_PACKET - 7), codec), bytes)


def test_a_long_message_stays_as_it_is_when_the_next_is_encoded() -> None:
    codec = Codec()
    first, second = encode("x" * 100_000, codec), encode("y" * 100_000, codec)
    assert codec.decode(first, [])[0][3] == "x" * 100_000
    assert codec.decode(second, [])[0][3] == "y" * 100_000


def test_a_message_beyond_max_message_bytes_is_not_sent() -> None:
    codec = Codec(Limits(max_message_bytes=100_000))
    assert len(encode(b"x" * (100_000 - 9), codec)) == 100_000
    with pytest.raises(TooLarge, match=r"at most 100000 bytes \(max_message_bytes\), this one 100001"):
        encode(b"x" * (100_000 - 8), codec)


def test_long_bytes_among_the_arguments_are_not_copied_and_the_message_is_the_same() -> None:
    codec, arguments = Codec(), (1, bytes(10_000_000), {"a": [Lender()]})
    message = (0, 7, "m", arguments)
    packed, lenders = codec.encode_in_pieces(message)
    assert isinstance(packed, Pieces)
    assert any(part is arguments[1] for part in packed.parts)
    plain, same = codec.encode(message)
    assert bytes(packed) == bytes(plain)
    assert (lenders, len(lenders)) == (same, 1)


def test_a_message_with_long_bytes_is_bounded_as_any_and_nothing_is_left_of_one_that_is_not_sent() -> None:
    long = bytes(100_000)
    codec = Codec(Limits(max_message_bytes=200_000, max_depth=4))
    for argument, error, text in (
        (bytes(200_000), TooLarge, r"at most 200000 bytes \(max_message_bytes\), this one 300016$"),
        ([[[]]], LocalProtocolError, r"max_depth \(4\)"),
        ([Lender()] * 253, LocalProtocolError, "at most 252 descriptors, this one more"),
        (object(), LocalProtocolError, r"cannot send params\[1\]: a value of type object"),
    ):
        arguments = (long, argument)
        with pytest.raises(error, match=text):
            codec.encode_in_pieces((0, 7, "m", arguments), ("kind", "id", "method", "params"))
        assert codec.encode((1, 2)) == (b"\x92\x01\x02", [])


def test_an_interrupt_while_a_message_is_packed_leaves_no_descriptor_to_the_next_one() -> None:
    class Interrupting:
        @property
        def fileno(self) -> Any:
            raise KeyboardInterrupt

    codec, lender = Codec(), Lender()
    for encode_it in (codec.encode, codec.encode_in_pieces):
        with pytest.raises(KeyboardInterrupt):
            encode_it((1, Lender(), Interrupting()))
        assert encode_it((1, lender))[1] == [lender]


def test_long_bytes_are_read_into_what_the_receiver_gets() -> None:
    codec, long = Codec(), os.urandom(100_000)
    packed, _ = codec.encode_in_pieces((1, 7, None, [long, "x", long]))
    data, was_read = memoryview(bytes(packed)), []

    def read(start: int, size: int) -> bytes:
        was_read.append(bytes(data[start : start + size]))
        return was_read[-1]

    value, problem = codec.decode_long(data, [], read)
    assert (value, problem) == ([1, 7, None, [long, "x", long]], None)
    assert value[3][0] is was_read[0]
    assert value[3][2] is was_read[1]
    own = b"\x92\x01\xd4" + bytes((EXT_TAKEN & 0xFF, 0))
    assert codec.decode(own, []) == ([1, None], f"unknown extension type {EXT_TAKEN}"), "nothing is left of it"


def has_other_keys(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(has_other_keys, value))
    return isinstance(value, dict) and not all(
        isinstance(key, str | bytes) and not has_other_keys(item) for key, item in value.items()
    )


@given(value=values(), limits=st.sampled_from([Limits(), Limits(max_depth=2)]))
@PROPERTY
def test_what_is_shallow_is_unpacked_as_it_is_decoded(value: Any, limits: Limits) -> None:
    codec, data = Codec(limits), msgpack.packb(value)
    if codec.is_shallow(data) and not has_other_keys(value):
        assert codec.decode(data, []) == (value, None)
        try:
            assert unpack_plain(data) == value
        except ValueError as exc:  # this Python would keep the keys
            assert KEEPS_KEYS
            assert "max_map_len" in str(exc)  # noqa: PT017
    elif not codec.is_shallow(data):
        assert len(data) > limits.max_depth, "an empty list is a container that is not too deep"


@pytest.mark.parametrize(
    "data, shallow",
    [
        (b"\x91" * 63 + b"\x90", True),  # as short as it may be deep
        (b"\x91" * 64 + b"\x90", False),
        (b"\xda\x1f\xfd" + b"x" * 8_189, True),
        (b"\xda\x1f\xfe" + b"x" * 8_190, False),  # the garbage collector may be felt
        (b"\xda\x00\x41" + b"\x90" * 65, False),  # they may be arrays, from their bytes
    ],
)
def test_a_message_is_shallow_if_its_bytes_show_that_it_is_short_and_not_deep(data: bytes, shallow: bool) -> None:
    assert Codec().is_shallow(data) is shallow


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 99, EXT_TAKEN])
def test_a_plain_message_has_no_extension_types_but_times(kind: int) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert unpack_plain(msgpack.packb([moment], datetime=True)) == [moment]
    with pytest.raises(Exception, match=r"^$"):  # decode tells what it is
        unpack_plain(b"\x91\xd4" + bytes((kind & 0xFF, 0)))


@pytest.mark.parametrize("limits", [Limits(), Limits(max_message_bytes=MAX_PACKET)], ids=["sent", "too large"])
def test_a_large_message_leaves_no_large_buffer_behind(limits: Limits) -> None:
    codec = Codec(limits)

    def large() -> int:
        with suppress(TooLarge):
            encode(b"x" * 50_000_000, codec)
        return len(encode(1, codec))

    assert large() == 5
    tracemalloc.start()
    try:
        large()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("deep", [64, 65])
def test_a_long_message_is_checked_for_its_depth(deep: int) -> None:
    value = ["x" * MAX_PACKET, nested(deep - 2)]
    if deep == 64:
        assert sent(value) == value
    else:
        assert "nested deeper than max_depth (64)" in refusal(value)


def test_5_1_a_long_message_leaves_one_of_the_253_descriptors_to_its_memory_file() -> None:
    codec = Codec()
    text = "x" * MAX_PACKET
    assert len(codec.encode((1, [Lender()] * 252, text))[1]) == 252
    with pytest.raises(LocalProtocolError, match="more than 65536 bytes holds at most 252 descriptors, this one more"):
        codec.encode((1, [Lender()] * 253, text))
    assert len(codec.encode((1, [Lender()] * 253))[1]) == 253


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


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


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

    message, problem = Codec().decode(data, borrowed(lenders))

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


def test_3_1_descriptors_are_numbered_in_the_order_of_the_message() -> None:
    lenders = [Lender(), Lender(), Lender()]

    encoded, order = Codec().encode((1, 1, None, [lenders[0], {"a": lenders[1]}, Record([lenders[2]])]), NAMES)

    data = bytes(encoded)
    assert order == lenders
    assert [data[data.index(b"\xd4\x01" + bytes((index,))) :][:2] for index in range(3)] == [b"\xd4\x01"] * 3


@dataclass
class Files:
    file: Any
    more: dict[str, Any] = field(default_factory=dict)


def test_files_sockets_and_owned_descriptors_are_lent_at_any_depth() -> None:
    with owned(2) as fds, tempfile.TemporaryFile() as file, socket.socket(socket.AF_UNIX) as sock:
        value = [
            file,
            {"s": sock},
            Files(fds[0], {"f": [file, Structure((sock, fds[1]))]}),
            {fds[1]},
            {"d": {1: fds[0]}},
        ]
        data, lenders = Codec().encode((1, 1, None, value), NAMES)

        assert lenders == [file, sock, fds[0], file, sock, fds[1], fds[1], fds[0]]
        message, problem = Codec().decode(data, borrowed(lenders))
        assert problem is None
        assert message[3] == [
            file,
            {"s": sock},
            {"file": fds[0], "more": {"f": [file, {"value": [sock, fds[1]]}]}},
            [fds[1]],
            {"d": {1: fds[0]}},
        ]
        assert not any(fd.closed for fd in fds)


def test_3_1_the_same_descriptor_twice_is_sent_twice() -> None:
    lender = Lender()
    data, lenders = Codec().encode((1, 1, None, [lender, lender]), NAMES)
    assert lenders == [lender, lender]
    assert bytes(data).endswith(b"\xd4\x01\x00\xd4\x01\x01")


@pytest.mark.parametrize("around", [list, Record, lambda lenders: [Record(lender) for lender in lenders]])
def test_3_1_253_descriptors_are_sent_and_254_are_not(around: Callable[[list[Lender]], Any]) -> None:
    codec = Codec()
    lenders = [Lender() for _ in range(MAX_DESCRIPTORS)]
    data, order = codec.encode((1, 1, None, around(lenders)), NAMES)
    assert order == lenders
    assert codec.decode(data, borrowed(order))[1] is None

    with pytest.raises(LocalProtocolError, match="at most 253 descriptors"):
        codec.encode((1, 1, None, around([*lenders, Lender()])), NAMES)
    assert codec.encode((1, Lender()))[0] == b"\x92\x01\xd4\x01\x00"


@pytest.mark.parametrize("beside", [None, object(), "x" * MAX_PACKET, [[[[]]]]], ids=["sent", "bad", "large", "deep"])
def test_lenders_are_not_kept_after_the_message_is_gone(beside: Any) -> None:
    codec = Codec(Limits(max_depth=4, max_message_bytes=MAX_PACKET))
    with owned(1) as fds:
        alive = weakref.ref(fds[0])
        with suppress(LocalProtocolError, TooLarge):
            codec.encode((1, 1, None, [fds[0], beside]), NAMES)
        fds.pop().close()
    gc.collect()

    assert alive() is None


def test_received_descriptors_are_not_kept_after_the_message_is_gone() -> None:
    codec = Codec()
    with owned(1) as fds:
        alive = weakref.ref(fds[0])
        assert codec.decode(b"\xd4\x01\x00", fds)[0] is fds[0]
        fds.pop().close()
        gc.collect()
    assert alive() is None


def test_what_encode_returned_stays_as_it_is_when_the_next_is_encoded() -> None:
    codec = Codec()
    none = codec.encode((1,))[1]
    one = codec.encode((1, Lender()))[1]
    codec.encode((1, Lender(), Lender()))
    assert (len(none), len(one)) == (0, 1)


def problem_of(data: bytes, descriptors: int) -> str | RpcError | None:
    with owned(descriptors) as fds:
        problem = Codec().decode(data, fds)[1]
        assert not any(fd.closed for fd in fds), "they are the caller's"
    return problem


def test_3_1_a_descriptor_that_is_not_referred_to_is_a_problem() -> None:
    assert problem_of(b"\x90", 1) == "1 descriptors came, 0 of them are referred to"
    assert problem_of(b"\x91\xd4\x01\x01", 2) == "2 descriptors came, 1 of them are referred to"


def test_3_1_an_index_out_of_range_is_a_problem() -> None:
    assert problem_of(b"\xd4\x01\x00", 0) == "descriptor 0 is referred to, but 0 came"
    assert problem_of(b"\x92\xd4\x01\x00\xd4\x01\xff", 1) == "descriptor 255 is referred to, but 1 came"


def test_3_1_an_index_referred_to_twice_is_a_problem() -> None:
    assert problem_of(b"\x92\xd4\x01\x00\xd4\x01\x00", 1) == "descriptor 0 is referred to twice"


@pytest.mark.parametrize("data", [b"\xc7\x00\x01", b"\xd5\x01\x00\x00", b"\xc7\x03\x01\x00\x00\x00"])
def test_3_1_a_reference_is_one_byte(data: bytes) -> None:
    assert str(problem_of(data, 1)).startswith("a reference to a descriptor has 1 byte, this one ")


@pytest.mark.parametrize("kind", [-128, -2, 0, 5, 127])
def test_4_other_extension_types_are_a_problem(kind: int) -> None:
    assert problem_of(b"\xd4" + struct.pack("b", kind) + b"\0", 0) == f"unknown extension type {kind}"


def test_3_1_the_first_of_several_problems_is_told() -> None:
    assert problem_of(b"\x93\xd4\x05\x00\xd4\x01\x07\xd4\x01\x00", 2) == "unknown extension type 5"


def test_a_problem_of_one_packet_is_none_of_the_next() -> None:
    codec = Codec()
    assert codec.decode(b"\xd4\x05\x00", [])[1] is not None
    assert codec.decode(b"\x90", []) == ([], None)
    with owned(1) as fds:
        assert codec.decode(b"\xd4\x01\x00", fds)[1] is None
        assert codec.decode(b"\x90", [])[1] is None


@pytest.mark.parametrize("max_depth", [1, 3, 64])
def test_packets_deeper_than_allowed_are_malformed(max_depth: int) -> None:
    codec = Codec(Limits(max_depth=max_depth))
    assert codec.decode(b"\x91" * (max_depth - 1) + b"\x90", [])[1] is None
    assert f"max_depth ({max_depth})" in decode_malformed(b"\x91" * max_depth + b"\x90", codec)


def test_keys_too_deep_for_python_are_malformed() -> None:
    codec = Codec(Limits(max_depth=2_000))
    assert decode_malformed(b"\x81" + b"\x91" * 1_010 + b"\xc0\xc0", codec)


def test_4_the_longest_extension_is_malformed_though_msgpack_counts_it_wrongly() -> None:
    for data in (
        b"\xc9\xff\xff\xff\xff\x01".ljust(300, b"\x00"),
        (b"\xdc\x00\xc8" + b"\x90" * 199 + b"\xc9\xff\xff\xff\xff\x01").ljust(1_000, b"\x00"),
        (b"\x91\xc9\xff\xff\xff\xff\x01" + b"\x91" * 100).ljust(MAX_PACKET + 1, b"\x00"),
    ):
        assert decode_malformed(data)


def travel(value: Any, codec: Codec | None = None) -> tuple[Any, str | RpcError | None, list[OwnedFd]]:
    """Return what arrives of a value, its problem, and the descriptors that came with it."""
    codec = codec or Codec()
    data, lenders = codec.encode((1, 1, None, value), NAMES)
    fds = duplicates(lenders)
    message, problem = codec.decode(data, fds)
    return message[3], problem, fds


def test_4_buffers_travel_at_any_depth_and_are_sealed() -> None:
    first, second = Buffer.copy_of(b"first"), Buffer.copy_of(b"second")
    received, problem, fds = travel([first, {"a": Record({"b": second})}, first])
    assert problem is None
    one, two, again = received[0], received[1]["a"]["value"]["b"], received[2]
    assert (one[:], two[:], again[:]) == (b"first", b"second", b"first")
    assert all(type(buffer) is Buffer for buffer in (one, two, again))
    assert first.sealed
    assert [buffer.fileno() for buffer in (one, two, again)] == [fd.fileno() for fd in fds]


def test_4_the_bytes_of_a_buffer_are_index_offset_and_length() -> None:
    with Buffer.copy_of(b"content") as buffer, owned(1) as fds:
        data, lenders = Codec().encode((fds[0], buffer))
        assert data == b"\x92\xd4\x01\x00\xc7\x11\x04" + struct.pack(">BQQ", 1, 0, 7)
        assert lenders == [fds[0], buffer]


def test_4_a_received_part_is_handed_on_as_that_part() -> None:
    content = bytes(range(256)) * 64
    with memory_file(content) as file:
        parts, problem = Codec().decode(buffer_data(0, 4096, 100), [file])
        assert problem is None
    data, lenders = Codec().encode(parts)
    assert data == buffer_data(0, 4096, 100)
    again, problem = Codec().decode(data, duplicates(lenders))
    assert problem is None
    assert again[:] == content[4096:4196]


def test_4_a_buffer_that_cannot_be_sealed_is_not_sent() -> None:
    with Buffer.allocate(10) as buffer, mmap.mmap(buffer.fileno(), 10):
        assert "busy" in refusal([buffer])
        buffer[0] = 5
        assert os.pread(buffer.fileno(), 1, 0) == b"\x05"


def test_4_a_closed_buffer_is_not_sent() -> None:
    buffer = Buffer.allocate(10)
    buffer.close()
    assert "closed" in refusal([buffer])


def buffer_data(index: int, offset: int, length: int) -> bytes:
    return b"\xc7\x11\x04" + struct.pack(">BQQ", index, offset, length)


@pytest.mark.parametrize(
    "offset, length", [(0, 8), (7, 1), (8, 1), (3, 5), (2**64 - 1, 1), (4096, 1), (2**63, 2**30), (1, 7)]
)
def test_5_3_a_buffer_beyond_the_end_of_its_memfd_is_a_problem(offset: int, length: int) -> None:
    with memory_file(b"content") as file:
        fds = [file]
        value, problem = Codec().decode(buffer_data(0, offset, length), fds)
        assert value is None
        assert problem == f"a part of {length} bytes at {offset} was promised of a memfd of 7"
        fds[0].close()


@pytest.mark.parametrize("seals", [0, 0b0111, 0b1101, 0b1011])
def test_5_3_a_buffer_in_what_is_not_sealed_is_a_problem(seals: int) -> None:
    fds = [memory_file(b"content", seals=seals)]
    assert "with the seals 0xf was expected" in str(Codec().decode(buffer_data(0, 0, 7), fds)[1])
    with owned(1) as fds:
        assert "got a file of another kind" in str(Codec().decode(buffer_data(0, 0, 7), fds)[1])
    with memory_file(b"content") as file:
        fds = [write_only(file)]
        assert "for writing only" in str(Codec().decode(buffer_data(0, 0, 7), fds)[1])


def test_5_3_a_buffer_of_no_bytes_is_none() -> None:
    assert Codec().decode(buffer_data(0, 0, 0), [memory_file()]) == (b"", None)
    assert Codec().decode(buffer_data(0, 7, 0), [memory_file(b"content")]) == (b"", None)
    problem = Codec().decode(buffer_data(0, 8, 0), [memory_file(b"content")])[1]
    assert problem == "a part of 0 bytes at 8 was promised of a memfd of 7"
    assert "seals" in str(Codec().decode(buffer_data(0, 0, 0), [memory_file(seals=0)])[1])


def test_5_3_several_buffers_in_one_memfd_have_a_descriptor_each() -> None:
    with memory_file(b"x" * 10_000) as file:
        fds = [OwnedFd.dup(file), OwnedFd.dup(file)]
    message, problem = Codec().decode(b"\x92" + buffer_data(0, 0, 4096) + buffer_data(1, 4096, 4096), fds)
    assert problem is None
    assert [len(buffer) for buffer in message] == [4096, 4096]

    with memory_file(b"x" * 10_000) as file:
        _message, problem = Codec().decode(b"\x92" + buffer_data(0, 0, 4096) + buffer_data(0, 4096, 4096), [file])
        assert problem == "descriptor 0 is referred to twice"


@pytest.mark.parametrize("kind, name", [(2, "stream"), (3, "channel")])
def test_4_a_reference_to_a_stream_or_channel_is_one_byte(kind: int, name: str) -> None:
    assert problem_of(b"\xd5" + bytes((kind, 0, 0)), 1) == f"a reference to a {name} has 1 byte, this one 2"
    assert problem_of(b"\xc7\x00" + bytes((kind,)), 1) == f"a reference to a {name} has 1 byte, this one 0"
    assert problem_of(b"\xd4" + bytes((kind, 1)), 1) == "descriptor 1 is referred to, but 1 came"


@pytest.mark.parametrize("size", [0, 1, 16, 18])
def test_4_a_reference_to_a_buffer_is_17_bytes(size: int) -> None:
    assert (
        problem_of(b"\xc7" + bytes((size, 4)) + bytes(size), 1)
        == f"a reference to a buffer has 17 bytes, this one {size}"
    )


def test_a_buffer_over_the_limit_is_not_taken_here_but_well_formed() -> None:
    codec = Codec(Limits(max_buffer_bytes=100))
    assert travel(Buffer.allocate(100), codec)[1] is None
    value, problem, _fds = travel([Buffer.allocate(101), Buffer.allocate(200)], codec)
    assert value == [None, None]
    assert isinstance(problem, TooLarge)
    assert problem.message == "a buffer has at most 100 bytes (max_buffer_bytes), this one 101"


def test_what_must_be_copied_of_a_message_is_bounded_for_a_memfd_of_holes_costs_its_sender_nothing() -> None:
    codec = Codec(Limits(max_message_bytes=100_000))
    sizes = [40_000, 60_000, 1]

    def receive(offset: int, number: int) -> Any:
        with memory_file(size=1 << 30) as file:
            fds = [OwnedFd.dup(file) for _ in range(number)]
        parts = [buffer_data(index, offset, size) for index, size in enumerate(sizes[:number])]
        return codec.decode(bytes((0x90 + number,)) + b"".join(parts), fds)[1]

    for _ in range(2):  # it is counted by message
        assert receive(1, 2) is None
        assert receive(4096, 3) is None
        problem = receive(1, 3)
        assert isinstance(problem, TooLarge)
        assert problem.message == "buffers that begin within a page have at most 100000 bytes (max_message_bytes)"


def test_a_buffer_that_there_is_no_room_for_is_overload() -> None:
    fds = [memory_file(size=1 << 30), memory_file(size=1 << 30)]
    with address_space_used_up():
        value, problem = Codec().decode(b"\x92" + buffer_data(0, 0, 1 << 30) + buffer_data(1, 0, 1 << 30), fds)
    assert value == [None, None]
    assert isinstance(problem, Overloaded)
    assert problem.message == f"there is no room for a buffer of {1 << 30} bytes: Cannot allocate memory"
    assert Codec(Limits(max_buffer_bytes=5)).decode(buffer_data(0, 0, 7), [memory_file(b"content")])[1] is not None


def test_what_is_malformed_is_told_before_what_is_not_taken_here() -> None:
    codec = Codec(Limits(max_buffer_bytes=3))
    too_large = buffer_data(0, 0, 7)
    for other in (b"\xd4\x63\x00", b"\xd4\x01\x09", b"\xd4\x01\x00", b"\xc0"):
        for order in (too_large + other, other + too_large):
            fds = [memory_file(b"content"), memory_file()]
            assert isinstance(codec.decode(b"\x92" + order, fds)[1], str)
            close_all(fds)


class Made:
    """What a living value is here."""

    def __init__(self, ext_type: int, fd: OwnedFd) -> None:
        self.ext_type = ext_type
        self.fd = fd


class Life:
    """Makes, and remembers, living values and their exports."""

    def __init__(self, *, fails: Exception | None = None) -> None:
        self.fails = fails
        self.exports: list[Out] = []
        self.given_up: list[Any] = []

    def travels(self, value: Any) -> bool:
        return isinstance(value, Made)

    def export(self, value: Any) -> Export | None:
        if not isinstance(value, Made):
            return None
        if self.fails is not None:
            raise self.fails
        self.exports.append(Out(value))
        return self.exports[-1]

    def receive(self, ext_type: int, fd: OwnedFd) -> Made:
        if self.fails is not None:
            raise self.fails
        return Made(ext_type, fd)

    def give_up(self, value: Any) -> None:
        self.given_up.append(value)


class Out:
    """An export that remembers what it was told."""

    def __init__(self, made: Made) -> None:
        self.ext_type = made.ext_type
        self.fileno = made.fd.fileno
        self.told: list[str] = []

    def sent(self) -> None:
        self.told.append("sent")

    def unsent(self) -> None:
        self.told.append("unsent")

    def given_up(self) -> None:
        self.told.append("given up")


@pytest.mark.parametrize("ext_type", [EXT_STREAM, EXT_CHANNEL])
def test_4_streams_and_channels_travel_as_whoever_owns_the_codec_says(ext_type: int) -> None:
    life = Life()
    codec = Codec(living=life)
    with owned(1) as (fd,):
        data, lenders = codec.encode((1, {"a": Record([Made(ext_type, fd)])}))
        assert data == b"\x92\x01\x81\xa1a\x81\xa5value\x91\xd4" + bytes((ext_type, 0))
        assert lenders == life.exports
        fds = duplicates(lenders)
        tell_sent(lenders)
        assert [export.told for export in life.exports] == [["sent"]]

        message, problem = codec.decode(data, fds)

        assert problem is None
        made = message[1]["a"]["value"][0]
        assert (type(made), made.ext_type) == (Made, ext_type)
        assert made.fd is fds[0]
        assert os.path.sameopenfile(made.fd.fileno(), fd.fileno())
    assert isinstance(fds[0], ValueFd), "it goes with its value"


def test_4_the_plain_codec_leaves_streams_and_channels_as_handles() -> None:
    with owned(2) as (stream, channel):
        received, problem, fds = travel([Handle(EXT_STREAM, stream), {"c": Handle(EXT_CHANNEL, channel)}])
        assert problem is None
        assert [received[0].ext_type, received[1]["c"].ext_type] == [EXT_STREAM, EXT_CHANNEL]
        assert [received[0].fd, received[1]["c"].fd] == fds


def test_exports_of_a_message_that_is_not_sent_hear_of_it_once() -> None:
    with owned(1) as (fd,):
        made = Made(EXT_STREAM, fd)
        for value, limits in (
            ([made, object()], Limits()),
            ([made, Made(EXT_STREAM, fd), 2**64], Limits()),
            ([made, b"x" * MAX_PACKET], Limits(max_message_bytes=MAX_PACKET)),
            ([made, [made] * 300], Limits()),
            ([made, [made] * 252, b"x" * MAX_PACKET], Limits()),
            ([made, nested(70)], Limits()),
        ):
            life = Life()
            with pytest.raises((LocalProtocolError, TooLarge)):
                Codec(limits, life).encode((1, value))
            assert [export.told for export in life.exports] == [["unsent"]] * len(life.exports)
            assert life.exports


def test_those_that_are_told_are_exports_alone() -> None:
    with owned(1) as fds, Buffer.allocate(1) as buffer:
        tell_sent([fds[0], buffer, Lender()])
        tell_unsent([fds[0], buffer, Lender()])
        assert not fds[0].closed


@pytest.mark.parametrize("error", [Overloaded("too many"), LocalProtocolError("not this one")])
def test_what_hinders_an_export_is_told_as_it_is(error: Exception) -> None:
    with owned(1) as (fd,), pytest.raises(type(error)) as caught:
        Codec(living=Life(fails=error)).encode((1, Made(EXT_STREAM, fd)))
    assert caught.value is error


def test_another_failure_of_an_export_is_told_without_a_place() -> None:
    with owned(1) as (fd,):
        codec = Codec(living=Life(fails=OSError(24, "Too many open files")))
        assert "Too many open files" in refusal([Made(EXT_STREAM, fd)], codec)
        assert refusal([Made(EXT_STREAM, fd), object()], Codec(living=Life())).startswith("cannot send result[1]: ")


def test_what_cannot_be_made_of_what_came_in_is_a_problem() -> None:
    fds = duplicates([Lender()])
    value, problem = Codec(living=Life(fails=ValueError("no socket"))).decode(b"\xd4\x02\x00", fds)
    assert (value, problem) == (None, "no socket")
    assert isinstance(fds[0], ValueFd)


def test_living_values_in_and_beside_keys_that_are_arrays_arrive() -> None:
    """Such a message is read twice."""
    with owned(1) as (fd,), Buffer.copy_of(b"content") as buffer:
        value = {(1, 2): [Handle(EXT_STREAM, fd), buffer], "more": {(): buffer}}
        received, problem, fds = travel(value)
    assert problem is None
    handle, first = received[(1, 2)]
    second = received["more"][()]
    assert (first[:], second[:]) == (b"content", b"content")
    assert [handle.fd, first._memfd, second._memfd] == fds
    assert not any(fd.closed for fd in fds)


def test_what_refers_to_a_closed_descriptor_closes_nothing_twice() -> None:
    received, _problem, fds = travel([Buffer.copy_of(b"content")])
    received[0].close()
    assert fds[0].closed
    close_all(fds)


def test_a_few_scalars_are_encoded_one_after_the_other() -> None:
    codec = Codec()
    for values_ in ([], [1], [1, "a", None, True, 1.5, b"x"], list(range(15)), list(range(16)), ["text"] * 256):
        assert codec.encode_run(values_) == b"".join(msgpack.packb(value) for value in values_)
        assert codec.array_header(len(values_)) + codec.encode_run(values_) == codec.encode(values_)[0]
    for bad in (2**64, "\udcff"):
        with pytest.raises((OverflowError, UnicodeEncodeError)):
            codec.encode_run([1, bad, 2])
        assert codec.encode_run([1, 2]) == b"\x01\x02", "what failed left something behind"


@PROPERTY
@given(
    st.integers(0, 9_000),
    st.sampled_from([0, 4096, 8192, 1, 2**63]) | st.integers(0, 10_000),
    st.integers(0, 10_000) | st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.integers(0, 15),
)
def test_any_reference_to_a_buffer_is_that_part_or_a_problem(
    size: int, offset: int, length: int, index: int, missing: int
) -> None:
    content = bytes(number % 251 for number in range(size))
    seals = memfd.SEALS & ~(missing if missing > 11 else 0)
    fds = [memory_file(content, seals=seals), memory_file(content)]
    every = list(fds)
    value, problem = Codec(Limits(max_buffer_bytes=9_000)).decode(
        b"\x92" + buffer_data(index, offset, length) + b"\xd4\x01\x01", fds
    )
    if problem is None:
        assert index == 0
        assert value[0][:] == content[offset : offset + length]
        assert len(value[0]) == length
        assert seals == memfd.SEALS
        assert value[1] is fds[1] is every[1]
    elif isinstance(problem, RpcError):
        assert isinstance(problem, TooLarge)
        assert length > 9_000
    else:
        assert index or seals != memfd.SEALS or offset + length > size
    close_all(fds)


EMPTY: dict[str, tuple[bytes, int]] = {
    "arrays": (b"\x90", 1),
    "maps": (b"\x80", 1),
    "maps in arrays": (b"\x91\x80", 2),
    "keys that are arrays": (b"\x81\x90\xc0", 2),
    "keys that are maps": (b"\x81\x80\xc0", 2),
}


@pytest.mark.parametrize("name", EMPTY)
def test_arrays_and_maps_of_a_message_longer_than_a_packet_are_counted(name: str) -> None:
    codec = Codec(Limits(max_containers=1_001))
    empty, each = EMPTY[name]

    def message(number: int) -> bytes:
        return (
            b"\x92\xc6"
            + MAX_PACKET.to_bytes(4, "big")
            + bytes(MAX_PACKET)
            + b"\xdc"
            + number.to_bytes(2, "big")
            + empty * number
        )

    fits = (1_001 - 2) // each
    value, problem = codec.decode(memoryview(message(fits)), [])
    assert (len(value[1]), problem) == (fits, None)
    for _ in range(2):
        with pytest.raises(TooLarge, match=r"at most 1001 arrays and maps \(max_containers\), this one more"):
            codec.decode(memoryview(message(fits + 1)), [])
    assert codec.decode(b"\xdc\x07\xd0" + b"\x90" * 2_000, [])[0] == [[]] * 2_000, "a packet bounds them by itself"


def test_a_message_of_too_many_arrays_and_maps_leaves_its_descriptors_and_the_codec_as_they_were() -> None:
    codec = Codec(Limits(max_containers=10))
    data = b"\x93\xd4\x01\x00" + b"\xdc\xff\xff" + b"\x90" * 65_535 + b"\xc0"
    with owned(1) as fds:
        with pytest.raises(TooLarge):
            codec.decode(data, fds)
        assert not fds[0].closed
        assert codec.decode(b"\x90", []) == ([], None)
        assert codec.decode(b"\xd4\x01\x00", fds) == (fds[0], None)


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("data", [bytes(1), b"\xdc\x40\x00" + b"\x90" * 16_384, b"\xdc\x40\x00" + b"\xc1" * 16_384])
def test_the_garbage_collector_is_left_as_it_was(collecting: bool, data: bytes) -> None:
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with suppress(RemoteProtocolError):
            Codec().decode(data, [])
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


# Packets of full size that are bad at something; the number is how much memory a value may need for a byte.
NASTY: dict[str, tuple[Callable[[], bytes], int]] = {
    "arrays in arrays": (lambda: b"\x91" * MAX_PACKET, 2),
    "arrays that lie": (lambda: (b"\xdd\x00\x00\xff\x00" * 64).ljust(MAX_PACKET, b"\xc0"), 2),
    "two arrays that lie": (lambda: (b"\xdd\x00\x00\xff\x00" * 2).ljust(MAX_PACKET, b"\xc0"), 18),
    "maps that lie": (lambda: (b"\xdf\x00\x00\x7f\x00\x01" * 64).ljust(MAX_PACKET, b"\xc0"), 2),
    "four thousand million": (lambda: b"\xdd\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"), 2),
    "four thousand million characters": (lambda: b"\xdb\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"), 2),
    "maps in keys": (lambda: (b"\x81" * 60).ljust(MAX_PACKET, b"\xc0"), 3),
    "empty maps": (lambda: b"\xdc\xff\xfd".ljust(MAX_PACKET, b"\x80"), 160),
    "empty arrays": (lambda: b"\xdc\xff\xfd".ljust(MAX_PACKET, b"\x90"), 160),
    "keys that are arrays": (lambda: (b"\xdc\x7f\xff" + b"\x81\x90\xc0" * 30_000)[:MAX_PACKET], 160),
    "references": (lambda: (b"\xdc\x55\x53" + b"\xd4\x01\xff" * 21_843 + b"\xc0" * 4)[:MAX_PACKET], 20),
    "floats that collide": (
        lambda: (
            b"\xde\x19\x80"
            + b"".join(
                b"\xcb" + struct.pack(">d", (1 + fraction / 2**20) * 2.0 ** (61 * power)) + b"\xc0"
                for fraction in range(204)
                for power in range(-16, 16)
            )
        ).ljust(MAX_PACKET, b"\xc0"),
        30,
    ),
}


@pytest.mark.parametrize("name", NASTY)
def test_the_nastiest_messages_longer_than_a_packet_cost_as_little(name: str) -> None:
    make, per_byte = NASTY[name]
    data = memoryview(make() + bytes(3 * MAX_PACKET))
    codec = Codec()

    def receive() -> None:
        with suppress(RemoteProtocolError, TooLarge):
            codec.decode(data, [])

    assert peak_bytes(receive) < per_byte * len(data) + MAX_PACKET


@pytest.mark.parametrize("name", NASTY)
def test_the_nastiest_packets_cost_little_memory_and_time(name: str) -> None:
    make, per_byte = NASTY[name]
    data = make()
    assert len(data) == MAX_PACKET
    codec = Codec()

    def receive() -> None:
        with suppress(RemoteProtocolError, TooLarge):
            codec.decode(data, [])

    assert peak_bytes(receive) < per_byte * MAX_PACKET
    began = time.process_time()
    receive()
    assert time.process_time() - began < 0.5


def test_random_packets_of_full_size_cost_little_memory() -> None:
    codec = Codec()
    numbers = random.Random(5)

    def receive() -> None:
        with pytest.raises(RemoteProtocolError):
            codec.decode(data, [])

    for first in range(0x80, 0x100):
        data = bytes((0xDD, 0, 0, 0x10, 0, first)) + numbers.randbytes(MAX_PACKET - 6)
        assert peak_bytes(receive) < 40 * MAX_PACKET


def test_a_text_file_is_lent_though_it_can_be_read() -> None:
    with io.TextIOWrapper(tempfile.TemporaryFile()) as file:
        assert Codec().encode((1, Record(file)))[1] == [file]


def test_a_message_of_nothing_but_bad_references_is_given_up() -> None:
    bad = b"\xd4\x01\xfe"
    value, problem = Codec().decode(b"\xdc\x03\xe8" + bad * 1_000, [])
    assert value == [None] * 1_000
    assert problem == "descriptor 254 is referred to, but 0 came"
    with pytest.raises(RemoteProtocolError, match="more than 1000 bad references, one of them: descriptor 254"):
        Codec().decode(b"\xdc\x03\xe9" + bad * 1_001, [])
    assert Codec().decode(b"\x91" + bad, [])[1] == "descriptor 254 is referred to, but 0 came"


def test_copying_a_buffer_is_told_as_work() -> None:
    works = []
    codec = Codec()
    codec.on_work = lambda: works.append(1)
    with Buffer.copy_of(b"abcd" * 2_000) as buffer:
        buffer.seal()
        for offset, told in ((0, 0), (1, 1)):
            reference = msgpack.packb(msgpack.ExtType(4, (0).to_bytes(1) + offset.to_bytes(8) + (5).to_bytes(8)))
            fds = [OwnedFd.dup(buffer)]
            value, problem = codec.decode(reference, fds)
            assert (bytes(value), problem) == ((b"abcd" * 3)[offset : offset + 5], None)
            assert len(works) == told
            value.close()
            close_all(fds)


def test_what_cannot_be_kept_alive_after_its_message_left_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    class Export:
        ext_type = 2

        def fileno(self) -> int:
            return 0

        def sent(self) -> None:
            raise OSError("no room in the loop")

        def unsent(self) -> None:
            told.append("unsent")

        def given_up(self) -> None:
            told.append("given up")

    tell_sent([Export()])
    assert told == ["given up"]
    assert "cannot be kept alive" in caplog.text


@pytest.mark.parametrize("in_pieces", [False, True])
def test_exports_of_a_message_that_was_given_away_are_given_up_if_it_is_not_sent(in_pieces: bool) -> None:
    with owned(2) as (fd, lent):
        life = Life()
        codec = Codec(living=life)
        encode = codec.encode_in_pieces if in_pieces else codec.encode
        with pytest.raises(LocalProtocolError):
            encode((1, [Made(EXT_STREAM, fd), lent, object(), Made(EXT_STREAM, fd)]), given=True)
        assert [export.told for export in life.exports] == [["given up"]], "the second was not reached"
        assert lent.closed
        assert not fd.closed


def test_what_was_given_away_is_given_up_in_what_it_is_in() -> None:
    with owned(2) as (fd, alone):
        life = Life()
        made = Made(EXT_STREAM, fd)
        Codec(living=life).give_up({"a": [made, alone]})
        assert life.given_up == [made]
        assert alone.closed


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


@pytest.mark.parametrize(
    "message, came, problem",
    [
        ([0, 1, "m", [1, "x", {"a": [None]}]], 0, None),
        ([0, 1, "m", [msgpack.ExtType(1, b"\x01"), msgpack.ExtType(2, b"\x00")]], 2, None),
        ([msgpack.ExtType(3, b"\x00"), msgpack.ExtType(4, b"\x01" + bytes(16))], 2, None),
        ([msgpack.ExtType(1, b"\x00")], 2, "2 descriptors came, 1 of them are referred to"),
        ([msgpack.ExtType(1, b"\x00")] * 2, 1, "descriptor 0 is referred to twice"),
        ([msgpack.ExtType(4, b"\x00")], 1, "a reference to a buffer has 17 bytes, this one 1"),
        ([msgpack.ExtType(9, b"\x00")], 0, "unknown extension type 9"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_of_what_nobody_wants_the_references_are_looked_at_and_nothing_is_made(
    message: Any, came: int, problem: str | None
) -> None:
    codec = Codec(living=Life())
    with owned(came) as fds:
        value, found = codec.decode_unwanted(msgpack.packb(message), fds)
        assert found == problem
        if value is None:  # its map was not made, for this Python would keep the key
            assert KEEPS_KEYS
        else:
            assert len(value) == len(message)
        assert [type(fd) for fd in fds] == [OwnedFd] * came
    assert codec.decode(msgpack.packb([1]), []) == ([1], None), "nothing is left of it"


def test_of_what_nobody_wants_maps_need_not_be_made() -> None:
    codec = Codec()
    for key in (1, (1,)):
        assert codec.decode_unwanted(msgpack.packb({key: 1}), []) == (None, None)
    for data in (b"\x81\x01", b"\x91\x01\x01", b"\xc1"):
        with pytest.raises(RemoteProtocolError, match="malformed packet of"):
            codec.decode_unwanted(data, [])


def test_what_has_no_room_is_not_copied() -> None:
    codec = Codec()
    codec.lack_of_room = lambda size: f"no room for {size}"
    reference = msgpack.ExtType(4, b"\x00" + (1).to_bytes(8, "big") + (5).to_bytes(8, "big"))
    with memfd.sealed("test", b"content") as file:
        fds = [OwnedFd.dup(file)]
        value, problem = codec.decode(msgpack.packb([reference]), fds)
        assert value == [None]
        assert isinstance(problem, Overloaded)
        assert problem.message == "no room for 5"
        close_all(fds)
