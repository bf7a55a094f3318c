"""What kind of file a descriptor is of, so far as that says how long closing it takes."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from support.descriptors import memory_file, open_fds
from support.kinds import AT_ONCE, SOON
from support.lines import interrupting
from support.lingering import can_mount, silent_file_system
from support.processes import AS_ROOT, chroot, in_child, running_child

from seqrpc import twin
from seqrpc.kernel import kinds
from seqrpc.kernel.kinds import SMALL_BYTES

as_root = pytest.mark.skipif(not AS_ROOT, reason="needs to be root")

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


def closes_at_once(fd: int) -> bool:
    """Return what is told of a descriptor, which the native twin finds out in its own way."""
    told = kinds.closes_at_once(fd)
    if twin.TWIN == "native":
        assert twin.native is not None
        assert twin.native.closes_at_once(fd) is told
    return told


@contextlib.contextmanager
def opened(make: Callable[[], int]) -> Iterator[int]:
    fd = make()
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("make", AT_ONCE.values(), ids=AT_ONCE)
def test_it_is_known_of_some_that_they_close_at_once(make: Callable[[], int]) -> None:
    with opened(make) as fd:
        assert closes_at_once(fd)


def test_pipes_close_at_once(pipe: tuple[int, int]) -> None:
    assert closes_at_once(pipe[0])
    assert closes_at_once(pipe[1])


@pytest.mark.parametrize("make", SOON.values(), ids=SOON)
def test_it_is_not_known_of_others(make: Callable[[], int]) -> None:
    with opened(make) as fd:
        assert not closes_at_once(fd)


def allocate(fd: int, size: int) -> None:
    """Have blocks for so many bytes, and no more bytes than before."""
    assert ctypes.CDLL(None).fallocate(fd, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)) == 0


def test_a_memory_file_that_has_more_than_its_size_is_not_small() -> None:
    with memory_file(b"x", seals=0) as file:
        assert closes_at_once(file.fileno())
        allocate(file.fileno(), SMALL_BYTES + (1 << 20))
        assert os.fstat(file.fileno()).st_size == 1
        assert not closes_at_once(file.fileno())


@as_root
def test_a_file_on_a_disk_may_have_the_name_of_a_memory_file() -> None:
    path = Path("/memfd:seqrpc")
    with opened(lambda: os.open(path, os.O_CREAT | os.O_RDWR)) as fd:
        path.unlink()
        assert os.readlink(f"/proc/self/fd/{fd}") == "/memfd:seqrpc (deleted)"
        assert not closes_at_once(fd)


# Devices


@as_root
def test_a_file_may_have_the_name_of_a_device_in_another_tree_of_mounts() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_PRIVATE, with all below
        assert libc.mount(os.fsencode(file.name), b"/dev/null", None, 0x1000, None) == 0  # MS_BIND
        with open("/dev/null", "rb") as null:
            socket.send_fds(theirs, [b"x"], [null.fileno()])

    with ours, theirs, tempfile.NamedTemporaryFile() as file, running_child(send):
        _data, (fd,), _flags, _address = socket.recv_fds(ours, 1, 1)
        assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
        assert not closes_at_once(fd)
        os.close(fd)


@as_root
def test_a_file_in_the_place_of_a_device_is_none() -> None:
    def look() -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x20000) == 0
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
        with tempfile.NamedTemporaryFile() as file:
            assert libc.mount(os.fsencode(file.name), b"/dev/null", None, 0x1000, None) == 0
            with open("/dev/null", "rb") as null:
                return closes_at_once(null.fileno())

    assert not in_child(look)


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_an_interrupt_at_any_moment_leaves_nothing_open(is_first: bool) -> None:
    with open(os.devnull) as null:
        closes_at_once(null.fileno())
        before = open_fds()
        for moment in itertools.count(1):
            if is_first:
                kinds._mount_of_devices.cache_clear()
            moments = itertools.count(1)

            def is_next(frame: FrameType, event: str, _argument: object, moment: int = moment) -> bool:
                here = event in ("call", "c_return") and frame.f_code.co_filename == kinds.__file__
                return here and next(moments) == moment  # noqa: B023 - it is called in this very turn

            with interrupting(is_next) as came, contextlib.suppress(KeyboardInterrupt):
                closes_at_once(null.fileno())
            assert open_fds() == before, came
            if not came:
                break
        assert moment > (15 if is_first else 8)


@pytest.mark.skipif(not can_mount(), reason="needs to mount a file system")
def test_looking_does_not_ask_a_file_system() -> None:
    with silent_file_system() as mounted:
        fd = mounted.open()
        mounted.fall_silent()
        assert not closes_at_once(fd)
    with pytest.raises(OSError, match="not connected"):  # as an answer, for which it would have waited before
        os.close(fd)


def test_what_is_not_open_is_told() -> None:
    with opened(lambda: os.eventfd(0)) as fd:
        assert kinds.closes_at_once(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kinds.closes_at_once(fd)


@as_root
def test_nothing_is_known_without_proc(pipe: tuple[int, int]) -> None:
    def without_proc() -> bool:
        with chroot(directory):
            return kinds.closes_at_once(pipe[0])

    with tempfile.TemporaryDirectory() as directory:
        assert not in_child(without_proc)


def test_a_device_is_not_known_where_nothing_more_can_be_opened() -> None:
    def with_no_number_free() -> bool:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            return kinds.closes_at_once(null)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with opened(lambda: os.open("/dev/null", os.O_RDONLY)) as null:
        assert kinds.closes_at_once(null)
        assert not in_child(with_no_number_free)
