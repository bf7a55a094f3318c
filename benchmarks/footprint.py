"""What a process has at one moment: references, blocks of memory, objects, bytes and descriptors."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from dataclasses import asdict, dataclass, fields
from typing import Final

from seqrpc.kernel.closing import CLOSER

_CLOSED_WITHIN = 30.0  # seconds


_MALLINFO: Final = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` (mallinfo(3))."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO)


@dataclass(frozen=True)
class Footprint:
    """What there is. :func:`footprint` takes one."""

    references: int
    """All references to all objects, by ``sys.gettotalrefcount``; 0 where Python is no debug build."""

    blocks: int
    """Blocks of memory that Python's allocator gave out, which an object has one of, or several."""

    objects: int
    """Objects that Python's garbage collector knows."""

    heap: int
    """Bytes that malloc gave out, where the C library tells; Python's own allocator takes its arenas elsewhere."""

    resident: int
    """Bytes of memory that the process has."""

    descriptors: int
    """Open ones."""

    def since(self, before: Footprint) -> Footprint:
        """Return how much more there is."""
        old = asdict(before)
        return Footprint(**{name: value - old[name] for name, value in asdict(self).items()})


NAMES: Final = tuple(field.name for field in fields(Footprint))

FEW: Final = Footprint(references=200, blocks=200, objects=30, heap=256 << 10, resident=3 << 20, descriptors=0)
"""What there may be more, however many calls there were: tables of the interpreter and of malloc, and what is timed."""


def footprint() -> Footprint:
    """Collect what nobody refers to, wait until what is to be closed is closed, and return what is left."""
    for _ in range(3):
        gc.collect()
    CLOSER.wait_idle(_CLOSED_WITHIN)
    objects = len(gc.get_objects())
    return Footprint(
        references=getattr(sys, "gettotalrefcount", int)(),
        blocks=sys.getallocatedblocks(),
        objects=objects,
        heap=_heap(),
        resident=_resident(),
        descriptors=len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")),
    )


def _heap() -> int:
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):  # glibc has it from 2.33 on
        return 0
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return int(found.uordblks) + int(found.hblkhd)


def _resident() -> int:
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb") as status:
        return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def faults(grown: Footprint, calls: int) -> list[str]:
    """Return what has grown by more than a few, and by more than a thousandth of a call."""
    most = asdict(FEW)
    found = []
    for name, value in asdict(grown).items():
        bound = most[name]
        if name not in ("heap", "resident", "descriptors"):
            bound = max(bound, calls // 1000)
        if value > bound:
            found.append(f"{value} {name} more")
    return found
