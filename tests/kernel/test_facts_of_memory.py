"""What Linux does with memory files, their seals and mappings of them; none of our code."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import fcntl
import mmap
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator

import pytest
from support.processes import ChildFailed, in_child, running_child

PAGE = mmap.PAGESIZE
ALL = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

MAP_FIXED = 0x10
MFD_HUGETLB = 0x4
FALLOC_FL_KEEP_SIZE = 0x1
FALLOC_FL_PUNCH_HOLE = 0x2

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


@pytest.fixture
def file() -> Iterator[int]:
    """Return a memory file of two pages without seals."""
    fd = os.memfd_create("fact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"x" * 2 * PAGE)
    yield fd
    os.close(fd)


def seal(fd: int, seals: int = ALL) -> None:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def seals_of(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS)


def fails_with(number: int, function: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        function()
    assert caught.value.errno == number


def killed_by(work: Callable[[], object]) -> str:
    """Return what a child is told to die of that does ``work``."""

    def quietly() -> object:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return work()

    with pytest.raises(ChildFailed) as caught:
        in_child(quietly)
    return str(caught.value)


def read_all(pages: mmap.mmap) -> int:
    return sum(pages[::PAGE])


def test_seals_are_asked_for_at_birth_or_never(file: int) -> None:
    assert seals_of(file) & fcntl.F_SEAL_SEAL == 0
    fd = os.memfd_create("fact", os.MFD_CLOEXEC)
    try:
        assert seals_of(fd) & fcntl.F_SEAL_SEAL
        fails_with(errno.EPERM, lambda: seal(fd))
    finally:
        os.close(fd)


def test_a_sealed_file_neither_shrinks_nor_grows_nor_is_written_to_nor_has_holes_punched(file: int) -> None:
    seal(file)
    fails_with(errno.EPERM, lambda: os.ftruncate(file, PAGE))
    fails_with(errno.EPERM, lambda: os.ftruncate(file, 3 * PAGE))
    fails_with(errno.EPERM, lambda: os.pwrite(file, b"y", 0))
    fails_with(errno.EPERM, lambda: os.pwrite(file, b"y", 2 * PAGE))
    ctypes.set_errno(0)
    assert LIBC.fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == -1
    assert ctypes.get_errno() == errno.EPERM
    assert os.pread(file, 4 * PAGE, 0) == b"x" * 2 * PAGE


def test_seals_are_the_file_s_and_hold_for_whoever_opens_it_anew(file: int) -> None:
    seal(file)
    for flags in (os.O_RDWR, os.O_WRONLY):  # the seal keeps nobody from opening
        again = os.open(f"/proc/self/fd/{file}", flags)
        try:
            assert seals_of(again) & ALL == ALL
            fails_with(errno.EPERM, lambda fd=again: os.pwrite(fd, b"y", 0))  # type: ignore[misc]
        finally:
            os.close(again)
    fails_with(errno.EPERM, lambda: os.truncate(f"/proc/self/fd/{file}", 0))


def test_seals_are_never_taken_back_and_none_is_added_after_the_last(file: int) -> None:
    seal(file, fcntl.F_SEAL_SHRINK)
    seal(file, fcntl.F_SEAL_GROW)
    assert seals_of(file) & ALL == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    seal(file, fcntl.F_SEAL_SEAL)
    fails_with(errno.EPERM, lambda: seal(file, fcntl.F_SEAL_WRITE))
    fails_with(errno.EPERM, lambda: seal(file, 0))


def test_a_write_seal_is_busy_while_a_shared_mapping_is_writable(file: int) -> None:
    with mmap.mmap(file, PAGE):
        fails_with(errno.EBUSY, lambda: seal(file))
        assert seals_of(file) & ALL == 0, "none of the four was set"
    seal(file)


def test_a_write_seal_is_busy_also_while_a_fork_has_the_mapping(file: int) -> None:
    pages = mmap.mmap(file, PAGE)
    with running_child(lambda: pages):
        pages.close()
        fails_with(errno.EBUSY, lambda: seal(file))
    seal(file)


def test_private_mappings_do_not_hinder_a_write_seal_though_they_can_be_written_to(file: int) -> None:
    with mmap.mmap(file, PAGE, flags=mmap.MAP_PRIVATE) as pages:
        seal(file)
        pages[0] = ord("y")
        assert os.pread(file, 1, 0) == b"x"


def test_a_shared_mapping_can_be_swapped_for_a_private_one_in_its_place_and_then_sealed(file: int) -> None:
    with mmap.mmap(file, PAGE) as pages:
        pages[:5] = b"first"
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        protection = mmap.PROT_READ | mmap.PROT_WRITE

        mapped = LIBC.mmap(address, PAGE, protection, mmap.MAP_PRIVATE | MAP_FIXED, file, 0)

        assert mapped == address
        assert pages[:5] == b"first"
        seal(file)
        pages[:5] = b"other"
        assert (pages[:5], os.pread(file, 5, 0)) == (b"other", b"first")


def test_what_is_sealed_is_mapped_private_and_never_shared_for_writing(file: int) -> None:
    seal(file)
    with mmap.mmap(file, 2 * PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as pages:
        assert pages[:] == b"x" * 2 * PAGE
    with mmap.mmap(file, PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as pages:
        pages[0] = 1
    with pytest.raises(PermissionError):
        mmap.mmap(file, PAGE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def test_a_private_mapping_is_the_file_s_own_memory_as_long_as_nobody_writes(file: int) -> None:
    with mmap.mmap(file, PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as pages:
        assert pages[:1] == b"x"
        os.pwrite(file, b"y", 0)
        assert pages[:1] == b"y", "which is why it is sealed first"


def test_one_for_writing_only_says_that_it_is_sealed_and_can_be_neither_mapped_nor_read(file: int) -> None:
    seal(file)
    fd = os.open(f"/proc/self/fd/{file}", os.O_WRONLY)
    try:
        assert seals_of(fd) & ALL == ALL
        fails_with(errno.EACCES, lambda: mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
        fails_with(errno.EBADF, lambda: os.pread(fd, 1, 0))
    finally:
        os.close(fd)


def test_what_is_not_sealed_shrinks_under_a_mapping_and_that_kills(file: int) -> None:
    def look() -> int:
        with mmap.mmap(file, 2 * PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as pages:
            os.ftruncate(file, PAGE)  # as the peer may, who has it open too
            return read_all(pages)

    assert killed_by(look) == f"ended by {signal.SIGBUS.name}"


def test_a_mapping_beyond_the_end_kills_also_where_it_is_sealed(file: int) -> None:
    seal(file)

    def look() -> int:
        address = LIBC.mmap(None, 3 * PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, file, 0)  # the kernel does not mind
        return int(ctypes.string_at(address + 2 * PAGE, 1)[0])

    assert killed_by(look) == f"ended by {signal.SIGBUS.name}"


def test_the_rest_of_the_last_page_reads_as_zeros(file: int) -> None:
    os.ftruncate(file, PAGE + 1)
    seal(file)
    address = LIBC.mmap(None, 2 * PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, file, 0)
    assert ctypes.string_at(address + PAGE, 3) == b"x\0\0"
    LIBC.munmap(address, 2 * PAGE)


def test_a_hole_reads_as_zeros_and_takes_memory_as_it_is_looked_at(file: int) -> None:
    os.ftruncate(file, 1 << 30)
    seal(file)
    blocks = os.fstat(file).st_blocks
    with mmap.mmap(file, 1 << 30, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as pages:
        assert os.fstat(file).st_blocks == blocks
        assert pages[1 << 29 : (1 << 29) + 3] == b"\0\0\0"
    assert os.fstat(file).st_blocks > blocks, "the reader pays for the holes of a peer"


def test_a_memory_file_may_be_larger_than_the_machine(file: int) -> None:
    os.ftruncate(file, 1 << 50)
    seal(file)
    assert os.fstat(file).st_size == 1 << 50


@pytest.mark.parametrize("what", ["pipe", "socket", "device", "directory", "path"])
def test_other_files_have_no_seals(what: str, file: int, pipe: tuple[int, int]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        fd = {
            "pipe": lambda: os.dup(pipe[0]),
            "socket": lambda: os.dup(sock.fileno()),
            "device": lambda: os.open(os.devnull, os.O_RDWR),
            "directory": lambda: os.open("/", os.O_RDONLY),
            "path": lambda: os.open(f"/proc/self/fd/{file}", os.O_PATH),
        }[what]()
        try:
            with pytest.raises(OSError) as caught:
                seals_of(fd)
            assert caught.value.errno == (errno.EBADF if what == "path" else errno.EINVAL)
        finally:
            os.close(fd)


def test_a_file_of_a_disk_has_no_seals_or_cannot_be_sealed() -> None:
    for directory in ("/tmp", "/dev/shm", "/var/tmp"):
        with tempfile.TemporaryFile(dir=directory) as other:
            fd = other.fileno()
            try:
                seals, number = seals_of(fd), errno.EPERM  # tmpfs, which memory files are of
            except OSError:
                seals, number = fcntl.F_SEAL_SEAL, errno.EINVAL
            assert seals == fcntl.F_SEAL_SEAL
            fails_with(number, lambda fd=fd: seal(fd))  # type: ignore[misc]


def test_huge_pages_can_be_sealed_without_there_being_any_and_are_told_by_their_block_size(file: int) -> None:
    assert os.fstatvfs(file).f_bsize == PAGE
    try:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_HUGETLB)
    except OSError:
        pytest.skip("this kernel has no huge pages")
    try:
        os.ftruncate(fd, 2 * 1024 * 1024)
        seal(fd)
        assert seals_of(fd) & ALL == ALL
        assert os.fstatvfs(fd).f_bsize > PAGE
    finally:
        os.close(fd)


def test_a_sealed_file_travels_and_is_as_sealed_at_the_receiver(file: int) -> None:
    seal(file)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [file])
        _data, (fd,), _flags, _address = socket.recv_fds(theirs, 1, 1)
    try:
        assert seals_of(fd) & ALL == ALL
        assert os.path.sameopenfile(fd, file)
    finally:
        os.close(fd)


def test_a_packet_that_the_send_buffer_could_never_hold_is_too_long() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel takes the least that it allows
        size = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert size < 65_536
        fails_with(errno.EMSGSIZE, lambda: ours.send(b"x" * 65_536))
        assert ours.send(b"x" * 1_000) == 1_000, "what fits still goes"
        assert len(theirs.recv(100_000)) == 1_000


def test_as_many_seals_as_bits_are_known_and_others_are_refused(file: int) -> None:
    fails_with(errno.EINVAL, lambda: seal(file, 0x4000_0000))
