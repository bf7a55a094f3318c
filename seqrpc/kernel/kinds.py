"""What kind of file a descriptor is of, so far as that says how long closing it takes.

No question here reaches somebody else's file system, which may be a program that answers when it likes.
"""

from __future__ import annotations

import fcntl
import functools
import os
import stat
from typing import Final

_F_GET_SEALS: Final = getattr(fcntl, "F_GET_SEALS", 20)
_F_SEAL_SEAL: Final = 0x1

SMALL_BYTES: Final = 8 << 20
"""The most bytes of a memory file that is closed at once: freeing 8 MiB takes 0.3 to 1 ms, less than filling them
took."""

SMALL_BLOCKS: Final = SMALL_BYTES // 512
"""The same in what stat(2) counts by."""

_DEVICES: Final = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
_INFO_BYTES: Final = 256  # that are read of the kernel's text on a descriptor: the mount is in the third line
_MEMORY_DEVICES: Final = 1  # the major number of these devices on Linux


def closes_at_once(fd: int) -> bool:
    """Return whether closing takes no time if nobody wants it to, as with pipes, small memory files, ``/dev/null``.

    A file on a disk may take long, too, whatever it is: whoever lets go of it may have to begin to write what another
    one wrote, to go through everybody's locks, or to unmount its file system.

    It is only asked about what :func:`seqrpc.kernel.closing.is_trusted` says nobody wants that of. The kernel's own
    names for what has no file differ from names of files, which begin with a slash.

    Raises:
        OSError: ``EBADF``: it is not open.
    """
    try:
        name = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        fcntl.fcntl(fd, fcntl.F_GETFD)
        return False
    if name[0] != "/":
        return name.startswith(("pipe:[", "anon_inode:[eventfd"))
    try:
        if name.startswith("/memfd:"):  # any file may have that name, but only memory files have such seals
            return fcntl.fcntl(fd, _F_GET_SEALS) != _F_SEAL_SEAL and os.fstat(fd).st_blocks <= SMALL_BLOCKS
        return name in _DEVICES and _is_memory_device(fd)
    except OSError:
        return False


def _is_memory_device(fd: int) -> bool:
    """Return whether a file with the name of a device is that device, and not another file of this name on a mount."""
    if _mount_of(fd) != _mount_of_devices():
        return False
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _MEMORY_DEVICES


@functools.cache
def _mount_of_devices() -> bytes:
    opened: list[int] = []
    try:
        opened.extend(map(os.open, ("/dev/null",), (os.O_RDONLY | os.O_CLOEXEC,)))  # in one step, as below
        return _mount_of(opened[0])
    finally:
        for null in opened:
            os.close(null)


def _mount_of(fd: int) -> bytes:
    opened: list[int] = []
    try:
        # In one step for signal handlers: what one raises here finds it in the list. (A FileIO asks what it is, too.)
        opened.extend(map(os.open, (f"/proc/self/fdinfo/{fd}",), (os.O_RDONLY | os.O_CLOEXEC,)))
        return os.read(opened[0], _INFO_BYTES).partition(b"mnt_id:")[2].partition(b"\n")[0]
    finally:
        for info in opened:
            os.close(info)
