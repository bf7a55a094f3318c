from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.descriptors import Lender, is_open, memory_file, owned, write_only
from support.measures import peak_bytes
from support.properties import PROPERTY, values
from support.scarcity import address_space_used_up, files_of_at_most, table_full
from support.sessions import duplicates
from support.waiting import PATIENCE

from seqrpc.errors import Overloaded, RemoteProtocolError, TooLarge
from seqrpc.kernel import memfd
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import OwnedFd, close_all, received_fd
from seqrpc.kernel.pieces import Pieces
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.longbytes import EXT_TAKEN
from seqrpc.protocol.spilled import (
    NoMemoryFile,
    begin_spilled,
    head_of_spilled,
    read_spilled,
    read_spilled_head,
    write_spilled,
)

LARGE = "x" * 100_000

FALLOC_FL_KEEP_SIZE = 1


def malformed(length: int, fds: list[OwnedFd]) -> str:
    """Return why a spilled message is malformed, and close what came with it."""
    with pytest.raises(RemoteProtocolError, match=r"^malformed ") as caught:
        read_spilled(Decoder(), length, fds)
    close_all(fds)
    return str(caught.value)


@pytest.mark.parametrize(
    "value", [1, "text", LARGE, [LARGE] * 3, {"a": [1] * 50_000}], ids=lambda value: repr(value)[:9]
)
def test_5_1_what_is_written_is_sealed_and_read_back_and_its_file_is_closed(value: Any) -> None:
    data, _lenders = Encoder().encode((1, value))
    file = write_spilled(data)
    assert memfd.check_sealed(file) == len(data)

    fds = [file]
    assert read_spilled(Decoder(), len(data), fds) == ([1, value], None)

    assert fds == []
    assert file.closed


LONG = os.urandom(100_000)


@pytest.mark.parametrize("arguments", [(LONG,), (1, LONG, LARGE, LONG), ({"a": 1}, os.urandom(5_000_000))])
def test_long_bytes_are_written_from_where_they_are_and_come_whole(arguments: tuple[Any, ...]) -> None:
    message = (0, 1, "m", arguments)
    data, _lenders = Encoder().encode(message, values=arguments)
    assert isinstance(data, Pieces)
    assert bytes(data) == msgpack.packb(message)
    value, problem = read_spilled(Decoder(), len(data), [write_spilled(data)])
    assert (value, problem) == ([0, 1, "m", list(arguments)], None)


def test_long_bytes_are_copied_once_on_each_side() -> None:
    arguments = (bytes(20_000_000),)
    data, _lenders = Encoder().encode((0, 1, "m", arguments), values=arguments)
    assert isinstance(data, Pieces)
    files: list[OwnedFd] = []
    assert peak_bytes(lambda: files.append(write_spilled(data))) < 1_000_000
    assert peak_bytes(lambda: read_spilled(Decoder(), len(data), files)) < 21_000_000


def test_beside_long_bytes_references_are_resolved_and_what_is_wrong_with_them_is_told() -> None:
    data, lenders = Encoder().encode((1, LONG, [Lender(), Lender()]), values=(LONG,))
    assert isinstance(data, Pieces)
    fds = [write_spilled(data), *duplicates(lenders)]
    own = fds[1:]
    assert read_spilled(Decoder(), len(data), fds) == ([1, LONG, own], None)
    close_all(own)
    assert read_spilled(Decoder(), len(data), [write_spilled(data)])[1] == "descriptor 0 is referred to, but 0 came"


@pytest.mark.parametrize("value", [msgpack.ExtType(9, b"x"), msgpack.ExtType(100, b"")])
def test_beside_long_bytes_unknown_extension_types_are_malformed(value: msgpack.ExtType) -> None:
    data = msgpack.packb([1, LONG, value])
    assert read_spilled(Decoder(), len(data), [write_spilled(data)])[1] == f"unknown extension type {value.code}"


def test_what_stands_for_long_bytes_in_here_is_unknown_when_it_comes_from_outside() -> None:
    stand_in = bytes((0xD4, EXT_TAKEN & 0xFF, 0))
    for data in (
        b"\x93" + msgpack.packb(1) + msgpack.packb(LONG) + stand_in,
        b"\x93" + msgpack.packb(1) + stand_in + msgpack.packb(LARGE),
    ):
        decoder = Decoder()
        good = msgpack.packb([1, LONG])
        assert read_spilled(decoder, len(good), [write_spilled(good)]) == ([1, LONG], None)
        assert read_spilled(decoder, len(data), [write_spilled(data)])[1] == f"unknown extension type {EXT_TAKEN}"


