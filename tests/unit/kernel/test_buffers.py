from __future__ import annotations

import array
import ctypes
import errno
import gc
import mmap
import os
import resource
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.descriptors import memory_file
from support.measures import peak_bytes
from support.processes import ChildFailed, in_child, running_child
from support.properties import PROPERTY
from support.scarcity import address_space_used_up

from seqrpc.kernel import buffers, memfd
from seqrpc.kernel.buffers import Buffer, BytesLike, must_copy, received_buffer
from seqrpc.kernel.descriptors import OwnedFd, ValueFd

PAGE = mmap.PAGESIZE


def address_of(buffer: Buffer) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def mappings() -> int:
    """Return how many mappings of buffers this process has."""
    return Path("/proc/self/maps").read_text().count("memfd:seqrpc-buffer")


def as_received(buffer: Buffer) -> Buffer:
    """Return what a receiver makes of a buffer that was sent."""
    buffer.seal()
    return received_buffer(ValueFd(os.dup(buffer.fileno())), buffer.offset, len(buffer))


def test_an_allocated_one_holds_zeros_and_is_written_in_place() -> None:
    with Buffer.allocate(10_000) as buffer:
        assert len(buffer) == 10_000
        assert buffer[:] == bytes(10_000)
        buffer[3:6] = b"abc"
        assert os.pread(buffer.fileno(), 10, 0) == b"\0\0\0abc\0\0\0\0", "it is the memory file's own memory"
        assert not buffer.sealed
        assert buffer.offset == 0
        assert isinstance(buffer, mmap.mmap)


@pytest.mark.parametrize("size", [0, -1])
def test_one_of_no_bytes_is_not_made(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 byte, got {size}"):
        Buffer.allocate(size)


def test_a_large_one_takes_no_memory_until_it_is_touched() -> None:
    with Buffer.allocate(1 << 34) as buffer:
        buffer[1 << 33] = 1
        assert os.fstat(buffer.fileno()).st_blocks * 512 <= 2 * 1024 * 1024  # a page, at most a huge one


def test_one_that_there_is_no_room_for_is_an_error_and_nothing_stays_open() -> None:
    with address_space_used_up(), pytest.raises(OSError, match="Cannot allocate memory"):
        Buffer.allocate(1 << 30)


def test_too_many_descriptors_are_an_error_and_nothing_stays_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    for free in (0, 1):  # a buffer takes two
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                Buffer.allocate(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Format(ctypes.BigEndianStructure):
    _fields_ = (("a", ctypes.c_uint16), ("b", ctypes.c_uint32))


@pytest.mark.parametrize(
    "content",
    [
        b"bytes",
        bytearray(b"bytes"),
        array.array("d", [1.5, 2.5]),
        memoryview(b"0123456789")[2:5],
        memoryview(bytes(24)).cast("i", (2, 3)),
        (Format * 2)(Format(1, 2), Format(3, 4)),
    ],
    ids=lambda content: type(content).__name__,
)
def test_a_copy_holds_the_bytes_of_anything_with_the_buffer_protocol(content: Any) -> None:
    with Buffer.copy_of(content) as buffer:
        assert buffer[:] == memoryview(content).tobytes()
        assert not buffer.sealed
        buffer[0] = 77


def test_a_copy_of_another_buffer_is_writable_and_its_own() -> None:
    with Buffer.copy_of(b"first") as first, as_received(first) as received, Buffer.copy_of(received) as copy:
        copy[:] = b"other"
        assert (first[:], received[:]) == (b"first", b"first")


def test_what_has_no_bytes_or_does_not_lie_in_one_piece_is_not_copied() -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        Buffer.copy_of(b"")
    with pytest.raises(BufferError, match="in one piece"):
        Buffer.copy_of(memoryview(bytes(9))[::2])
    with pytest.raises(TypeError, match="bytes-like"):
        Buffer.copy_of("text")


def test_a_copy_of_a_large_thing_is_made_once() -> None:
    content = bytes(10_000_000)

    def copy() -> None:
        Buffer.copy_of(content).close()

    assert peak_bytes(copy) < 100_000


def test_a_copy_that_the_kernel_writes_in_part_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: real(fd, memoryview(content)[:5_000]))
    with Buffer.copy_of(b"x" * 10_000) as buffer:
        assert buffer[:] == b"x" * 10_000


def test_a_copy_for_which_there_is_no_room_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, content: object) -> int:
        raise OSError(errno.ENOSPC, "as with no memory left")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no memory left"):
        Buffer.copy_of(b"content")


