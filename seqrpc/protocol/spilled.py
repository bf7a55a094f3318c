"""Messages longer than a packet: in a sealed memory file (protocol section 5). For connections and streams alike."""

from __future__ import annotations

import errno
import functools
import os
from typing import Any, Final

from seqrpc.errors import Overloaded, RemoteProtocolError, RpcError
from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import OwnedFd, close_checked
from seqrpc.kernel.pieces import Content
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.heads import METHOD_BYTES, Head, read_head

_NAME: Final = "seqrpc-message"


class NoMemoryFile(OSError):
    """No memory file can be made for a message; ``errno`` says why."""


def write_spilled(data: Content) -> OwnedFd:
    """Return a sealed memory file with an encoded message, owned by the caller.

    Raises:
        NoMemoryFile: descriptors or memory ran out (``EMFILE``, ``ENFILE``, ``ENOMEM``, ``ENOSPC``), or this process
            may make no file so large (``EFBIG``: ``RLIMIT_FSIZE`` in getrlimit(2)).
    """
    try:
        return memfd.sealed(_NAME, data)
    except OSError as exc:
        raise NoMemoryFile(exc.errno, exc.strerror) from exc


def _check(file: OwnedFd, length: int) -> None:
    """Make sure that the ``length`` bytes of a memory file are there to stay.

    Raises:
        RemoteProtocolError: they are not.
    """
    try:
        size = memfd.check_sealed(file)
    except ValueError as exc:
        raise RemoteProtocolError(f"malformed spilled message: {exc}") from None
    if size != length:
        raise RemoteProtocolError(f"malformed spilled message: {length} bytes were promised, the memfd has {size}")


def begin_spilled(length: int, fds: list[OwnedFd]) -> bytes:
    """Return the first bytes of a spilled message, with its head among them; nothing else of it is read.

    Args:
        length: what the packet promised.
        fds: what came with the packet.

    Raises:
        RemoteProtocolError: there is no such memory file.
    """
    if not fds:
        raise RemoteProtocolError("malformed spilled message: no descriptor came with it")
    _check(fds[0], length)
    return os.pread(fds[0].fileno(), METHOD_BYTES, 0)


def read_spilled(
    decoder: Decoder, length: int, fds: list[OwnedFd], begin: bytes | None = None
) -> tuple[Any, str | RpcError | None]:
    """Return what ``decoder.decode`` makes of a spilled message, and let its memory file go.

    Args:
        decoder: decodes it.
        length: what the packet promised.
        fds: what came with the packet; the memory file is taken out once it was read, the others stay.
        begin: what :func:`begin_spilled` returned of it: what was checked there stays as it is.

    Raises:
        RemoteProtocolError: there is no such memory file, or the message is malformed.
        Overloaded: there is no room to look at it.
        TooLarge: it has too many arrays and maps.
    """
    if begin is None:
        begin = begin_spilled(length, fds)
    file = fds[0]
    held = memfd.held_bytes(file)
    if held < length:
        raise _of_holes()
    del fds[0]
    try:
        decoded = _decode(decoder, file, length, fds, begin)
    except BaseException:
        fds.insert(0, file)
        raise
    close_checked(file, held)
    return decoded


def _decode(
    decoder: Decoder, file: OwnedFd, length: int, fds: list[OwnedFd], begin: bytes
) -> tuple[Any, str | RpcError | None]:
    """Decode a message, mapped if there is more in it than a few short values and long bytes behind them."""
    if length <= len(begin):
        return decoder.decode(begin, fds)
    read = functools.partial(_read, file)
    if length > MAX_PACKET:
        decoded = decoder.decode_beginning(begin, length, fds, read)
        if decoded is not None:
            return decoded
    if memfd.has_holes(file, length):  # looking at them would fill them, with memory that is charged to us
        raise _of_holes()
    try:
        pages = memfd.map_sealed(file, 0, length)
    except OSError as exc:
        raise _no_room(length, exc.strerror) from exc
    with pages, memoryview(pages) as view:
        if length <= MAX_PACKET:
            return decoder.decode(bytes(view), fds)
        return decoder.decode_long(view, fds, read)


def _read(file: OwnedFd, offset: int, size: int) -> bytes:
    try:
        return memfd.read(file, offset, size)
    except MemoryError as exc:
        raise _no_room(size, os.strerror(errno.ENOMEM)) from exc


def _of_holes() -> RemoteProtocolError:
    return RemoteProtocolError("malformed spilled message: its memfd has holes")


def _no_room(size: int, reason: str | None) -> Overloaded:
    return Overloaded(f"there is no room for a message of {size} bytes: {reason}")


def read_spilled_head(length: int, fds: list[OwnedFd]) -> Head:
    """Return the head of a spilled message, of which nothing else is read.

    Raises:
        RemoteProtocolError: there is no such memory file, or no message in it.
    """
    return read_head(begin_spilled(length, fds), length)


def head_of_spilled(length: int, fds: list[OwnedFd]) -> Head | None:
    """Return the head of a spilled message that is not going to be read, or None if it cannot be told."""
    try:
        return read_spilled_head(length, fds)
    except RemoteProtocolError:
        return None
