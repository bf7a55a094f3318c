"""Whole messages: any bytes are a value or malformed, and sizes are bounded."""

from __future__ import annotations

import gc
import os
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.codec import NAMES, borrowed, decode_malformed, encode, nested, refusal, sent
from support.descriptors import Lender
from support.properties import PROPERTY, scalars, values

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, TooLarge
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.longbytes import EXT_TAKEN
from seqrpc.protocol.maps import KEEPS_KEYS


@PROPERTY
@given(values())
def test_plain_values_arrive_as_they_were_sent(value: Any) -> None:
    assert sent(value) == value


@PROPERTY
@given(values(scalars() | st.builds(Lender)))
def test_values_with_descriptors_at_any_depth_arrive_as_they_were_sent(value: Any) -> None:
    codec = Codec()
    data, lenders = codec.encode((1, 1, None, value), NAMES)

    message, problem = codec.decode(bytes(data), borrowed(lenders))

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
        assert codec.encode((codec.decode(bytes(again), borrowed(lenders))[0][0],))[0] == again


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
    packed, lenders = codec.encode(message, NAMES, arguments)
    assert isinstance(packed, Pieces)
    assert any(part is arguments[1] for part in packed.parts)
    by_name, _ = codec.encode((2, "m", {"a": 1, "b": arguments[1]}), NAMES, {"a": 1, "b": arguments[1]})
    assert isinstance(by_name, Pieces)
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
            codec.encode((0, 7, "m", arguments), ("kind", "id", "method", "params"), arguments)
        assert codec.encode((1, 2)) == (b"\x92\x01\x02", [])


def test_an_interrupt_while_a_message_is_packed_leaves_no_descriptor_to_the_next_one() -> None:
    class Interrupting:
        @property
        def fileno(self) -> Any:
            raise KeyboardInterrupt

    codec, lender = Codec(), Lender()
    for long in ((), (bytes(MAX_PACKET + 1),)):  # in one piece, and in pieces
        with pytest.raises(KeyboardInterrupt):
            codec.encode((1, Lender(), Interrupting(), *long), values=long)
        assert codec.encode((1, lender, *long), values=long)[1] == [lender]


def test_long_bytes_are_read_into_what_the_receiver_gets() -> None:
    codec, long = Codec(), os.urandom(100_000)
    packed, _ = codec.encode((1, 7, None, [long, "x", long]), NAMES, [long, "x", long])
    assert isinstance(packed, Pieces)
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


def has_maps(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(has_maps, value)))


def has_other_keys(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(has_other_keys, value))
    return isinstance(value, dict) and not all(
        isinstance(key, str | bytes) and not has_other_keys(item) for key, item in value.items()
    )


@given(value=values(), limits=st.sampled_from([Limits(), Limits(max_depth=2)]))
@PROPERTY
def test_what_is_plain_is_decoded_as_anything_is(value: Any, limits: Limits) -> None:
    codec, data = Codec(limits), msgpack.packb(value)
    plain = codec.decode_plain(data)
    if plain is not None:
        assert codec.decode(data, []) == (plain, None)
        assert plain == value
    elif value is not None and not has_other_keys(value) and not (KEEPS_KEYS and has_maps(value)):
        assert len(data) > limits.max_depth, "an empty list is a container that is not too deep"


@pytest.mark.parametrize(
    "data, plain",
    [
        (b"\x91" * 63 + b"\x90", True),  # as short as it may be deep
        (b"\x91" * 64 + b"\x90", False),
        (b"\xda\x1f\xfd" + b"x" * 8_189, True),
        (b"\xda\x1f\xfe" + b"x" * 8_190, False),  # the garbage collector may be felt
        (b"\xda\x00\x41" + b"\x90" * 65, False),  # they may be arrays, from their bytes
        (b"\x91\xc1", False),
        (b"\x91\x01\x01", False),
        (b"", False),
    ],
)
def test_a_packet_is_plain_if_its_bytes_show_that_it_is_short_and_not_deep(data: bytes, plain: bool) -> None:
    assert (Codec().decode_plain(data) is not None) is plain


def test_who_decodes_what_is_plain_may_say_how_long_it_is() -> None:
    assert Codec().decode_plain(b"\x93\x01\x02\x03", 4) == [1, 2, 3]
    assert Codec().decode_plain(b"\x93\x01\x02\x03", 3) is None


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 99, EXT_TAKEN])
def test_a_plain_message_has_no_extension_types_but_times(kind: int) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert Codec().decode_plain(msgpack.packb([moment], datetime=True)) == [moment]
    assert Codec().decode_plain(b"\x91\xd4" + bytes((kind & 0xFF, 0))) is None  # decode tells what it is


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