def test_sealing_keeps_content_address_and_what_was_made_of_it() -> None:
    with Buffer.allocate(3 * PAGE) as buffer:
        numbers = memoryview(buffer).cast("I")
        numbers[0], numbers[-1] = 7, 8
        address = address_of(buffer)

        buffer.seal()

        assert buffer.sealed
        assert address_of(buffer) == address
        assert (numbers[0], numbers[-1]) == (7, 8)
        with OwnedFd.dup(buffer) as fd:
            assert memfd.check_sealed(fd) == 3 * PAGE
        buffer.seal()  # as it is when it is sent again
        numbers.release()


def test_what_is_written_after_sealing_is_seen_here_only() -> None:
    with Buffer.copy_of(b"before") as buffer, as_received(buffer) as received:
        buffer[:] = b"after!"
        assert buffer[:] == b"after!"
        assert received[:] == b"before"
        assert os.pread(buffer.fileno(), 10, 0) == b"before"


def test_what_another_process_writes_is_refused_by_the_kernel() -> None:
    with Buffer.copy_of(b"content") as buffer:
        buffer.seal()

        def write() -> None:
            os.pwrite(buffer.fileno(), b"changed", 0)

        with pytest.raises(ChildFailed, match="PermissionError"):
            in_child(write)


def test_one_that_another_process_has_mapped_for_writing_stays_writable_and_shared() -> None:
    with Buffer.copy_of(b"content") as buffer:
        with running_child(lambda: buffer):  # a fork has its mapping, too
            with pytest.raises(OSError, match="busy"):
                buffer.seal()
            assert not buffer.sealed
            buffer[:] = b"changed"
            assert os.pread(buffer.fileno(), 10, 0) == b"changed", "it is still the memory file's own"
        buffer.seal()
        assert buffer.sealed