def test_beside_long_bytes_depth_and_containers_are_bounded_and_cuts_found() -> None:
    deep = msgpack.packb([1, LONG, [[[[1]]]]])
    for limits, error in ((Limits(max_depth=4), RemoteProtocolError), (Limits(max_containers=4), TooLarge)):
        file = write_spilled(deep)
        with file, pytest.raises(error):
            read_spilled(Decoder(limits), len(deep), [file])
    cut = deep[:-4]
    assert "more than its" in malformed(len(cut), [write_spilled(cut)])
    assert "extra" in malformed(len(deep) + 1, [write_spilled(deep + b"\x00")])


def test_5_1_the_message_s_own_descriptors_follow_and_are_left_in_place() -> None:
    data, lenders = Encoder().encode((1, LARGE, [Lender(), Lender()]))
    fds = [write_spilled(data), *duplicates(lenders)]
    own = fds[1:]

    value, problem = read_spilled(Decoder(), len(data), fds)

    assert problem is None
    assert fds == own
    assert value == [1, LARGE, own]
    close_all(fds)


def test_what_is_wrong_with_its_references_is_told() -> None:
    data, _lenders = Encoder().encode((1, LARGE, Lender()))
    assert read_spilled(Decoder(), len(data), [write_spilled(data)])[1] == "descriptor 0 is referred to, but 0 came"
    with owned(2) as more:
        problem = read_spilled(Decoder(), len(data), [write_spilled(data), *more])[1]
        assert problem == "2 descriptors came, 1 of them are referred to"


def test_5_2_without_a_descriptor_there_is_no_message() -> None:
    assert malformed(100, []) == "malformed spilled message: no descriptor came with it"


@pytest.mark.parametrize("size", [0, 1, 99, 101, 1 << 40])
def test_5_2_the_file_holds_exactly_what_was_promised(size: int) -> None:
    reason = malformed(100, [memory_file(size=size)])
    assert reason == f"malformed spilled message: 100 bytes were promised, the memfd has {size}"


@pytest.mark.parametrize("seals", [0, 0b0111, 0b1011, 0b1101, 0b1110])
def test_5_2_a_file_without_all_of_its_seals_is_not_even_looked_at(seals: int) -> None:
    data = msgpack.packb([1, 2, 3])
    assert "seals" in malformed(len(data), [memory_file(data, seals=seals)])


def test_5_2_what_cannot_be_read_is_malformed() -> None:
    with memory_file(b"\xc0") as file:
        assert "for writing only" in malformed(1, [write_only(file)])
    assert "a file of another kind" in malformed(1, [OwnedFd(os.open(os.devnull, os.O_RDWR))])
    assert "a file of another kind" in malformed(1, [OwnedFd(os.open("/", os.O_RDONLY))])


@pytest.mark.parametrize("content", [b"\xc1", b"\x92\x01", b"\x01\x02", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000])
def test_what_is_no_message_is_malformed_and_the_file_closed(content: bytes) -> None:
    file = memory_file(content)
    assert malformed(len(content), [file]).startswith(f"malformed packet of {len(content)} bytes: ")
    assert file.closed


def test_one_that_there_is_no_room_for_is_left_where_it_was() -> None:
    size = 60 << 20
    with memory_file(b"\x94", size=size, whole=True) as file:
        fds = [file]
        with address_space_used_up(), pytest.raises(Overloaded) as caught:
            read_spilled(Decoder(), size, fds)
        assert caught.value.message == f"there is no room for a message of {size} bytes: Cannot allocate memory"
        assert fds == [file]
        assert not file.closed


def test_one_whose_long_bytes_there_is_no_room_for_is_left_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if size == len(LONG):
            raise MemoryError  # the C library may have room left that it once had
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    data = msgpack.packb([0, 7, "m", [LONG]])
    with write_spilled(data) as file:
        fds = [file]
        with pytest.raises(Overloaded) as caught:
            read_spilled(Decoder(), len(data), fds)
        assert caught.value.message == f"there is no room for a message of {len(LONG)} bytes: Cannot allocate memory"
        assert fds == [file]
        assert not file.closed


def test_one_of_too_many_arrays_and_maps_is_left_where_it_was() -> None:
    data = b"\xdd\x00\x01\x86\xa0" + b"\x90" * 100_000
    with memory_file(data) as file:
        fds = [file]
        with pytest.raises(TooLarge, match="max_containers"):
            read_spilled(Decoder(Limits(max_containers=1_000)), len(data), fds)
        assert fds == [file]
        assert not file.closed


def test_one_of_holes_is_not_looked_at() -> None:
    with memory_file(b"\xdd\x00\x7a\x11\xfb", size=8_000_000) as file:
        before = os.fstat(file.fileno()).st_blocks
        with pytest.raises(RemoteProtocolError, match="its memfd has holes"):
            read_spilled(Decoder(), 8_000_000, [file])
        assert os.fstat(file.fileno()).st_blocks == before, "nothing of it was filled"


