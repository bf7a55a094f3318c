from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.descriptors import memory_file, write_only
from support.measures import peak_bytes
from support.processes import in_child
from support.scarcity import address_space_used_up, files_of_at_most

from seqrpc.kernel import memfd, memory
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.pieces import Pieces

MFD_HUGETLB = 0x4
NOEXEC = Path("/proc/sys/vm/memfd_noexec")


def read(file: OwnedFd) -> bytes:
    return os.pread(file.fileno(), 1_000_000, 0)


def test_a_new_file_holds_zeros_is_close_on_exec_and_has_no_seal() -> None:
    with memfd.create("name", 5_000) as file, memfd.create("name") as empty:
        assert read(file) == bytes(5_000)
        assert read(empty) == b""
        assert not os.get_inheritable(file.fileno())
        assert fcntl.fcntl(file.fileno(), fcntl.F_GET_SEALS) & ~0x20 == 0  # an exec seal is the sysctl's
        assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith("/memfd:name")


def test_a_size_takes_memory_only_as_it_is_touched() -> None:
    with memfd.create("name", 1 << 40) as file:
        assert os.fstat(file.fileno()).st_size == 1 << 40
        assert os.fstat(file.fileno()).st_blocks == 0


def test_a_size_that_is_too_much_is_an_error_and_leaves_nothing_open() -> None:
    with files_of_at_most(10_000), pytest.raises(OSError, match="File too large") as caught:
        memfd.create("name", 10_001)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(OverflowError):
        memfd.create("name", 1 << 63)


def test_too_many_descriptors_are_an_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            memfd.create("name")
        with pytest.raises(OSError, match="Too many open files"):
            memfd.sealed("name", b"content")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_executable_memory_files_are_forbidden_they_are_made_without(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = os.memfd_create, []

    def strict(name: str, flags: int) -> int:
        asked.append(flags)
        if not flags & memfd._MFD_NOEXEC_SEAL:
            raise PermissionError(errno.EACCES, "as with the sysctl vm.memfd_noexec at 2")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", strict)
    with memfd.sealed("name", b"content") as file:
        assert memfd.check_sealed(file) == 7
        assert os.fstat(file.fileno()).st_mode & 0o111 == 0
    assert len(asked) == 2


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100_000, memoryview(b"-x-")[1:2], memoryview(bytearray(70_000))])
def test_a_sealed_file_holds_the_content_and_can_never_change(content: bytes | memoryview) -> None:
    with memfd.sealed("name", content) as file:
        assert read(file) == bytes(content)
        assert memfd.check_sealed(file) == len(content)
        for change in (
            lambda: os.write(file.fileno(), b"y"),
            lambda: os.pwrite(file.fileno(), b"y", 0),
            lambda: os.ftruncate(file.fileno(), len(content) + 1),
            lambda: os.ftruncate(file.fileno(), max(0, len(content) - 1)) if content else os.truncate(file.fileno(), 1),
            lambda: fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK),
        ):
            with pytest.raises(PermissionError):
                change()
        assert read(file) == bytes(content)


def test_content_in_pieces_is_written_one_after_the_other() -> None:
    parts: list[bytes | memoryview] = [b"abc", memoryview(b"-x-")[1:2], b"", b"y" * 100_000]
    pieces = Pieces(parts)
    with memfd.sealed("name", pieces) as file:
        assert read(file) == bytes(pieces) == b"".join(parts)
        assert memfd.check_sealed(file) == len(pieces) == 100_004


def test_of_more_pieces_than_the_kernel_takes_at_once_all_are_written() -> None:
    pieces = Pieces([b"%d-" % number for number in range(3_000)])
    with memfd.sealed("name", pieces) as file:
        assert read(file) == bytes(pieces)


@pytest.mark.parametrize("most", [1, 3, 4, 5, 50_000])
def test_a_write_that_takes_a_part_of_the_pieces_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    real = os.writev
    pieces = Pieces([b"abc", b"", b"d", memoryview(os.urandom(100_000)), b"e"])
    monkeypatch.setattr(os, "writev", lambda fd, parts: real(fd, [b"".join(parts)[:most]]))
    with memfd.sealed("name", pieces) as file:
        assert read(file) == bytes(pieces)


@pytest.mark.parametrize("size", [1, 100_000, memory.HUGE - 1, memory.HUGE, memory.HUGE + 5_000])
def test_a_part_of_a_file_is_read_and_copied_once(size: int) -> None:
    content = os.urandom(size)
    with memfd.sealed("name", b"before" + content + b"after") as file:
        assert memfd.read(file, 6, size) == content
        assert peak_bytes(lambda: memfd.read(file, 6, size)) < size + 100_000


