"""Packets as any program can write them: with a socket and a MessagePack library, and no seqrpc.

A *body* is the part of a message that its sender may choose, encoded; a *frame* is the rest. docs/protocol.md says
what is what.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from benchmarks.chosen import chosen_integers, chosen_pairs

DESCRIPTOR, STREAM, CHANNEL, BUFFER = 1, 2, 3, 4

_ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PAGE = 4_096
_NAMES = itertools.count(1)


def pack(value: Any) -> bytes:
    """Return a value as MessagePack."""
    packed: bytes = msgpack.packb(value)
    return packed


def array_of(parts: Sequence[bytes]) -> bytes:
    """Return an array of what is encoded already."""
    return bytes(msgpack.Packer().pack_array_header(len(parts))) + b"".join(parts)


def map_of(parts: Sequence[bytes]) -> bytes:
    """Return a map of keys that are encoded already, each with nil."""
    return bytes(msgpack.Packer().pack_map_header(len(parts))) + b"".join(key + b"\xc0" for key in parts)


def padding(size: int) -> bytes:
    """Return a byte string that has ``size`` bytes with its header, or the shortest if those are too few."""
    if size <= 257:
        return b"\xc4" + bytes((max(size - 2, 0),)) + b"x" * (size - 2)
    if size <= 65_538:
        return b"\xc5" + struct.pack(">H", size - 3) + b"x" * (size - 3)
    return b"\xc6" + struct.pack(">I", size - 5) + b"x" * (size - 5)


def reference(ext_type: int, index: int, offset: int = 0, length: int = 0) -> bytes:
    """Return how a message refers to a descriptor (protocol section 4)."""
    if ext_type == BUFFER:
        return b"\xc7\x11\x04" + struct.pack(">BQQ", index, offset, length)
    return b"\xd4" + bytes((ext_type, index))


def references(ext_type: int, count: int) -> list[bytes]:
    """Return references to so many descriptors."""
    return [reference(ext_type, index) for index in range(count)]


def sealed(content: bytes, holes: int = 0) -> int:
    """Return a sealed memory file with this content, or with so many bytes that were never written."""
    fd = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    if holes:
        os.ftruncate(fd, holes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _ALL_SEALS)
    return fd


class Body(NamedTuple):
    """What a message is full of, and the descriptors that it refers to, which are lent."""

    data: bytes
    fds: tuple[int, ...] = ()


class Packet(NamedTuple):
    """What is sent at once."""

    data: bytes
    fds: tuple[int, ...] = ()

    def send(self, sock: socket.socket) -> None:
        """Send it."""
        if self.fds:
            sock.sendmsg([self.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", self.fds))])
        else:
            sock.send(self.data)


@dataclass
class Files:
    """The open files that packets lend. Use it in ``with``."""

    held: ExitStack = field(default_factory=ExitStack)

    def hold(self, fd: int) -> int:
        """Close a descriptor at the end."""
        self.held.callback(os.close, fd)
        return fd

    def null(self, count: int) -> tuple[int, ...]:
        """Return so many descriptors of the null device."""
        return tuple(self.hold(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) for _ in range(count))

    def memory_file(self, content: bytes, holes: int = 0) -> int:
        """Return a sealed memory file."""
        return self.hold(sealed(content, holes))

    def ends(self, count: int) -> tuple[int, ...]:
        """Return one end each of so many socket pairs; the other ends are open, too."""
        ends = []
        for _ in range(count):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.hold(ours.detach())
            ends.append(self.hold(theirs.detach()))
        return tuple(ends)

    def close(self) -> None:
        """Close them all."""
        self.held.close()


def plain(size: int, count: int = 0) -> bytes:
    """Return the dullest body of so many bytes with so many descriptors: padding, and a plain reference to each."""
    parts = references(DESCRIPTOR, count)
    header = len(array_of([b""] * (count + 1)))
    return array_of([padding(size - header - len(b"".join(parts))), *parts])


# Bodies that mean ill: each is an array, as parameters are


def buffers(file: int, count: int, offset: int, length: int, step: int = 0) -> Body:
    """Return buffers of one memory file, each with a descriptor of its own."""
    return Body(
        array_of([reference(BUFFER, index, offset + index * step, length) for index in range(count)]), (file,) * count
    )


def chosen_map(bits: int, filled: int, count: int, form: Callable[[int], bytes] = pack) -> bytes:
    """Return a map of chosen integer keys; ``form`` writes those that are searched for long."""
    filling, walking = chosen_integers(bits, filled, count)
    return map_of([*map(pack, filling), *map(form, walking)])


def chosen_for_a_packet(form: Callable[[int], bytes] = pack, count: int = 2_900) -> bytes:
    """Return a map of chosen keys that fits in a packet, of some 50 KB."""
    return chosen_map(14, 8_000, count, form)


def chosen_megabyte() -> bytes:
    """Return maps of chosen keys of 1 MB in all."""
    return array_of([chosen_map(17, 60_000, 8_000)] * 3)


def as_float(number: int) -> bytes:
    """Return an integer as a float, which is the same key."""
    return b"\xcb" + struct.pack(">d", number)


def pair_keys(maps: int, pairs: int) -> bytes:
    """Return maps whose keys are arrays of two integers, which are tuples of one hash."""
    return array_of([map_of([array_of([pack(a), pack(b)]) for a, b in chosen_pairs(pairs)])] * maps)


def timestamp_keys(count: int) -> bytes:
    """Return a map whose keys are moments."""
    return map_of([b"\xd6\xff" + struct.pack(">I", 86_399 * number) for number in range(count)])


def multiple_keys(count: int) -> bytes:
    """Return a map whose keys are multiples of 2**40."""
    return map_of([pack(number << 40) for number in range(1, count + 1)])


def _fresh(count: int) -> Iterable[bytes]:
    return [b"\xac%012x" % next(_NAMES) for _ in range(count)]


def string_keys(count: int) -> bytes:
    """Return a map whose keys are strings that no message had before."""
    return map_of(list(_fresh(count)))


def meta(count: int) -> bytes:
    """Return options with metadata, each key of which is new (protocol 2.4)."""
    entries = b"".join(key + b"\xa1v" for key in _fresh(count))
    return b"\x81" + pack("meta") + bytes(msgpack.Packer().pack_map_header(count)) + entries


def nested(depth: int, inside: bytes = b"\xc0") -> bytes:
    """Return arrays inside one another."""
    return b"\x91" * depth + inside


def page_aligned_buffers(file: int, count: int) -> Body:
    """Return buffers that begin where pages do."""
    return buffers(file, count, 0, _PAGE, _PAGE)