def test_one_of_holes_is_not_looked_at_because_it_has_memory_beyond_its_end() -> None:
    size = 8_000_000
    with memory_file(b"\xdb" + (size - 5).to_bytes(4, "big"), size=size, seals=0) as file:
        room = [ctypes.c_long(number) for number in (size + 4096, size)]
        assert ctypes.CDLL(None).fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE, *room) == 0
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, memfd.SEALS)
        before = os.fstat(file.fileno()).st_blocks
        assert before * 512 > size
        with pytest.raises(RemoteProtocolError, match="its memfd has holes"):
            read_spilled(Decoder(), size, [file])
        assert os.fstat(file.fileno()).st_blocks == before, "nothing of it was filled"


def test_one_of_holes_is_not_looked_at_where_its_long_bytes_would_be_read_either() -> None:
    begin = b"\x94\x00\x07\xa1m\x91\xc6" + (7_000_000).to_bytes(4, "big")
    size = len(begin) + 7_000_000
    with memory_file(begin, size=size) as file:
        before = os.fstat(file.fileno()).st_blocks
        with pytest.raises(RemoteProtocolError, match="its memfd has holes"):
            read_spilled(Decoder(), size, [file], begin_spilled(size, [file]))
        assert os.fstat(file.fileno()).st_blocks == before, "nothing of it was filled"


def test_long_bytes_at_the_end_are_read_without_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", no_room)
    for message in ([0, 7, "m", [LONG]], [1, 7, None, LONG], [0, 7, "m", [1, 2]]):
        data = msgpack.packb(message)
        assert read_spilled(Decoder(), len(data), [write_spilled(data)]) == (message, None)
    later = msgpack.packb([0, 7, "m", [LONG], {"deadline": 1}])
    with write_spilled(later) as file, pytest.raises(Overloaded, match="no room"):
        read_spilled(Decoder(), len(later), [file])


def test_what_was_checked_with_its_first_bytes_is_read_as_it_was() -> None:
    data = msgpack.packb([0, 7, "m", [LONG]])
    fds = [write_spilled(data)]
    begin = begin_spilled(len(data), fds)
    assert begin == data[:4_096]
    for change in (
        lambda: os.truncate(fds[0].fileno(), 10),
        lambda: os.truncate(fds[0].fileno(), len(data) + 1),
        lambda: os.pwrite(fds[0].fileno(), b"x", 0),
        lambda: os.posix_fallocate(fds[0].fileno(), 0, 9 << 20),
    ):
        with pytest.raises(PermissionError):
            change()
    assert read_spilled(Decoder(), len(data), fds, begin) == ([0, 7, "m", [LONG]], None)


def test_one_that_takes_far_more_memory_than_its_length_is_closed_elsewhere() -> None:
    data = msgpack.packb([0, 7, "m", [LONG]])
    made = memory_file(data, seals=0)
    assert ctypes.CDLL(None).fallocate(made.fileno(), 1, ctypes.c_long(0), ctypes.c_long(64 << 20)) == 0  # KEEP_SIZE
    memfd.seal(made)
    number = made.detach()
    assert read_spilled(Decoder(), len(data), [received_fd(number, 1001)])[1] is None
    assert CLOSER.wait_idle(PATIENCE)
    assert not is_open(number)


def test_one_of_many_values_costs_no_more_than_its_length() -> None:
    size = 8_000_000
    file = memory_file(b"\xdd\x00\x7a\x11\xfb", size=size, whole=True)  # an array of so many small integers

    def read() -> None:
        value, problem = read_spilled(Decoder(), size, [file])
        assert (len(value), problem) == (size - 5, None)

    began = time.process_time()
    assert peak_bytes(read) < 12 * size
    assert time.process_time() - began < 5


def test_bytes_are_copied_once() -> None:
    content = bytes(20_000_000)
    data = bytes(Encoder().encode((1, content))[0])
    file = write_spilled(data)
    assert peak_bytes(lambda: read_spilled(Decoder(), len(data), [file])) < 1.2 * len(content)


def test_the_head_is_told_without_reading_the_rest() -> None:
    for message, head in (
        ((0, 7, "m", [LARGE]), (4, 0, 7, "m")),
        ((1, 2**32 - 1, None, LARGE), (4, 1, 2**32 - 1, None)),
        ((2, "m"), (2, 2, None, "m")),
    ):
        data = Encoder().encode(message)[0]
        with write_spilled(data) as file:
            fds = [file]
            assert head_of_spilled(len(data), fds) == head
            assert fds == [file]
            assert not file.closed

    with memory_file(b"\x94\x00\x07\xa1m", size=1 << 45) as file:
        assert head_of_spilled(1 << 45, [file]) == (4, 0, 7, "m")