MAPPED = 33 << 20
"""Bytes that the C library always gets from the system by themselves, so that they begin 48 bytes into a page."""


@pytest.mark.parametrize("size", [memory.HUGE, MAPPED + 70_001])
@pytest.mark.parametrize("part", [None, 100_007])
def test_wherever_in_its_page_a_large_part_begins_it_is_read_whole(
    monkeypatch: pytest.MonkeyPatch, size: int, part: int | None
) -> None:
    real, content = os.preadv, os.urandom(size + 100)
    if part is not None:
        monkeypatch.setattr(os, "preadv", lambda fd, rooms, offset: real(fd, [rooms[0][:part]], offset))
    with memfd.sealed("name", content) as file:
        for offset in (0, 33, 40, 47, 48):
            assert memfd.read(file, offset, size) == content[offset : offset + size]
            assert peak_bytes(lambda offset=offset: memfd.read(file, offset, size)) < size + 200_000  # type: ignore[misc]


def test_a_large_part_is_read_without_room_to_copy_from_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_args: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    content = os.urandom(MAPPED + 100)
    with memfd.sealed("name", content) as file:
        monkeypatch.setattr(mmap, "mmap", no_room)
        for offset in (33, 40, 48):
            assert memfd.read(file, offset, MAPPED) == content[offset : offset + MAPPED]


def test_what_the_kernel_reads_in_parts_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    content, real = os.urandom(memory.HUGE), os.preadv
    with memfd.sealed("name", b"before" + content) as file:
        monkeypatch.setattr(os, "preadv", lambda fd, rooms, offset: real(fd, [rooms[0][:1_000_001]], offset))
        assert memfd.read(file, 6, memory.HUGE) == content


def test_the_content_is_borrowed() -> None:
    content = bytearray(b"content")
    view = memoryview(content)
    with memfd.sealed("name", view) as file:
        view.release()
        content.append(0)
        assert read(file) == b"content"


def test_a_write_that_takes_a_part_is_gone_on_with_and_one_that_fails_leaves_nothing_open() -> None:
    with files_of_at_most(10_000):
        with memfd.sealed("name", b"x" * 10_000) as file:
            assert memfd.check_sealed(file) == 10_000
        # The kernel takes the first 10,000 bytes, and none of the rest.
        with pytest.raises(OSError, match="File too large"):
            memfd.sealed("name", b"x" * 10_001)


def test_what_is_mapped_for_writing_elsewhere_is_not_sealed() -> None:
    with memory_file(b"content", seals=0) as file, mmap.mmap(file.fileno(), 7):
        with pytest.raises(OSError, match="busy"):
            memfd.seal(file)
        with pytest.raises(ValueError, match="seals"):
            memfd.check_sealed(file)


def test_sealing_twice_is_not_allowed_and_changes_nothing() -> None:
    with memory_file(b"content") as file:
        with pytest.raises(PermissionError):
            memfd.seal(file)
        assert memfd.check_sealed(file) == 7


@pytest.mark.parametrize("missing", [0x1, 0x2, 0x4, 0x8, 0xF])
def test_every_one_of_the_four_seals_is_asked_for(missing: int) -> None:
    seals = memfd.SEALS & ~missing
    with (
        memory_file(b"content", seals=seals) as file,
        pytest.raises(ValueError, match=r"a memfd with the seals 0xf was expected, got 0x[0-9a-f]+$"),
    ):
        memfd.check_sealed(file)


def test_more_seals_do_no_harm() -> None:
    f_seal_future_write = 0x10
    with memory_file(b"content", seals=memfd.SEALS | f_seal_future_write) as file:
        assert memfd.check_sealed(file) == 7


def null() -> int:
    return os.open(os.devnull, os.O_RDWR)


def directory() -> int:
    return os.open("/", os.O_RDONLY)


def path_only() -> int:
    with memory_file(b"content") as file:
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_PATH)


def one_end(make: Callable[[], tuple[int, int]]) -> Callable[[], int]:
    def end() -> int:
        ours, theirs = make()
        os.close(theirs)
        return ours

    return end


def socket_ends() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize(
    "make",
    [null, directory, path_only, one_end(os.pipe), one_end(socket_ends), lambda: os.eventfd(1)],
    ids=["device", "directory", "path only", "pipe", "socket", "eventfd"],
)
def test_what_is_no_memory_file_is_told(make: Callable[[], int]) -> None:
    with (
        OwnedFd(make()) as file,
        pytest.raises(ValueError, match=r"^a sealed memfd was expected, got a file of another kind$"),
    ):
        memfd.check_sealed(file)


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm"])
def test_a_file_of_a_file_system_is_not_taken(directory: str) -> None:
    with (
        tempfile.TemporaryFile(dir=directory) as file,
        OwnedFd.dup(file) as fd,
        pytest.raises(ValueError, match="memfd"),
    ):
        memfd.check_sealed(fd)


