"""Memory that travels as a descriptor."""

from __future__ import annotations

import functools
import mmap
import os
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from seqrpc.kernel import memfd, memory
from seqrpc.kernel.descriptors import OwnedFd, as_value
from seqrpc.kernel.interrupts import Uninterrupted

_NAME = "seqrpc-buffer"


class Buffer(mmap.mmap):
    """Memory that another process can look at without a copy.

    It is an :class:`mmap.mmap`, and so speaks the buffer protocol: ``numpy.frombuffer(buffer, dtype=...)``
    is an array over this very memory.

    :meth:`allocate` makes a writable one; fill it in place. Sending seals it: from then on nobody can
    change what was sent, and nobody else sees what is still written here. The receiver gets
    it read-only. A buffer may be sent any number of times, and a received one may be sent on.

    The memory is freed with the last reference to the buffer and to what was made of it, here and at
    all receivers; :meth:`close` frees it here at once.
    """

    __slots__ = ("_memfd", "_offset", "_sealed")

    _memfd: OwnedFd
    _offset: int
    _sealed: bool

    @classmethod
    def allocate(cls, size: int) -> Self:
        """Return a writable buffer of ``size`` zero bytes, which take memory only when they are touched.

        Raises:
            ValueError: ``size`` is less than 1.
            OSError: ``EMFILE``: too many descriptors (a buffer takes two); ``EFBIG``, ``ENOMEM``: too large.
        """
        if size < 1:
            raise ValueError(f"a buffer has at least 1 byte, got {size}")
        owned = as_value(memfd.create(_NAME, size))
        return cls._over(owned, size, 0, sealed=False)

    @classmethod
    def copy_of(cls, content: Any) -> Self:
        """Return a writable buffer with a copy of ``content``: bytes, an array, anything with the buffer protocol.

        Raises:
            ValueError, OSError: as :meth:`allocate`.
            TypeError: ``content`` has no buffer protocol.
            BufferError: the memory of ``content`` is not in one piece.
        """
        with memoryview(content) as view:
            if not view.c_contiguous:
                raise BufferError("what is copied into a buffer lies in one piece")
            size = view.nbytes
            made = cls.allocate(size)
            try:
                # Faster than copying into the mapping, where each page is cleared first and costs a fault.
                if os.write(made.fileno(), view) < size:  # the kernel writes less than 2 GiB at a time
                    made[:] = view
            except BaseException:
                made.close()
                raise
            return made

    @classmethod
    def _over(cls, owned: OwnedFd, length: int, offset: int, *, sealed: bool) -> Self:
        flags, prot = memfd.READ_ONLY if sealed else (mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self = cls(owned.fileno(), length, flags=flags, prot=prot, offset=offset)
        self._memfd, self._offset, self._sealed = owned, offset, sealed
        return self

    @property
    def sealed(self) -> bool:
        """True once nobody can change the memory any more, because it was sent or received."""
        return self._sealed

    @property
    def offset(self) -> int:
        """Where the buffer begins in its memory file, in bytes."""
        return self._offset

    def fileno(self) -> int:
        """Return the descriptor of the memory file, lent.

        Raises:
            ValueError: the buffer is closed.
        """
        if self.closed:
            raise ValueError("the buffer is closed")
        return self._memfd.fileno()

    def seal(self) -> None:
        """Prevent any further change of the memory, as sending does.

        Arrays over it stay usable; only this process sees what is written to them afterwards.

        Raises:
            OSError: ``EBUSY``: another process, such as a fork of this one, has it mapped for writing.
            ValueError: the buffer is closed.
        """
        if self.closed:
            raise ValueError("the buffer is closed")
        if self._sealed:
            return
        # No shared mapping may be writable when the file is sealed, and arrays may refer to ours: replace it in place.
        with Uninterrupted():
            self._remap(mmap.MAP_PRIVATE)
            try:
                memfd.seal(self._memfd)
            except BaseException:
                self._remap(mmap.MAP_SHARED)
                raise
            self._sealed = True

    def _remap(self, kind: int) -> None:
        """Map the same memory at the same address, shared or private, in one step."""
        import ctypes  # noqa: PLC0415 - as in prepare

        address = ctypes.addressof(ctypes.c_char.from_buffer(self))
        flags = kind | _MAP_FIXED
        if _libc_mmap()(address, len(self), mmap.PROT_READ | mmap.PROT_WRITE, flags, self.fileno(), 0) != address:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Free the memory here; closing twice does nothing.

        Raises:
            BufferError: something, such as an array, still refers to it.
        """
        super().close()
        self._memfd.close()

    def __del__(self) -> None:
        """Unmap before the descriptor is closed, so that closing that, and not this, frees the pages."""
        if hasattr(self, "_memfd"):
            super().close()

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return the size and the state."""
        if self.closed:
            return "<Buffer closed>"
        return f"<Buffer of {len(self)} bytes{', sealed' if self._sealed else ''}>"


_MAP_FIXED = 0x10  # the same on Linux and FreeBSD; the standard library has no name for it


@functools.cache
def _libc_mmap() -> Any:
    import ctypes  # noqa: PLC0415 - as in prepare

    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    return function


def prepare() -> None:
    """Load what sealing and large reads need: ctypes, which takes long to load, and which most programs do not need.

    Others load it when they need it. Daemons call this at the start, because they may give up the right to read
    Python's own files.
    """
    _libc_mmap()
    memory.prepare()


if TYPE_CHECKING:
    BytesLike: TypeAlias = bytes | bytearray | memoryview | Buffer
else:
    BytesLike = memoryview
"""The annotation of a parameter that takes :class:`Buffer` and plain bytes, which the handler looks at in place.

To type checkers it is all that a caller may pass; when it runs it is :class:`memoryview`, as is what the handler gets.
It calls ``memoryview(content)``, which for type checkers makes one of it, and changes nothing.
"""


def must_copy(offset: int) -> bool:
    """Return whether a received part that begins at ``offset`` would be copied: only whole pages can be mapped."""
    return offset % mmap.ALLOCATIONGRANULARITY != 0


def received_buffer(owned: OwnedFd, offset: int, length: int) -> Buffer:
    """Return a part of somebody else's memory file, read-only, after checking that it cannot change.

    The buffer shares ``owned`` with the caller. A part that does not begin at a page is copied.

    Raises:
        ValueError: the file is not sealed, or too short, or ``length`` is less than 1; the message says which.
        OSError: there is no room for the part.
    """
    size = memfd.check_sealed(owned)
    if length < 1 or offset + length > size:
        raise ValueError(f"a part of {length} bytes at {offset} was promised of a memfd of {size}")
    if not must_copy(offset):
        return Buffer._over(owned, length, offset, sealed=True)  # noqa: SLF001 - this module's own, here and below
    copy = Buffer.allocate(length)
    with memoryview(copy) as rest:
        done = 0
        while done < length:  # the kernel reads less than 2 GiB at a time; reading does not fill holes of the file
            done += os.preadv(owned.fileno(), [rest[done:]], offset + done)
    copy.seal()
    return Buffer._over(copy._memfd, length, 0, sealed=True)  # noqa: SLF001 - the copy itself would be writable
