"""Memory files whose content can never change again: memfd_create(2), F_ADD_SEALS in fcntl(2)."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

from seqrpc.kernel import memory
from seqrpc.kernel.descriptors import HasFileno, OwnedFd
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.pieces import Content, Pieces

# linux/fcntl.h and FreeBSD's fcntl.h; the standard library has the names on Linux only.
_F_ADD_SEALS: Final = getattr(fcntl, "F_ADD_SEALS", 19)
_F_GET_SEALS: Final = getattr(fcntl, "F_GET_SEALS", 20)
_MFD_NOEXEC_SEAL: Final = 0x8  # Linux 6.3

_MOST_PARTS: Final = 1_024  # UIO_MAXIOV, of the kernel's linux/uio.h and of FreeBSD's sys/limits.h

SEALS: Final = 0x1 | 0x2 | 0x4 | 0x8
"""F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE (protocol 5.2)."""


def create(name: str, size: int = 0) -> OwnedFd:
    """Return a new memory file of ``size`` zero bytes that can be sealed, owned by the caller.

    Args:
        name: the name that ``/proc/self/maps`` shows.
        size: bytes; they take memory only when they are touched.

    Raises:
        OSError: the process has too many descriptors (``EMFILE``), or ``size`` is too large (``EFBIG``).
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    with Uninterrupted():
        try:
            fd = os.memfd_create(name, flags)
        except PermissionError:  # the sysctl vm.memfd_noexec is 2
            fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
        owned = OwnedFd(fd)
    try:
        if size:
            os.ftruncate(fd, size)
    except BaseException:
        owned.close()
        raise
    return owned


def sealed(name: str, content: Content) -> OwnedFd:
    """Return a sealed memory file that holds ``content``, owned by the caller.

    Raises:
        OSError: as :func:`create`; ``ENOMEM`` and ``ENOSPC`` if memory runs out.
    """
    owned = create(name)
    try:
        _write(owned, content)
        seal(owned)
    except BaseException:
        owned.close()
        raise
    return owned


def _write(owned: OwnedFd, content: Content) -> None:
    # Faster than copying into a mapping, where each page is cleared first and costs a fault.
    parts = content.parts if isinstance(content, Pieces) else (content,)
    left = len(content) - os.writev(owned.fileno(), parts[:_MOST_PARTS])
    if not left:
        return
    skipped = len(content) - left  # the kernel writes less than 2 GiB at a time
    for part in parts:
        with memoryview(part) as rest:
            written, skipped = min(skipped, len(rest)), max(0, skipped - len(rest))
            while written < len(rest):
                written += os.write(owned.fileno(), rest[written:])


def seal(owned: OwnedFd) -> None:
    """Make the content unchangeable, for everybody and for good.

    Raises:
        OSError: ``EBUSY``: somebody has it mapped for writing.
    """
    fcntl.fcntl(owned.fileno(), _F_ADD_SEALS, SEALS)


def check_sealed(owned: OwnedFd) -> int:
    """Check that a memory file can be read and mapped safely, and return its size in bytes.

    A sealed file cannot shrink under a mapping (``SIGBUS``), nor change while somebody reads it.

    Raises:
        ValueError: it is no memory file, not sealed, not open for reading, or made of huge pages, of which the
            machine may have none left.
    """
    fd = owned.fileno()
    try:
        seals = fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError as exc:
        # We do not ask which kind: that might ask a file system that answers when it likes.
        raise ValueError("a sealed memfd was expected, got a file of another kind") from exc
    if seals & SEALS != SEALS:
        raise ValueError(f"a memfd with the seals {SEALS:#x} was expected, got {seals:#x}")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise ValueError("a memfd that is open for reading was expected, got one for writing only")
    if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
        raise ValueError("a memfd of huge pages is not taken")
    return os.fstat(fd).st_size


def held_bytes(owned: OwnedFd) -> int:
    """Return how much memory a memory file takes, as long as nobody looks at its holes.

    It may be far more than its size: memory can be had beyond the end, and given back in spite of all seals.
    """
    return os.fstat(owned.fileno()).st_blocks * 512


def has_holes(owned: OwnedFd, size: int) -> bool:
    """Return whether parts of the first ``size`` bytes of a checked memory file were never written.

    They take memory once somebody looks at them in a mapping, which then is charged for it. How much the file takes in
    all does not tell: memory beyond its end would make up for holes.
    """
    return os.lseek(owned.fileno(), 0, os.SEEK_HOLE) < size


_NEAR: Final = 16
"""If what is copied lies, within its page, by fewer bytes before the place that it is copied to, copying takes up to
five times as long on some processors: ``rep movsb`` on one of AMD's. Fresh memory begins 48 bytes into a page, and the
long bytes of a message some 20 to 50 bytes into its file."""

_ASIDE: Final = 1 << 17  # bytes, which a processor has at hand


def read(file: HasFileno, offset: int, size: int) -> bytes:
    """Return ``size`` bytes of a checked memory file, which must have them: copied once, without mapping the file."""
    if size < memory.HUGE:
        return os.pread(file.fileno(), size, offset)
    data, room = memory.fresh_bytes(size)
    with room:
        is_near = 0 < (memory.address_of(data) - offset) % mmap.PAGESIZE < _NEAR
        done = _read_aside(file, offset, room) if is_near else 0
        while done < size:  # the kernel reads less than 2 GiB at a time
            done += os.preadv(file.fileno(), [room[done:]], offset + done)
    return data


def _read_aside(file: HasFileno, offset: int, room: memoryview) -> int:
    """Read to a place that is not too near, part by part, and copy from there; return how much was read."""
    begin, done, size = (offset - 4 * _NEAR) % mmap.PAGESIZE, 0, len(room)  # far from both
    try:
        pages = mmap.mmap(-1, begin + _ASIDE)
    except OSError:  # there is no room
        return 0
    with pages, memoryview(pages) as view, view[begin:] as aside:
        while done < size:
            read = os.preadv(file.fileno(), [aside[: size - done]], offset + done)
            room[done : done + read] = aside[:read]
            done += read
    return done


READ_ONLY: Final = (mmap.MAP_PRIVATE, mmap.PROT_READ)
"""How to map a sealed file. Private, because before Linux 6.7 a write-sealed file cannot be mapped shared."""


def map_sealed(owned: OwnedFd, offset: int, size: int) -> mmap.mmap:
    """Return a read-only mapping of part of a checked memory file; nothing is copied.

    Args:
        owned: the file, borrowed.
        offset: where the part begins, a multiple of the page size.
        size: how many bytes it has, at least one.

    Raises:
        OSError: there is no room in the address space (``ENOMEM``).
    """
    flags, prot = READ_ONLY
    return mmap.mmap(owned.fileno(), size, flags=flags, prot=prot, offset=offset)
