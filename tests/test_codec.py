from __future__ import annotations

import array
import enum
import gc
import io
import math
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
from helpers import PROPERTY, Lender, owned, peak_bytes, scalars, values
from hypothesis import given
from hypothesis import strategies as st

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, TooLarge
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.codec import Codec

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


def encode(value: Any, codec: Codec | None = None) -> bytes:
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
    assert decode_malformed(encode(value) + rest)


@PROPERTY
@given(values(), st.data())
def test_1_1_a_cut_value_is_malformed(value: Any, data: st.DataObject) -> None:
    packet = encode(value)
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


def test_1_2_a_longer_message_is_not_sent() -> None:
    with pytest.raises(TooLarge, match="at most 65536 bytes, this one 65537"):
        encode("x" * (MAX_PACKET - 6))


def test_a_message_that_was_too_large_leaves_no_large_buffer_behind() -> None:
    codec = Codec()

    def fail() -> int:
        with pytest.raises(TooLarge):
            encode(b"x" * 50_000_000, codec)
        return len(encode(1, codec))

    assert fail() == 5
    tracemalloc.start()
    try:
        fail()
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()


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
@pytest.mark.parametrize("around", [lambda m: m, lambda m: [Record({m: m})], lambda m: {(1, 2): m}])
def test_a_moment_that_utc_has_no_year_for_is_not_sent(moment: datetime, around: Callable[[datetime], Any]) -> None:
    assert refusal(around(moment)) == "cannot send: a moment is before the year 1 or after 9999, in UTC"


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
        (Record(2**64), "cannot send result: Integer value out of range"),
        (object(), "cannot send result: a value of type object cannot be sent"),
        ({"a": [Lender(), Record(object())]}, "cannot send result['a'][1]: a value of type object cannot be sent"),
        ([[1], {2: ()}, object()], "cannot send result[2]: a value of type object cannot be sent"),
        (1j, "cannot send result: a value of type complex cannot be sent"),
        ("\udcff", "cannot send result: 'utf-8' codec can't encode character"),
        (Record("\udcff"), "cannot send result: 'utf-8' codec can't encode character"),
        ({"\udcff": 1}, "cannot send result's key '\\udcff': 'utf-8' codec can't encode character"),
        (memoryview(bytes(9))[::2], "cannot send result: memoryview: underlying buffer is not C-contiguous"),
        (Unhelpful(), "cannot send result: no fileno today"),
        ([Record(Unhelpful())], "cannot send result[0]: no fileno today"),
        (UnhelpfulMapping(a=1), "cannot send: no items today"),
        ({"x" * 5000: 2**64}, f"cannot send result['{'x' * 192}…: integers"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_sent_is_named(value: Any, reason: str) -> None:
    codec = Codec()
    assert refusal(value, codec).startswith(reason)
    assert encode(1, codec) == b"\x94\x01\x01\xc0\x01", "what failed left something behind"


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


def test_many_such_keys_are_malformed_for_their_hashes_can_be_made_to_collide() -> None:
    def packet(number: int) -> bytes:
        return (
            b"\xde" + number.to_bytes(2, "big") + b"".join(b"\x91" + msgpack.packb(i) + b"\xc0" for i in range(number))
        )

    assert Codec().decode(packet(256), [])[0] == {(number,): None for number in range(256)}
    assert "at most 256" in decode_malformed(packet(257))
    many = dict.fromkeys(range(1_000))
    assert sent([{(1,): 2}, many]) == [{(1,): 2}, many]


def test_3_1_descriptors_are_numbered_in_the_order_of_the_message() -> None:
    lenders = [Lender(), Lender(), Lender()]

    data, order = Codec().encode((1, 1, None, [lenders[0], {"a": lenders[1]}, Record([lenders[2]])]), NAMES)

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
    assert data.endswith(b"\xd4\x01\x00\xd4\x01\x01")


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
    codec = Codec(Limits(max_depth=4))
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


def problem_of(data: bytes, descriptors: int) -> str | None:
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


@pytest.mark.parametrize("kind", [-128, -2, 0, 2, 3, 4, 5, 127])
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


# Packets of full size that are bad at something; the number is how much memory a value may need for a byte.
NASTY: dict[str, tuple[Callable[[], bytes], int]] = {
    "arrays in arrays": (lambda: b"\x91" * MAX_PACKET, 2),
    "arrays that lie": (lambda: (b"\xdd\x00\x00\xff\x00" * 64).ljust(MAX_PACKET, b"\xc0"), 2),
    "two arrays that lie": (lambda: (b"\xdd\x00\x00\xff\x00" * 2).ljust(MAX_PACKET, b"\xc0"), 18),
    "maps that lie": (lambda: (b"\xdf\x00\x00\x7f\x00\x01" * 64).ljust(MAX_PACKET, b"\xc0"), 2),
    "four thousand million": (lambda: b"\xdd\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"), 2),
    "four thousand million characters": (lambda: b"\xdb\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"), 2),
    "maps in keys": (lambda: (b"\x81" * 60).ljust(MAX_PACKET, b"\xc0"), 2),
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
def test_the_nastiest_packets_cost_little_memory_and_time(name: str) -> None:
    make, per_byte = NASTY[name]
    data = make()
    assert len(data) == MAX_PACKET
    codec = Codec()

    def receive() -> None:
        with suppress(RemoteProtocolError):
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
