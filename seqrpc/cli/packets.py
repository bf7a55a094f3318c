"""Packets of a tunnel at one of its ends: what is in them, and what they weigh."""

from __future__ import annotations

import select
import socket
from typing import NamedTuple

from seqrpc.cli.frames import Brought, Memory, Socket, is_spilled, streams_in
from seqrpc.kernel import ancillary, memfd
from seqrpc.kernel.descriptors import OwnedFd


class Packet(NamedTuple):
    """What came through the pipe."""

    message: bytes
    fds: list[OwnedFd]
    size: int
    """Bytes that it is counted as."""

    has_memory: bool
    """Whether memory files are among the descriptors."""


def streams_of(message: bytes, brought: list[Brought]) -> set[int]:
    """Return which of those that came with a packet are streams."""
    if not any(isinstance(each, Socket) for each in brought):
        return set()
    if isinstance(brought[0], Memory) and is_spilled(message):
        return {index + 1 for index in streams_in(brought[0].content)}
    return streams_in(message)


def size_of(fd: OwnedFd) -> int | None:
    """Return how large a sealed memory file is; None if it is none."""
    try:
        return memfd.check_sealed(fd)
    except (ValueError, OSError):
        return None


def content_of(fd: OwnedFd) -> bytes:
    """Return what is in a sealed memory file."""
    return memfd.read(fd, 0, memfd.check_sealed(fd))


def send(sock: socket.socket, message: bytes, fds: list[int]) -> None:
    """Send a packet, and wait for room."""
    while True:
        try:
            ancillary.send(sock, message, fds)
        except BlockingIOError:
            poller = select.poll()
            poller.register(sock.fileno(), select.POLLOUT)
            poller.poll()
        else:
            return
