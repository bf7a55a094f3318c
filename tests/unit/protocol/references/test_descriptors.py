"""References to descriptors, and to what goes with them."""

from __future__ import annotations

import gc
import struct
import weakref

import pytest
from support.coding import Life, problem_of, travel
from support.descriptors import Lender, owned
from support.sessions import duplicates

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import ValueFd, close_all
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.values import EXT_STREAM, BareValue


def test_received_descriptors_are_not_kept_after_the_message_is_gone() -> None:
    decoder = Decoder()
    with owned(1) as fds:
        alive = weakref.ref(fds[0])
        assert decoder.decode(b"\xd4\x01\x00", fds)[0] is fds[0]
        fds.pop().close()
        gc.collect()
    assert alive() is None


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
    decoder = Decoder()
    assert decoder.decode(b"\xd4\x05\x00", [])[1] is not None
    assert decoder.decode(b"\x90", []) == ([], None)
    with owned(1) as fds:
        assert decoder.decode(b"\xd4\x01\x00", fds)[1] is None
        assert decoder.decode(b"\x90", [])[1] is None


def test_a_message_of_nothing_but_bad_references_is_given_up() -> None:
    bad = b"\xd4\x01\xfe"
    value, problem = Decoder().decode(b"\xdc\x03\xe8" + bad * 1_000, [])
    assert value == [None] * 1_000
    assert problem == "descriptor 254 is referred to, but 0 came"
    with pytest.raises(RemoteProtocolError, match="more than 1000 bad references, one of them: descriptor 254"):
        Decoder().decode(b"\xdc\x03\xe9" + bad * 1_001, [])
    assert Decoder().decode(b"\x91" + bad, [])[1] == "descriptor 254 is referred to, but 0 came"


def test_what_cannot_be_made_of_what_came_in_is_a_problem() -> None:
    fds = duplicates([Lender()])
    value, problem = Decoder(living=Life(fails=ValueError("no socket"))).decode(b"\xd4\x02\x00", fds)
    assert (value, problem) == (None, "no socket")
    assert isinstance(fds[0], ValueFd)


def test_living_values_in_and_beside_keys_that_are_arrays_arrive() -> None:
    """Such a message is read twice."""
    with owned(1) as (fd,), Buffer.copy_of(b"content") as buffer:
        value = {(1, 2): [BareValue(EXT_STREAM, fd), buffer], "more": {(): buffer}}
        received, problem, fds = travel(value)
    assert problem is None
    bare, first = received[(1, 2)]
    second = received["more"][()]
    assert (first[:], second[:]) == (b"content", b"content")
    assert [bare.fd, first._memfd, second._memfd] == fds
    assert not any(fd.closed for fd in fds)


def test_what_refers_to_a_closed_descriptor_closes_nothing_twice() -> None:
    received, _problem, fds = travel([Buffer.copy_of(b"content")])
    received[0].close()
    assert fds[0].closed
    close_all(fds)
