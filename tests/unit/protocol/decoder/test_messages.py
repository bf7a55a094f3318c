"""Whole messages: any bytes are a value or malformed."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coding import NAMES, Record, borrowed, decode_malformed, encode, sent
from support.descriptors import Lender
from support.properties import PROPERTY, values

from seqrpc.errors import RemoteProtocolError, TooLarge
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.longbytes import EXT_TAKEN
from seqrpc.protocol.maps import KEEPS_KEYS


@PROPERTY
@given(st.binary(max_size=200), st.integers(0, 3))
def test_1_5_any_bytes_are_a_value_or_malformed(data: bytes, descriptors: int) -> None:
    encoder, decoder = Encoder(), Decoder()
    fds = borrowed(Lender() for _ in range(descriptors))
    try:
        value, problem = decoder.decode(data, fds)
    except RemoteProtocolError:
        return
    if problem is None:  # what was taken can be handed on
        again, lenders = encoder.encode((value,))
        assert {id(lender) for lender in lenders} <= {id(fd) for fd in fds}
        assert encoder.encode((decoder.decode(bytes(again), borrowed(lenders))[0][0],))[0] == again


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
        Decoder().decode(bytes(packet), [])
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


def test_long_bytes_are_read_into_what_the_receiver_gets() -> None:
    decoder, long = Decoder(), os.urandom(100_000)
    packed, _ = Encoder().encode((1, 7, None, [long, "x", long]), NAMES, [long, "x", long])
    assert isinstance(packed, Pieces)
    data, was_read = memoryview(bytes(packed)), []

    def read(start: int, size: int) -> bytes:
        was_read.append(bytes(data[start : start + size]))
        return was_read[-1]

    value, problem = decoder.decode_long(data, [], read)
    assert (value, problem) == ([1, 7, None, [long, "x", long]], None)
    assert value[3][0] is was_read[0]
    assert value[3][2] is was_read[1]
    own = b"\x92\x01\xd4" + bytes((EXT_TAKEN & 0xFF, 0))
    assert decoder.decode(own, []) == ([1, None], f"unknown extension type {EXT_TAKEN}"), "nothing is left of it"


def test_the_first_bytes_are_enough_where_nothing_but_long_bytes_is_behind_them() -> None:
    decoder, long = Decoder(), os.urandom(100_000)
    for last in ([], [5]):
        data = msgpack.packb([0, 7, "m", [long, *last]])

        def read(start: int, size: int, data: bytes = data) -> bytes:
            return data[start : start + size]

        decoded = decoder.decode_beginning(data[:4_096], len(data), [], read)
        assert decoded == (None if last else ([0, 7, "m", [long]], None))
    own = b"\x92\x01\xd4" + bytes((EXT_TAKEN & 0xFF, 0))
    assert decoder.decode(own, []) == ([1, None], f"unknown extension type {EXT_TAKEN}"), "nothing is left of it"


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
    decoder, data = Decoder(limits), msgpack.packb(value)
    plain = decoder.decode_plain(data)
    if plain is not None:
        assert decoder.decode(data, []) == (plain, None)
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
    assert (Decoder().decode_plain(data) is not None) is plain


def test_who_decodes_what_is_plain_may_say_how_long_it_is() -> None:
    assert Decoder().decode_plain(b"\x93\x01\x02\x03", 4) == [1, 2, 3]
    assert Decoder().decode_plain(b"\x93\x01\x02\x03", 3) is None


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 99, EXT_TAKEN])
def test_a_plain_message_has_no_extension_types_but_times(kind: int) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert Decoder().decode_plain(msgpack.packb([moment], datetime=True)) == [moment]
    assert Decoder().decode_plain(b"\x91\xd4" + bytes((kind & 0xFF, 0))) is None  # decode tells what it is


@pytest.mark.parametrize("max_depth", [1, 3, 64])
def test_packets_deeper_than_allowed_are_malformed(max_depth: int) -> None:
    decoder = Decoder(Limits(max_depth=max_depth))
    assert decoder.decode(b"\x91" * (max_depth - 1) + b"\x90", [])[1] is None
    assert f"max_depth ({max_depth})" in decode_malformed(b"\x91" * max_depth + b"\x90", decoder)


def test_keys_too_deep_for_python_are_malformed() -> None:
    decoder = Decoder(Limits(max_depth=2_000))
    assert decode_malformed(b"\x81" + b"\x91" * 1_010 + b"\xc0\xc0", decoder)


def test_4_the_longest_extension_is_malformed_though_msgpack_counts_it_wrongly() -> None:
    for data in (
        b"\xc9\xff\xff\xff\xff\x01".ljust(300, b"\x00"),
        (b"\xdc\x00\xc8" + b"\x90" * 199 + b"\xc9\xff\xff\xff\xff\x01").ljust(1_000, b"\x00"),
        (b"\x91\xc9\xff\xff\xff\xff\x01" + b"\x91" * 100).ljust(MAX_PACKET + 1, b"\x00"),
    ):
        assert decode_malformed(data)


@dataclass(frozen=True)
class Key:
    name: Any


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
    data, lenders = Encoder().encode((1, 1, None, {(1, lender): [Lender()]}), NAMES)

    message, problem = Decoder().decode(bytes(data), borrowed(lenders))

    assert problem is None
    assert message[3] == {(1, lender): [lenders[1]]}


def test_2_3_many_such_keys_are_too_large_for_their_hashes_can_be_made_to_collide() -> None:
    def packet(number: int) -> bytes:
        return (
            b"\xde" + number.to_bytes(2, "big") + b"".join(b"\x91" + msgpack.packb(i) + b"\xc0" for i in range(number))
        )

    assert Decoder().decode(packet(1_024), [])[0] == {(number,): None for number in range(1_024)}
    with pytest.raises(TooLarge, match="at most 1024 keys"):
        Decoder().decode(packet(1_025), [])
    many = dict.fromkeys(range(1_000))
    assert sent([{(1,): 2}, many]) == [{(1,): 2}, many]


def timestamp(seconds: int, nanoseconds: int = 0) -> bytes:
    return b"\x91\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds)


def test_4_timestamps_of_all_three_lengths_are_read() -> None:
    moment = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    for data in (b"\x91\xd6\xff\0\0\0\1", b"\x91\xd7\xff\0\0\0\0\0\0\0\1", timestamp(1), timestamp(1, 999)):
        assert Decoder().decode(data, []) == ([moment], None)


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 253_402_300_800, -62_135_596_801, 10**15])
def test_4_timestamps_out_of_datetimes_range_are_malformed(seconds: int) -> None:
    assert decode_malformed(timestamp(seconds))


def test_4_timestamps_with_a_thousand_million_nanoseconds_are_malformed() -> None:
    assert "nanoseconds" in decode_malformed(timestamp(0, 10**9))
