"""Memory for large bytes objects. Python and the C library get fresh memory from the system for each of them."""

from __future__ import annotations

import functools
import mmap
from typing import Any, Final

HUGE: Final = 4 << 20
"""Bytes of an object from which on it pays to ask for huge pages; numpy has the same bound for its arrays."""

_MADV_HUGEPAGE: Final = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux has it


def fresh_bytes(size: int) -> tuple[bytes, memoryview]:
    """Return bytes with undefined content, and their memory, which the caller fills before anybody else sees them.

    This asks for huge pages, because a fault for each small page costs more than writing to it.

    Args:
        size: how many, more than 1.

    Raises:
        MemoryError: there is no room.
    """
    import ctypes  # noqa: PLC0415 - as in prepare

    functions = _functions()
    data: bytes = functions.PyBytes_FromStringAndSize(None, size)  # Python's own way to make bytes and fill them later
    address = functions.PyBytes_AsString(data)
    if _MADV_HUGEPAGE is not None:
        begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (address + size - begin) // mmap.PAGESIZE * mmap.PAGESIZE
        functions.madvise(begin, length, _MADV_HUGEPAGE)  # a kernel without huge pages refuses, which does no harm
    return data, memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def address_of(data: bytes) -> int:
    """Return where the content of bytes begins in memory."""
    address: int = _functions().PyBytes_AsString(data)
    return address


def prepare() -> None:
    """Load what :func:`fresh_bytes` needs: ctypes, which takes long to load, and which few programs need."""
    _functions()


@functools.cache
def _functions() -> Any:
    import ctypes  # noqa: PLC0415 - as in prepare

    functions = ctypes.PyDLL(None)  # setting types on ctypes.pythonapi would set them for everybody
    functions.PyBytes_FromStringAndSize.restype = ctypes.py_object
    functions.PyBytes_FromStringAndSize.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]
    functions.PyBytes_AsString.restype = ctypes.c_void_p
    functions.PyBytes_AsString.argtypes = [ctypes.py_object]
    functions.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return functions