def test_one_for_writing_only_is_not_taken_for_nobody_could_look_at_it() -> None:
    with (
        memory_file(b"content") as file,
        write_only(file) as blind,
        pytest.raises(ValueError, match="for writing only"),
    ):
        memfd.check_sealed(blind)


def test_one_for_reading_only_is_taken() -> None:
    with memory_file(b"content") as file, OwnedFd(os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)) as reader:
        assert memfd.check_sealed(reader) == 7
        with memfd.map_sealed(reader, 0, 7) as pages:
            assert pages[:] == b"content"


def test_one_of_huge_pages_is_not_taken_for_the_machine_may_have_none_left() -> None:
    try:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_HUGETLB)
    except OSError:
        pytest.skip("this kernel has no huge pages")
    with OwnedFd(fd) as file:
        os.ftruncate(fd, 2 * 1024 * 1024)
        memfd.seal(file)
        with pytest.raises(ValueError, match="a memfd of huge pages is not taken"):
            memfd.check_sealed(file)


def test_a_closed_one_is_the_caller_s_mistake() -> None:
    file = memory_file(b"content")
    file.close()
    with pytest.raises(ValueError, match="the descriptor is closed"):
        memfd.check_sealed(file)


def test_what_is_mapped_is_the_file_s_own_memory_read_only() -> None:
    content = bytes(range(256)) * 64
    with (
        memory_file(content) as file,
        memfd.map_sealed(file, 0, len(content)) as pages,
        memfd.map_sealed(file, mmap.PAGESIZE, 10) as part,
        memoryview(pages) as view,
    ):
        assert pages[:] == content
        assert part[:] == content[mmap.PAGESIZE : mmap.PAGESIZE + 10]
        assert view.readonly
        with pytest.raises(TypeError, match="can't modify a readonly memory map"):
            pages[0] = 1


def test_a_mapping_outlives_its_descriptor() -> None:
    with memory_file(b"content") as file:
        pages = memfd.map_sealed(file, 0, 7)
    with pages:
        assert pages[:] == b"content"


def test_no_room_to_map_it_is_an_error() -> None:
    with (
        memory_file(size=1 << 30) as file,
        address_space_used_up(),
        pytest.raises(OSError, match="Cannot allocate memory"),
    ):
        memfd.map_sealed(file, 0, 1 << 30)


def test_a_hole_reads_as_zeros_in_another_process_without_a_signal() -> None:
    with memory_file(b"begin", size=1_000_000) as file:

        def look() -> tuple[bytes, int]:
            with memfd.map_sealed(file, 0, memfd.check_sealed(file)) as pages:
                return pages[:5], sum(pages[5 :: mmap.PAGESIZE])

        assert in_child(look) == (b"begin", 0)


def test_parts_that_were_never_written_are_holes() -> None:
    with memfd.create("holes", 1 << 20) as file:
        assert memfd.has_holes(file, 1 << 20)
        os.pwrite(file.fileno(), b"x" * 5_000, 0)
        assert not memfd.has_holes(file, 5_000)
        assert memfd.has_holes(file, 1 << 20)
        assert ctypes.CDLL(None).fallocate(file.fileno(), 1, ctypes.c_long(1 << 20), ctypes.c_long(1 << 20)) == 0
        assert memfd.held_bytes(file) > 1 << 20, "beyond its end: KEEP_SIZE"
        assert memfd.has_holes(file, 1 << 20)
    with memfd.sealed("whole", b"x" * 5_000) as file:
        assert not memfd.has_holes(file, 5_000)


def test_the_memory_that_a_file_takes_is_told() -> None:
    with memfd.create("holes", 1 << 20) as file:
        assert memfd.held_bytes(file) == 0
        os.pwrite(file.fileno(), b"x" * 5_000, 0)
        assert memfd.held_bytes(file) == 2 * mmap.PAGESIZE
    with memfd.sealed("whole", b"x" * 5_000) as file:
        assert memfd.held_bytes(file) == 2 * mmap.PAGESIZE
    with memfd.create("beyond its end") as file:
        assert ctypes.CDLL(None).fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(1 << 20)) == 0  # KEEP_SIZE
        assert memfd.held_bytes(file) == 1 << 20
