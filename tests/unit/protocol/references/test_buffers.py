"""References to buffers."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coding import buffer_data, problem_of, travel
from support.descriptors import memory_file, owned, write_only
from support.properties import PROPERTY
from support.scarcity import address_space_used_up

from seqrpc.errors import Overloaded, RpcError, TooLarge
from seqrpc.kernel import memfd
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.limits import Limits
from seqrpc.protocol.decoder import Decoder


@pytest.mark.parametrize(
    "offset, length", [(0, 8), (7, 1), (8, 1), (3, 5), (2**64 - 1, 1), (4096, 1), (2**63, 2**30), (1, 7)]
)
def test_5_3_a_buffer_beyond_the_end_of_its_memfd_is_a_problem(offset: int, length: int) -> None:
    with memory_file(b"content") as file:
        fds = [file]
        value, problem = Decoder().decode(buffer_data(0, offset, length), fds)
        assert value is None
        assert problem == f"a part of {length} bytes at {offset} was promised of a memfd of 7"
        fds[0].close()


@pytest.mark.parametrize("seals", [0, 0b0111, 0b1101, 0b1011])
def test_5_3_a_buffer_in_what_is_not_sealed_is_a_problem(seals: int) -> None:
    fds = [memory_file(b"content", seals=seals)]
    assert "with the seals 0xf was expected" in str(Decoder().decode(buffer_data(0, 0, 7), fds)[1])
    with owned(1) as fds:
        assert "got a file of another kind" in str(Decoder().decode(buffer_data(0, 0, 7), fds)[1])
    with memory_file(b"content") as file:
        fds = [write_only(file)]
        assert "for writing only" in str(Decoder().decode(buffer_data(0, 0, 7), fds)[1])


def test_5_3_a_buffer_of_no_bytes_is_none() -> None:
    assert Decoder().decode(buffer_data(0, 0, 0), [memory_file()]) == (b"", None)
    assert Decoder().decode(buffer_data(0, 7, 0), [memory_file(b"content")]) == (b"", None)
    problem = Decoder().decode(buffer_data(0, 8, 0), [memory_file(b"content")])[1]
    assert problem == "a part of 0 bytes at 8 was promised of a memfd of 7"
    assert "seals" in str(Decoder().decode(buffer_data(0, 0, 0), [memory_file(seals=0)])[1])


def test_5_3_several_buffers_in_one_memfd_have_a_descriptor_each() -> None:
    with memory_file(b"x" * 10_000) as file:
        fds = [OwnedFd.dup(file), OwnedFd.dup(file)]
    message, problem = Decoder().decode(b"\x92" + buffer_data(0, 0, 4096) + buffer_data(1, 4096, 4096), fds)
    assert problem is None
    assert [len(buffer) for buffer in message] == [4096, 4096]

    with memory_file(b"x" * 10_000) as file:
        _message, problem = Decoder().decode(b"\x92" + buffer_data(0, 0, 4096) + buffer_data(0, 4096, 4096), [file])
        assert problem == "descriptor 0 is referred to twice"


@pytest.mark.parametrize("kind, name", [(2, "stream"), (3, "channel")])
def test_4_a_reference_to_a_stream_or_channel_is_one_byte(kind: int, name: str) -> None:
    assert problem_of(b"\xd5" + bytes((kind, 0, 0)), 1) == f"a reference to a {name} has 1 byte, this one 2"
    assert problem_of(b"\xc7\x00" + bytes((kind,)), 1) == f"a reference to a {name} has 1 byte, this one 0"
    assert problem_of(b"\xd4" + bytes((kind, 1)), 1) == "descriptor 1 is referred to, but 1 came"


@pytest.mark.parametrize("size", [0, 1, 16, 18])
def test_4_a_reference_to_a_buffer_is_17_bytes(size: int) -> None:
    assert (
        problem_of(b"\xc7" + bytes((size, 4)) + bytes(size), 1)
        == f"a reference to a buffer has 17 bytes, this one {size}"
    )


def test_a_buffer_over_the_limit_is_not_taken_here_but_well_formed() -> None:
    decoder = Decoder(Limits(max_buffer_bytes=100))
    assert travel(Buffer.allocate(100), decoder)[1] is None
    value, problem, _fds = travel([Buffer.allocate(101), Buffer.allocate(200)], decoder)
    assert value == [None, None]
    assert isinstance(problem, TooLarge)
    assert problem.message == "a buffer has at most 100 bytes (max_buffer_bytes), this one 101"


def test_what_must_be_copied_of_a_message_is_bounded_for_a_memfd_of_holes_costs_its_sender_nothing() -> None:
    decoder = Decoder(Limits(max_message_bytes=100_000))
    sizes = [40_000, 60_000, 1]

    def receive(offset: int, number: int) -> Any:
        with memory_file(size=1 << 30) as file:
            fds = [OwnedFd.dup(file) for _ in range(number)]
        parts = [buffer_data(index, offset, size) for index, size in enumerate(sizes[:number])]
        return decoder.decode(bytes((0x90 + number,)) + b"".join(parts), fds)[1]

    for _ in range(2):  # it is counted by message
        assert receive(1, 2) is None
        assert receive(4096, 3) is None
        problem = receive(1, 3)
        assert isinstance(problem, TooLarge)
        assert problem.message == "buffers that begin within a page have at most 100000 bytes (max_message_bytes)"


def test_a_buffer_that_there_is_no_room_for_is_overload() -> None:
    fds = [memory_file(size=1 << 30), memory_file(size=1 << 30)]
    with address_space_used_up():
        value, problem = Decoder().decode(b"\x92" + buffer_data(0, 0, 1 << 30) + buffer_data(1, 0, 1 << 30), fds)
    assert value == [None, None]
    assert isinstance(problem, Overloaded)
    assert problem.message == f"there is no room for a buffer of {1 << 30} bytes: Cannot allocate memory"
    assert Decoder(Limits(max_buffer_bytes=5)).decode(buffer_data(0, 0, 7), [memory_file(b"content")])[1] is not None


def test_what_is_malformed_is_told_before_what_is_not_taken_here() -> None:
    decoder = Decoder(Limits(max_buffer_bytes=3))
    too_large = buffer_data(0, 0, 7)
    for other in (b"\xd4\x63\x00", b"\xd4\x01\x09", b"\xd4\x01\x00", b"\xc0"):
        for order in (too_large + other, other + too_large):
            fds = [memory_file(b"content"), memory_file()]
            assert isinstance(decoder.decode(b"\x92" + order, fds)[1], str)
            close_all(fds)


@PROPERTY
@given(
    st.integers(0, 9_000),
    st.sampled_from([0, 4096, 8192, 1, 2**63]) | st.integers(0, 10_000),
    st.integers(0, 10_000) | st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.integers(0, 15),
)
def test_any_reference_to_a_buffer_is_that_part_or_a_problem(
    size: int, offset: int, length: int, index: int, missing: int
) -> None:
    content = bytes(number % 251 for number in range(size))
    seals = memfd.SEALS & ~(missing if missing > 11 else 0)
    fds = [memory_file(content, seals=seals), memory_file(content)]
    every = list(fds)
    value, problem = Decoder(Limits(max_buffer_bytes=9_000)).decode(
        b"\x92" + buffer_data(index, offset, length) + b"\xd4\x01\x01", fds
    )
    if problem is None:
        assert index == 0
        assert value[0][:] == content[offset : offset + length]
        assert len(value[0]) == length
        assert seals == memfd.SEALS
        assert value[1] is fds[1] is every[1]
    elif isinstance(problem, RpcError):
        assert isinstance(problem, TooLarge)
        assert length > 9_000
    else:
        assert index or seals != memfd.SEALS or offset + length > size
    close_all(fds)


def test_copying_a_buffer_is_told_as_work() -> None:
    works = []
    decoder = Decoder()
    decoder.references.on_work = lambda: works.append(1)
    with Buffer.copy_of(b"abcd" * 2_000) as buffer:
        buffer.seal()
        for offset, told in ((0, 0), (1, 1)):
            reference = msgpack.packb(msgpack.ExtType(4, (0).to_bytes(1) + offset.to_bytes(8) + (5).to_bytes(8)))
            fds = [OwnedFd.dup(buffer)]
            value, problem = decoder.decode(reference, fds)
            assert (bytes(value), problem) == ((b"abcd" * 3)[offset : offset + 5], None)
            assert len(works) == told
            value.close()
            close_all(fds)


def test_what_has_no_room_is_not_copied() -> None:
    decoder = Decoder()
    decoder.references.lack_of_room = lambda size: f"no room for {size}"
    reference = msgpack.ExtType(4, b"\x00" + (1).to_bytes(8, "big") + (5).to_bytes(8, "big"))
    with memfd.sealed("test", b"content") as file:
        fds = [OwnedFd.dup(file)]
        value, problem = decoder.decode(msgpack.packb([reference]), fds)
        assert value == [None]
        assert isinstance(problem, Overloaded)
        assert problem.message == "no room for 5"
        close_all(fds)