def test_a_mapping_that_cannot_be_swapped_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Buffer.copy_of(b"content") as buffer:
        monkeypatch.setattr(buffers, "_MAP_FIXED", 1 << 30)  # no such flag: another place, or none
        monkeypatch.setattr(Buffer, "fileno", lambda self: -1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            buffer.seal()
        assert not buffer.sealed
        assert buffer[:] == b"content"


def test_a_received_one_is_the_sender_s_memory_read_only() -> None:
    with Buffer.copy_of(b"x" * 100_000) as buffer, as_received(buffer) as received:
        assert received.sealed
        assert received[:] == b"x" * 100_000
        assert os.path.sameopenfile(received.fileno(), buffer.fileno())
        with pytest.raises(TypeError, match="readonly"):
            received[0] = 1
        with memoryview(received) as view:
            assert view.readonly
        received.seal()


def test_no_copy_is_made_for_a_received_one() -> None:
    with Buffer.allocate(1 << 30) as buffer:
        buffer[0], buffer[-1] = 1, 2
        began = time.process_time()
        with as_received(buffer) as received:
            assert (received[0], received[-1]) == (1, 2)
        assert time.process_time() - began < 0.1
        assert os.fstat(buffer.fileno()).st_blocks * 512 <= 8 * 1024 * 1024


def test_a_received_one_may_be_handed_on() -> None:
    with Buffer.copy_of(b"content") as first, as_received(first) as second, as_received(second) as third:
        first.close()
        second.close()
        assert third[:] == b"content"


@PROPERTY
@given(st.integers(1, 3 * PAGE), st.data())
def test_any_part_of_a_memory_file_can_be_received(size: int, data: st.DataObject) -> None:
    offset = data.draw(st.sampled_from([0, PAGE, 2 * PAGE]).filter(lambda at: at < size) | st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    content = os.urandom(size)
    with memory_file(content) as file:
        owned = ValueFd(os.dup(file.fileno()))
    with received_buffer(owned, offset, length) as buffer:
        assert buffer[:] == content[offset : offset + length]
        assert len(buffer) == length
        assert buffer.sealed
        assert buffer.offset in (offset, 0)
        assert must_copy(offset) == (buffer.fileno() != (-1 if owned.closed else owned.fileno()))
        with as_received(buffer) as again:
            assert again[:] == buffer[:]
    owned.close()


@pytest.mark.parametrize(
    "offset, length",
    [
        (0, 0),
        (0, -1),
        (0, 8),
        (1, 7),
        (7, 1),
        (8, 1),
        (2**64 - 1, 1),
        (0, 2**64 - 1),
        (2**64 - 1, 2**64 - 1),
        (PAGE, 1),
    ],
)
def test_a_part_beyond_the_end_or_of_no_bytes_is_refused(offset: int, length: int) -> None:
    with memory_file(b"content") as file:
        with pytest.raises(ValueError, match=f"a part of {length} bytes at {offset} was promised of a memfd of 7"):
            received_buffer(file, offset, length)
        assert not file.closed


def test_what_is_not_sealed_is_not_received() -> None:
    with memory_file(b"content", seals=0) as file, pytest.raises(ValueError, match="seals"):
        received_buffer(file, 0, 7)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_part_that_there_is_no_room_for_is_an_error_and_nothing_stays_open(offset: int) -> None:
    with (
        memory_file(size=1 << 30) as file,
        address_space_used_up(),
        pytest.raises(OSError, match="Cannot allocate memory"),
    ):
        received_buffer(file, offset, (1 << 30) - 1)


def test_its_memory_goes_with_the_last_reference_without_a_warning() -> None:
    before = mappings()
    buffer = Buffer.copy_of(b"content")
    received = as_received(buffer)
    alive = weakref.ref(buffer._memfd)
    view: Any = memoryview(received)
    del buffer
    assert alive() is None
    del received
    assert view[:] == b"content"
    del view
    gc.collect()
    assert mappings() == before


def test_closing_frees_it_at_once_and_twice_does_nothing() -> None:
    before = mappings()
    buffer = Buffer.allocate(10)
    assert mappings() == before + 1
    buffer.close()
    assert mappings() == before
    buffer.close()
    for use in (buffer.fileno, buffer.seal, lambda: buffer[0]):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_sealed_one_that_is_closed_says_so_too() -> None:
    buffer = Buffer.copy_of(b"x")
    buffer.seal()
    buffer.close()
    for use in (buffer.fileno, buffer.seal):
        with pytest.raises(ValueError, match=r"^the buffer is closed$"):
            use()


def test_one_that_something_refers_to_is_not_closed() -> None:
    buffer = Buffer.allocate(10)
    view = memoryview(buffer)
    with pytest.raises(BufferError):
        buffer.close()
    assert buffer.fileno() >= 0
    view.release()
    buffer.close()


def test_the_repr_tells_size_and_state() -> None:
    buffer = Buffer.allocate(10)
    assert repr(buffer) == "<Buffer of 10 bytes>"
    buffer.seal()
    assert repr(buffer) == "<Buffer of 10 bytes, sealed>"
    buffer.close()
    assert repr(buffer) == "<Buffer closed>"


def test_once_it_is_prepared_no_more_modules_are_loaded_to_seal() -> None:
    def seal_without_modules() -> None:
        buffers.prepare()
        sys.meta_path.clear()
        with Buffer.allocate(mmap.PAGESIZE) as buffer:
            buffer[:1] = b"x"
            buffer.seal()
            assert buffer[:2] == b"x\0"

    in_child(seal_without_modules)


def test_preparing_twice_does_no_harm() -> None:
    buffers.prepare()
    buffers.prepare()


def test_what_is_like_bytes_is_a_memoryview_when_it_runs() -> None:
    annotation: object = BytesLike
    assert annotation is memoryview
