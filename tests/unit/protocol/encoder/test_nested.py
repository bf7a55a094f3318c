"""What takes a value apart may have another message encoded by the same encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from support.descriptors import Lender

from seqrpc.errors import LocalProtocolError
from seqrpc.interface.registering import register_type
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.lenders import Packed
from seqrpc.protocol.values import EXT_DESCRIPTOR


class Calling:
    """Does something as it is taken apart."""

    def __init__(self, does: Callable[[], object]) -> None:
        self.does = does

    def wire(self) -> int:
        self.does()
        return 5


register_type(Calling, wire_type=int, encode=Calling.wire, decode=lambda number: Calling(lambda: number))

LONG = "x" * (MAX_PACKET + 1)
REFERENCE = msgpack.ExtType(EXT_DESCRIPTOR, b"\0")


def told(packed: Packed) -> Any:
    data, _lenders = packed
    return msgpack.unpackb(bytes(data))


@pytest.mark.parametrize("outer", ["a", LONG], ids=["short", "long"])
@pytest.mark.parametrize("inner", ["b", LONG, b"y" * (MAX_PACKET + 1)], ids=["short", "long", "bytes"])
def test_neither_message_has_anything_of_the_other(outer: str, inner: str | bytes) -> None:
    encoder, within = Encoder(), list[Packed]()
    calling = Calling(lambda: within.append(encoder.encode((0, inner, lent), ("kind", "value"), (inner,))))
    lent, own = Lender(), Lender()
    for _ in range(2):  # the second after a long one
        packed = encoder.encode((0, own, outer, calling, outer))
        assert told(packed) == [0, REFERENCE, outer, 5, outer]
        assert told(within.pop()) == [0, inner, REFERENCE]
        assert packed[1] == [own]
    assert told(encoder.encode((1, "after"))) == [1, "after"]


def test_each_has_its_descriptors() -> None:
    encoder, within = Encoder(), list[Packed]()
    lent, own, more = Lender(), Lender(), Lender()
    calling = Calling(lambda: within.append(encoder.encode((0, lent))))
    assert encoder.encode((0, own, calling, more))[1] == [own, more]
    assert within[0][1] == [lent]


def test_one_within_that_cannot_be_sent_costs_nothing_of_the_outer_one() -> None:
    encoder = Encoder()
    refused = list[str]()

    def fail() -> None:
        with pytest.raises(LocalProtocolError) as caught:
            encoder.encode((0, "z", object()))
        refused.append(str(caught.value))

    own = Lender()
    packed = encoder.encode((0, own, Calling(fail), "a"))
    assert (told(packed), packed[1]) == ([0, REFERENCE, 5, "a"], [own])
    assert refused
    assert told(encoder.encode((1, "after"))) == [1, "after"]


def test_an_outer_one_that_cannot_be_sent_costs_nothing_of_the_one_within() -> None:
    encoder, within = Encoder(), list[Packed]()

    def fail() -> None:
        within.append(encoder.encode((0, "b")))
        raise ValueError("not this one")

    with pytest.raises(LocalProtocolError, match="not this one"):
        encoder.encode((0, "a", Calling(fail)))
    assert [told(packed) for packed in within] == [[0, "b"]] * len(within)
    assert told(encoder.encode((1, "after"))) == [1, "after"]


def test_scalars_and_heads_of_arrays_are_made_within_another_message() -> None:
    encoder, made = Encoder(), list[bytes]()
    calling = Calling(lambda: made.extend((encoder.encode_run([1, 2]), encoder.array_header(3))))
    assert told(encoder.encode((0, "a", calling))) == [0, "a", 5]
    assert made == [b"\x01\x02", b"\x93"]
