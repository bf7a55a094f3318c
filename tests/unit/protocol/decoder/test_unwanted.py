"""Messages that nobody wants."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.coding import Life
from support.descriptors import owned

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.maps import KEEPS_KEYS


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
    decoder = Decoder(living=Life())
    with owned(came) as fds:
        value, found = decoder.decode_unwanted(msgpack.packb(message), fds)
        assert found == problem
        if value is None:  # its map was not made, for this Python would keep the key
            assert KEEPS_KEYS
        else:
            assert len(value) == len(message)
        assert [type(fd) for fd in fds] == [OwnedFd] * came
    assert decoder.decode(msgpack.packb([1]), []) == ([1], None), "nothing is left of it"


def test_of_what_nobody_wants_maps_need_not_be_made() -> None:
    decoder = Decoder()
    for key in (1, (1,)):
        assert decoder.decode_unwanted(msgpack.packb({key: 1}), []) == (None, None)
    for data in (b"\x81\x01", b"\x91\x01\x01", b"\xc1"):
        with pytest.raises(RemoteProtocolError, match="malformed packet of"):
            decoder.decode_unwanted(data, [])
