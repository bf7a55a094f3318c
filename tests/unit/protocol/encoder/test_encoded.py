"""Values that are encoded once and sent many times."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coding import nested
from support.properties import PROPERTY

from seqrpc.errors import LocalProtocolError, TooLarge
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.encoded import Encoded
from seqrpc.protocol.encoder import Encoder, encode_once


@PROPERTY
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_message_is_the_same_however_its_last_part_is_given(value: Any) -> None:
    encoder = Encoder()
    expected = encoder.encode((1, 5, None, value))
    assert encoder.encode_with((1, 5, None), encode_once(value)) == expected
    assert encoder.encode((1, 5, None, encode_once(value))) == expected
    assert encoder.encode((1, 5, [encode_once(value)], {"a": encode_once(value)})) == encoder.encode(
        (1, 5, [value], {"a": value})
    )


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_long_message_is_not_copied(beyond: int) -> None:
    last = encode_once("x" * (MAX_PACKET - 7 + beyond))
    data, lenders = Encoder().encode_with((1, 5, None), last)
    assert lenders == []
    assert len(data) == MAX_PACKET + beyond
    assert bytes(data) == b"\x94\x01\x05\xc0" + last.data
    if beyond:
        assert isinstance(data, Pieces)
        assert data.parts[1] is last.data
    else:
        assert type(data) is bytes


def test_a_message_that_is_too_long_is_refused() -> None:
    encoder = Encoder(Limits(max_message_bytes=MAX_PACKET))
    with pytest.raises(TooLarge, match="at most 65536 bytes"):
        encoder.encode_with((1, 5, None), Encoded(msgpack.packb("x" * MAX_PACKET)))
    assert encoder.encode((1, 5, None, 5)) == (b"\x94\x01\x05\xc0\x05", [])


def test_what_nobody_could_be_sent_is_not_encoded() -> None:
    with pytest.raises(LocalProtocolError, match="max_depth"):
        encode_once(nested(64))
    assert encode_once(nested(63)).data == msgpack.packb(nested(63))
    with pytest.raises(LocalProtocolError):
        encode_once(object())
