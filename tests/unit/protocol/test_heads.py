"""How messages begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.descriptors import Lender
from support.measures import peak_bytes
from support.properties import PROPERTY

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.heads import METHOD_BYTES, Head, _read_any, head_of, read_head

UINTS = [b"\x07", b"\xcc\x07", b"\xcd\x00\x07", b"\xce\x00\x00\x00\x07", b"\xcf" + bytes(7) + b"\x07"]
TEXTS = [b"\xa3S.m", b"\xd9\x03S.m", b"\xda\x00\x03S.m", b"\xdb\x00\x00\x00\x03S.m"]


@pytest.mark.parametrize("form", [bytes, memoryview])
@pytest.mark.parametrize(
    "message, head",
    [
        ((0, 7, "S.m", [1]), (4, 0, 7, "S.m")),
        ((0, 2**32 - 1, "S.m" * 20, [], {}), (5, 0, 2**32 - 1, "S.m" * 20)),
        ((1, 300, None, [1]), (4, 1, 300, None)),
        ((2, "Sé.m", []), (3, 2, None, "Sé.m")),
        ((3, 7), (2, 3, None, None)),
        ((4, 70_000), (2, 4, None, None)),
        ((4, 70_000, 7), (3, 4, None, None)),
        ((5, "a reason"), (2, 5, None, None)),
        ((9, {"of": "a later protocol"}), (2, 9, None, None)),
        ((2**64 - 1,), (1, 2**64 - 1, None, None)),
        ((1, 7, *[None] * 70_000), (70_002, 1, 7, None)),
        ((0, 7, "m" * 5_000, []), (4, 0, 7, "")),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_kind_id_and_method_are_in_the_first_bytes(
    form: Callable[[bytes], bytes | memoryview], message: tuple[Any, ...], head: Any
) -> None:
    data = msgpack.packb(message)
    assert read_head(form(data[:METHOD_BYTES]), len(data)) == head
    assert head_of(form(data)) == head


@pytest.mark.parametrize("method", TEXTS)
@pytest.mark.parametrize("call_id", UINTS)
@pytest.mark.parametrize("kind", [b"\x00", b"\xcc\x00", b"\xce" + bytes(4)])
@pytest.mark.parametrize("array", [b"\x94", b"\xdc\x00\x04", b"\xdd\x00\x00\x00\x04"])
def test_however_it_is_written(array: bytes, kind: bytes, call_id: bytes, method: bytes) -> None:
    assert read_head(array + kind + call_id + method + b"\x90") == (4, 0, 7, "S.m")


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "ends within its head"),
        (b"\xc0", "begins like no message"),
        (b"\x81\x00\x00", "begins like no message"),
        (b"\xc1", "begins like no message"),
        (b"\x90", "an array with a kind"),
        (b"\x92\xa1a\x00", "a kind is an unsigned integer"),
        (b"\x92\xff\x00", "a kind is an unsigned integer"),
        (b"\x94\xc2\x07\xa1m\x90", "a kind is an unsigned integer"),
        (b"\x94\x00", "ends within its head"),
        (b"\x94\x00\xff\xa1m\x90", "an id is an unsigned 32-bit integer"),
        (b"\x94\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xc0\xc0", "an id is an unsigned 32-bit integer"),
        (b"\x94\x00\xa1a\xa1m\x90", "an id is an unsigned 32-bit integer"),
        (b"\x94\x00\x07\x05\x90", "a method is a string"),
        (b"\x93\x02\xc4\x01m\x90", "a method is a string"),
        (b"\x93\x02\xa9m", "ends within its head"),
        (b"\x93\x02\xd9", "ends within its head"),
        (b"\x94\x00\xcd\x01", "ends within its head"),
        (b"\x93\x02\xa1\xff\x90", "begins like no message"),
        (b"\x93\x02\xda\x00\x01\xff\x90", "begins like no message"),
    ],
)
def test_what_begins_like_no_message_is_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        read_head(data)
    assert head_of(data) is None


@PROPERTY
@given(st.one_of(st.binary(max_size=30), st.binary(max_size=30).map(lambda rest: b"\x94" + rest)))
def test_the_short_way_reads_what_the_long_way_does(data: bytes) -> None:
    def outcome(read: Callable[..., Head]) -> Any:
        try:
            return read(data, len(data))
        except RemoteProtocolError as exc:
            return str(exc)

    assert outcome(read_head) == outcome(_read_any)


def test_the_head_of_a_message_in_pieces_is_in_the_first() -> None:
    arguments = (1, bytes(MAX_PACKET + 1), {"a": [Lender()]})
    packed, _lenders = Encoder().encode((0, 7, "m", arguments), values=arguments)
    assert isinstance(packed, Pieces)
    assert head_of(packed) == (4, 0, 7, "m")


@pytest.mark.parametrize(
    "part",
    [
        b"\xdd\x00\x00\xff\xff" * 1_000,
        b"\xde\x23\x28" + b"\xa1a\xc0" * 9_000,
        b"\xc9\x00\x00\xea\x60\x01" + bytes(60_000),
    ],
    ids=["arrays", "a map", "an extension"],
)
def test_nothing_is_made_of_a_head_that_is_none(part: bytes) -> None:
    packet = b"\x94\x00" + part + b"\xc0" * (MAX_PACKET - len(part) - 2)

    def read() -> None:
        with pytest.raises(RemoteProtocolError, match="begins like no message"):
            read_head(packet)

    assert peak_bytes(read) < 2 * MAX_PACKET  # the nested arrays alone would be 64 MiB