def test_there_is_no_head_of_what_is_malformed() -> None:
    data = msgpack.packb([0, 7, "m", []])
    assert head_of_spilled(len(data), []) is None
    with memory_file(data) as file, write_only(file) as blind, memory_file(data, seals=0) as open_file, owned(1) as fds:
        assert head_of_spilled(len(data) + 1, [file]) is None
        assert head_of_spilled(len(data), [blind]) is None
        assert head_of_spilled(len(data), [open_file]) is None
        assert head_of_spilled(len(data), fds) is None
        assert head_of_spilled(len(data), [file]) == (4, 0, 7, "m")


@PROPERTY
@given(values(), st.integers(0, 2))
def test_values_pass_through_a_file_as_through_a_packet(value: Any, descriptors: int) -> None:
    data, lenders = Encoder().encode((1, value, [Lender() for _ in range(descriptors)]))
    fds = [write_spilled(data), *duplicates(lenders)]
    assert read_spilled(Decoder(), len(data), fds) == ([1, value, fds], None)
    close_all(fds)


@PROPERTY
@given(
    st.binary(min_size=1, max_size=200),
    st.integers(0, MAX_PACKET),
    st.integers(-2, 2),
    st.integers(0, 15),
    st.integers(0, 3),
)
def test_any_file_is_a_message_or_malformed(content: bytes, hole: int, lie: int, seals: int, descriptors: int) -> None:
    size = len(content) + hole
    with owned(descriptors) as others:
        file = memory_file(content, size=size, seals=memfd.SEALS & ~seals if seals < 4 else memfd.SEALS)
        fds = [file, *others]
        reason = ""
        try:
            read_spilled(Decoder(), size + lie, fds)
        except RemoteProtocolError as exc:
            reason = str(exc)
        assert len(reason) < 500
        assert reason or not lie
        assert file.closed == (fds == others) == (not reason)
        assert not any(fd.closed for fd in others)
        file.close()


# A look before it is read


@pytest.mark.parametrize(
    "message, seen",
    [
        ((0, 7, "S.m", [1]), (4, 0, 7, "S.m")),
        ((2, "S.m", [1]), (3, 2, None, "S.m")),
        ((1, 7, None, [1]), (4, 1, 7, None)),
        ((5, "a reason"), (2, 5, None, None)),
        ((9, [1]), (2, 9, None, None)),
        ((0, 7, "m" * 5_000, []), (4, 0, 7, "")),
    ],
)
def test_kind_id_and_method_are_seen_before_it_is_read(message: tuple[Any, ...], seen: Any) -> None:
    data = msgpack.packb(message)
    with write_spilled(data) as file:
        assert read_spilled_head(len(data), [file]) == seen


@pytest.mark.parametrize(
    "data", [b"\xc0", b"\x90", b"\x92\xa1a\x00", b"\x93\x00\xa1a\xa1b", b"\x93\x02\x05\x90", b"\x93\x00\xc1"]
)
def test_what_begins_like_no_message_is_malformed(data: bytes) -> None:
    with write_spilled(data) as file, pytest.raises(RemoteProtocolError, match="malformed"):
        read_spilled_head(len(data), [file])


def test_without_a_memory_file_there_is_nothing_to_see() -> None:
    with pytest.raises(RemoteProtocolError, match="no descriptor came with it"):
        read_spilled_head(5, [])


def test_why_there_is_no_memory_file_is_told() -> None:
    with table_full(), pytest.raises(NoMemoryFile, match="Too many open files") as full:
        write_spilled(b"x" * 100_000)
    with files_of_at_most(50_000), pytest.raises(NoMemoryFile, match="File too large") as large:
        write_spilled(b"x" * 100_000)
    assert (full.value.errno, large.value.errno) == (errno.EMFILE, errno.EFBIG)


@pytest.mark.parametrize(
    "value", [{key << 20: None for key in range(100_000)}, [["x" * 30] * 3_000, dict.fromkeys(range(1_025))]]
)
def test_2_3_a_message_of_too_many_such_keys_is_too_large_and_its_mapping_is_closed(value: Any) -> None:
    data = msgpack.packb([0, 1, "A.b", [value]])
    fds = [memory_file(data)]
    file = fds[0]

    with pytest.raises(TooLarge, match=r"max_other_keys"):
        read_spilled(Decoder(), len(data), fds)

    assert fds == [file]  # and no BufferError: nothing refers to the mapping any more
    close_all(fds)


def test_a_message_that_ends_in_a_bad_map_is_malformed_and_its_mapping_is_closed() -> None:
    data = msgpack.packb([1, ["x"] * 100_000]) + b"\x81\x01"
    assert "malformed" in malformed(len(data), [memory_file(data)])
