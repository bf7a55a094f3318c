from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.measures import peak_bytes
from support.properties import PROPERTY

from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.longbytes import EXT_TAKEN, has_long_bytes, pack_in_pieces, take_long_bytes, without_long_bytes

LONG = b"x" * (MAX_PACKET + 1)
LONGER = b"y" * 100_000
SHORT = b"x" * MAX_PACKET

MESSAGES: list[Any] = [
    (0, 1, "m", (LONG,)),
    (0, 1, "m", (LONG, 2, LONGER, LONG), {"deadline": 1}),
    (0, 1, "m", [SHORT, LONG]),
    (0, 1, "m", {"a": LONG, "b": {"c": LONG}, "d": LONGER}),
    (1, 1, None, LONG),
    (2, "m", ()),
    (0, LONG, LONG),
    (0, [[LONG]], {"a": [LONG]}, bytearray(LONG), {LONG: LONG}),
    [],
]


def packed(message: Any) -> Pieces:
    return pack_in_pieces(msgpack.Packer(autoreset=False), message)


def taken(data: bytes, most: int = 64) -> tuple[Any, list[bytes]]:
    rest, long = take_long_bytes(memoryview(data), most, lambda start, size: data[start : start + size])
    return bytes(rest), long


def unpacked(data: bytes, long: list[bytes]) -> Any:
    def hook(kind: int, content: bytes) -> bytes:
        assert kind == EXT_TAKEN
        return long[content[0]]

    return msgpack.unpackb(data, ext_hook=hook, strict_map_key=False)


def test_only_bytes_that_no_packet_holds_are_long() -> None:
    assert has_long_bytes([1, LONG])
    assert has_long_bytes({"a": 1, "b": LONG})
    assert not has_long_bytes([])
    assert not has_long_bytes([SHORT, "x" * 100_000, [LONG], bytearray(LONG)])  # a bytearray may change


BEGIN = 4_096


def taken_from_beginning(data: bytes) -> tuple[Any, list[bytes]]:
    """Take out what is long where only the first bytes are at hand, and the rest is read only where it is long."""

    def read(start: int, size: int) -> bytes:
        assert size > MAX_PACKET
        return data[start : start + size]

    rest, long = take_long_bytes(data[:BEGIN], 64, read, len(data))
    return bytes(rest), long


@pytest.mark.parametrize(
    "message", [(0, 1, "m", [LONG]), (0, 1, "m" * 4_000, {"a": 5, "b": LONGER}), (1, 1, None, LONG), LONG]
)
def test_of_a_message_that_ends_with_long_bytes_the_first_bytes_are_enough(message: Any) -> None:
    data = msgpack.packb(message)
    assert taken_from_beginning(data) == taken(data)
    assert taken_from_beginning(data)[1]


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb((0, 1, "m", [LONG], {"deadline": 1})),
        msgpack.packb((0, 1, "m", [LONG, LONG])),
        msgpack.packb((0, 1, "m", ["x" * 100_000])),
        msgpack.packb((0, 1, "m", [SHORT])),
        msgpack.packb((0, 1, "m" * 5_000, [LONG])),
        msgpack.packb((0, 1, "m" * 4_090, [LONG])),
        msgpack.packb((0, 1, "m", [LONG])) + b"x",
        msgpack.packb((0, 1, "m", [LONG]))[:-1],
        msgpack.packb((0, 1, [1] * 100, LONG)),
        b"\x92\xd4\x80\x00" + msgpack.packb(LONG),
    ],
    ids=range(10),
)
def test_a_message_with_more_behind_its_first_bytes_is_left_as_it_is(data: bytes) -> None:
    assert taken_from_beginning(data) == (data[:BEGIN], [])


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_pieces_are_what_msgpack_packs(message: Any) -> None:
    pieces = packed(message)
    assert bytes(pieces) == msgpack.packb(message)
    assert len(pieces) == len(msgpack.packb(message))


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_a_message_with_its_long_bytes_taken_out_and_put_back_is_the_same(message: Any) -> None:
    data = msgpack.packb(message)
    rest, long = taken(data)
    assert unpacked(rest, long) == msgpack.unpackb(data, strict_map_key=False)
    assert len(rest) + sum(map(len, long)) == len(data) - 2 * len(long)  # three bytes for a head of five


parts = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(), st.binary(), st.sampled_from([LONG, LONGER, SHORT])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)


@PROPERTY
@given(st.lists(parts, max_size=5))
def test_any_message_is_packed_and_taken_apart_as_msgpack_does_it(message: list[Any]) -> None:
    pieces = packed(message)
    data = msgpack.packb(message)
    assert bytes(pieces) == data
    assert unpacked(*taken(data)) == message


def test_long_bytes_are_not_copied() -> None:
    message = (0, 1, "m", (bytes(10_000_000),))
    assert peak_bytes(lambda: packed(message)) < 1_000_000
    assert packed(message).parts[2] is message[3][0]


def test_without_its_long_bytes_a_message_is_as_deep_and_has_as_many_values() -> None:
    message = (0, 1, "m", [LONG, [[LONGER[:10]], 5]], LONG)
    assert msgpack.unpackb(without_long_bytes(packed(message))) == [0, 1, "m", [b"", [[LONGER[:10]], 5]], b""]


@pytest.mark.parametrize("size", [0, 10, 200, 60_000])
@pytest.mark.parametrize("form", [lambda data: msgpack.ExtType(1, data), bytes, lambda data: data.decode()])
def test_other_values_beside_long_bytes_stay_where_they_are(size: int, form: Any) -> None:
    data = msgpack.packb([form(b"z" * size), LONG])
    rest, long = taken(data)
    assert long == [LONG]
    assert rest == data[: -len(LONG) - 5] + bytes((0xD4, EXT_TAKEN & 0xFF, 0))


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 0, 17, 300, 70_000])
def test_a_message_that_has_the_extension_type_itself_is_left_as_it_is(size: int) -> None:
    extension = bytearray(msgpack.packb(msgpack.ExtType(5, bytes(size))))
    extension[-size - 1 if size else -1] = EXT_TAKEN & 0xFF
    data = msgpack.packb([LONG, 1])[:-1] + extension
    found = []
    msgpack.unpackb(data, ext_hook=lambda kind, content: found.append((kind, content)))
    assert found == [(EXT_TAKEN, bytes(size))]
    assert taken(data) == (data, [])


def test_what_is_cut_or_has_many_values_or_no_long_ones_is_left_as_it_is() -> None:
    for data in (
        msgpack.packb([LONG])[:-1],
        msgpack.packb([LONG])[:4],
        b"\x91\xc6\xff\xff\xff\xff" + LONG,
        msgpack.packb([LONG, *range(70)]),
        msgpack.packb([[LONG]] * 10 + [0] * 60),
        msgpack.packb([SHORT]),
        b"",
        b"\xc1",
    ):
        assert taken(data) == (data, [])
    assert taken(msgpack.packb([LONG, 1, 2]), 3)[1] == []
    assert taken(msgpack.packb([LONG, 1, 2]), 4)[1] == [LONG]


def test_what_follows_the_message_is_kept_to_be_found_wrong() -> None:
    rest, long = taken(msgpack.packb([LONG]) + b"\x00")
    assert (rest[-1:], long) == (b"\x00", [LONG])


def test_content_that_looks_like_heads_is_not_looked_at() -> None:
    content = msgpack.packb([LONG, msgpack.ExtType(5, b"")]) * 2
    data = msgpack.packb((1, 1, None, content))
    assert unpacked(*taken(data))[3] == content
