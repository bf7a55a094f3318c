"""Whole messages: what they are in bytes, and how long they may be."""

from __future__ import annotations

import dataclasses
import gc
import tracemalloc
import weakref
from contextlib import suppress
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coding import NAMES, borrowed, encode, nested, refusal, sent
from support.descriptors import Lender
from support.properties import PROPERTY, scalars, values

from seqrpc.errors import LocalProtocolError, TooLarge
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder


@PROPERTY
@given(values())
def test_plain_values_arrive_as_they_were_sent(value: Any) -> None:
    assert sent(value) == value


@PROPERTY
@given(values(scalars() | st.builds(Lender)))
def test_values_with_descriptors_at_any_depth_arrive_as_they_were_sent(value: Any) -> None:
    encoder, decoder = Encoder(), Decoder()
    data, lenders = encoder.encode((1, 1, None, value), NAMES)

    message, problem = decoder.decode(bytes(data), borrowed(lenders))

    assert problem is None
    assert message == [1, 1, None, value]  # lenders equal nothing but themselves


def test_1_2_a_message_of_exactly_the_largest_size_passes() -> None:
    text = "x" * (MAX_PACKET - 7)
    data = encode(text)
    assert len(data) == MAX_PACKET
    assert Decoder().decode(data, []) == ([1, 1, None, text], None)


def test_1_2_a_message_longer_than_a_packet_is_a_memoryview_and_decodes_as_one() -> None:
    encoder, decoder = Encoder(), Decoder()
    for text in ("x" * (MAX_PACKET - 6), "y" * 1_000_000):
        data = encode(text, encoder)
        assert isinstance(data, memoryview)
        assert decoder.decode(data, []) == ([1, 1, None, text], None)
        assert decoder.decode(bytes(data), []) == ([1, 1, None, text], None)
    assert isinstance(encode("x" * (MAX_PACKET - 7), encoder), bytes)


def test_a_long_message_stays_as_it_is_when_the_next_is_encoded() -> None:
    encoder, decoder = Encoder(), Decoder()
    first, second = encode("x" * 100_000, encoder), encode("y" * 100_000, encoder)
    assert decoder.decode(first, [])[0][3] == "x" * 100_000
    assert decoder.decode(second, [])[0][3] == "y" * 100_000


def test_a_message_beyond_max_message_bytes_is_not_sent() -> None:
    encoder = Encoder(Limits(max_message_bytes=100_000))
    assert len(encode(b"x" * (100_000 - 9), encoder)) == 100_000
    with pytest.raises(TooLarge, match=r"at most 100000 bytes \(max_message_bytes\), this one 100001"):
        encode(b"x" * (100_000 - 8), encoder)


def test_long_bytes_among_the_arguments_are_not_copied_and_the_message_is_the_same() -> None:
    encoder, arguments = Encoder(), (1, bytes(10_000_000), {"a": [Lender()]})
    message = (0, 7, "m", arguments)
    packed, lenders = encoder.encode(message, NAMES, arguments)
    assert isinstance(packed, Pieces)
    assert any(part is arguments[1] for part in packed.parts)
    by_name, _ = encoder.encode((2, "m", {"a": 1, "b": arguments[1]}), NAMES, {"a": 1, "b": arguments[1]})
    assert isinstance(by_name, Pieces)
    plain, same = encoder.encode(message)
    assert bytes(packed) == bytes(plain)
    assert (lenders, len(lenders)) == (same, 1)


def test_a_message_with_long_bytes_is_bounded_as_any_and_nothing_is_left_of_one_that_is_not_sent() -> None:
    long = bytes(100_000)
    encoder = Encoder(Limits(max_message_bytes=200_000, max_depth=4))
    for argument, error, text in (
        (bytes(200_000), TooLarge, r"at most 200000 bytes \(max_message_bytes\), this one 300016$"),
        ([[[]]], LocalProtocolError, r"max_depth \(4\)"),
        ([Lender()] * 253, LocalProtocolError, "at most 252 descriptors, this one more"),
        (object(), LocalProtocolError, r"cannot send params\[1\]: a value of type object"),
    ):
        arguments = (long, argument)
        with pytest.raises(error, match=text):
            encoder.encode((0, 7, "m", arguments), ("kind", "id", "method", "params"), arguments)
        assert encoder.encode((1, 2)) == (b"\x92\x01\x02", [])


def test_an_interrupt_while_a_message_is_packed_leaves_no_descriptor_to_the_next_one() -> None:
    class Interrupting:
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    encoder, lender = Encoder(), Lender()
    for long in ((), (bytes(MAX_PACKET + 1),)):  # in one piece, and in pieces
        with pytest.raises(KeyboardInterrupt):
            encoder.encode((1, Lender(), Interrupting(), *long), values=long)
        assert encoder.encode((1, lender, *long), values=long)[1] == [lender]


@pytest.mark.parametrize("limits", [Limits(), Limits(max_message_bytes=MAX_PACKET)], ids=["sent", "too large"])
def test_a_large_message_leaves_no_large_buffer_behind(limits: Limits) -> None:
    encoder = Encoder(limits)

    def large() -> int:
        with suppress(TooLarge):
            encode(b"x" * 50_000_000, encoder)
        return len(encode(1, encoder))

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
    encoder = Encoder()
    text = "x" * MAX_PACKET
    assert len(encoder.encode((1, [Lender()] * 252, text))[1]) == 252
    with pytest.raises(LocalProtocolError, match="more than 65536 bytes holds at most 252 descriptors, this one more"):
        encoder.encode((1, [Lender()] * 253, text))
    assert len(encoder.encode((1, [Lender()] * 253))[1]) == 253


def test_a_few_scalars_are_encoded_one_after_the_other() -> None:
    encoder = Encoder()
    for values_ in ([], [1], [1, "a", None, True, 1.5, b"x"], list(range(15)), list(range(16)), ["text"] * 256):
        assert encoder.encode_run(values_) == b"".join(msgpack.packb(value) for value in values_)
        assert encoder.array_header(len(values_)) + encoder.encode_run(values_) == encoder.encode(values_)[0]
    for bad in (2**64, "\udcff"):
        with pytest.raises((OverflowError, UnicodeEncodeError)):
            encoder.encode_run([1, bad, 2])
        assert encoder.encode_run([1, 2]) == b"\x01\x02", "what failed left something behind"


def test_one_that_was_let_go_is_freed_at_once_and_encodes_all_the_same() -> None:
    gc.collect()
    gc.disable()
    try:
        encoder = Encoder()
        before = encoder.encode((1, 2))
        encoder.let_go()
        gone = weakref.ref(encoder)
        del encoder
        assert gone() is None
    finally:
        gc.enable()
    again = Encoder()
    again.let_go()
    assert again.encode((1, 2)) == before
    assert again.encode((1, "x" * 70_000))[0]


@dataclasses.dataclass
class Job:
    number: int
    copies: int = 1


def test_what_msgspec_made_without_its_defaults_is_sent_with_them() -> None:
    encoder = Encoder()
    received = msgspec.convert({"number": 7}, Job)
    for job in (received, Job(7), received):  # the second is remembered as plain data
        assert msgpack.unpackb(encoder.encode(job)[0]) == {"number": 7, "copies": 1}
