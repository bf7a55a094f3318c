"""Messages longer than a packet: in a sealed memory file (protocol section 5). For connections and streams alike."""

from __future__ import annotations

import functools
import os
from typing import Any, Final

from seqrpc.errors import Overloaded, RemoteProtocolError, RpcError
from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import OwnedFd
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


def read_spilled(decoder: Decoder, length: int, fds: list[OwnedFd]) -> tuple[Any, str | RpcError | None]:
    """Return what ``decoder.decode`` makes of a spilled message, and let its memory file go.

    Args:
        decoder: decodes it.
        length: what the packet promised.
        fds: what came with the packet; the memory file is taken out once it was read, the others stay.

    Raises:
        RemoteProtocolError: there is no such memory file, or the message is malformed.
        Overloaded: there is no room to look at it.
        TooLarge: it has too many arrays and maps.
    """
    if not fds:
        raise RemoteProtocolError("malformed spilled message: no descriptor came with it")
    _check(fds[0], length)
    if memfd.is_sparse(fds[0]):  # looking at it would fill it, with memory that is charged to us
        raise RemoteProtocolError("malformed spilled message: its memfd has holes")
    try:
        pages = memfd.map_sealed(fds[0], 0, length)
    except OSError as exc:
        raise Overloaded(f"there is no room for a message of {length} bytes: {exc.strerror}") from exc
    file = fds.pop(0)
    try:
        with pages, memoryview(pages) as view:
            if length <= MAX_PACKET:
                decoded = decoder.decode(bytes(view), fds)
            else:
                decoded = decoder.decode_long(view, fds, functools.partial(memfd.read, file))
    except BaseException:
        fds.insert(0, file)
        raise
    file.close()
    return decoded


def read_spilled_head(length: int, fds: list[OwnedFd]) -> Head:
    """Return the head of a spilled message, of which nothing else is read.

    Raises:
        RemoteProtocolError: there is no such memory file, or no message in it.
    """
    if not fds:
        raise RemoteProtocolError("malformed spilled message: no descriptor came with it")
    _check(fds[0], length)
    return read_head(os.pread(fds[0].fileno(), METHOD_BYTES, 0), length)


def head_of_spilled(length: int, fds: list[OwnedFd]) -> Head | None:
    """Return the head of a spilled message that is not going to be read, or None if it cannot be told."""
    try:
        return read_spilled_head(length, fds)
    except RemoteProtocolError:
        return None
