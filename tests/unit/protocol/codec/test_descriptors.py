"""Descriptors and the references to them."""

from __future__ import annotations

import gc
import io
import socket
import struct
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.codec import NAMES, Record, Structure, borrowed, decode_malformed, problem_of
from support.descriptors import Lender, owned

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, TooLarge
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.codec import Codec


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
        message, problem = Codec().decode(bytes(data), borrowed(lenders))
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
    assert codec.decode(bytes(data), borrowed(order))[1] is None

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
