"""Descriptors for tests, and what is known of them from outside."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM


class Lender:
    """Something with a descriptor to lend that stays as good as it was."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


@contextmanager
def owned(number: int) -> Iterator[list[OwnedFd]]:
    """Return open descriptors of the null device, closed at the end if nobody took them."""
    fds = [OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) for _ in range(number)]
    every = list(fds)
    try:
        yield fds
    finally:
        close_all(every)


def memory_file(
    content: bytes = b"", *, size: int | None = None, seals: int = memfd.SEALS, whole: bool = False
) -> OwnedFd:
    """Return a memory file as a peer might make one: of any size, with any seals, with holes unless it is whole."""
    file = memfd.create("of a peer")
    os.write(file.fileno(), content)
    if size is not None:
        os.ftruncate(file.fileno(), size)
        if whole:
            os.pwrite(file.fileno(), bytes(size - len(content)), len(content))
    if seals:
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
    return file


def write_only(file: OwnedFd) -> OwnedFd:
    """Return a descriptor of the same file that cannot be read from."""
    return OwnedFd(os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_CLOEXEC))


def refuse_descriptors(sock: socket.socket) -> None:
    if not PLATFORM.refuse_descriptors(sock):
        pytest.skip("this kernel cannot refuse descriptors")


def same_file(one: int | HasFileno, other: int | HasFileno) -> bool:
    """Look whether two descriptors are of one open file, as far as the file system tells."""
    numbers = (end if isinstance(end, int) else end.fileno() for end in (one, other))
    return os.path.sameopenfile(*numbers)


def is_open(fd: int) -> bool:
    """Look whether the number is a descriptor of this process."""
    return os.path.lexists(f"/proc/self/fd/{fd}")


def open_fds() -> dict[int, str]:
    """Return the open descriptors of this process and what they are."""
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed the directory
            continue
    return fds


def open_count() -> int:
    """Return how many descriptors this process has, once what nobody refers to is collected."""
    gc.collect()
    return len(open_fds())


@contextmanager
def descriptors_limited(soft: int) -> Iterator[None]:
    """Let this process have so many descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
