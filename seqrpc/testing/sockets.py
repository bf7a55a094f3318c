"""The ends of a faulty pair: real sockets, of which a test can have the kernel refuse what is sent, or cut it short."""

from __future__ import annotations

import os
import socket
import sys
from array import array
from collections.abc import Iterable
from typing import Any, Final, Protocol

from seqrpc.kernel.platforms import PLATFORM

_PEEK: Final = int(socket.MSG_PEEK)
_INT_BYTES: Final = array("i").itemsize

_SENDER_ROOM: Final = socket.CMSG_SPACE(12)
"""Room for a struct ucred, and for no descriptor besides (unix(7))."""


class Meddler(Protocol):
    """Whoever is asked before a packet is sent."""

    def refusal_of(self, data: Any, descriptors: int) -> int | None:
        """Return the errno with which the sending fails, or None."""
        ...


class FaultySocket(socket.socket):
    """One end of a pair. What is done to it is done to no other socket of the process."""

    __slots__ = ("_cut", "_meddler", "_middle", "_received")

    def __init__(self, sock: socket.socket) -> None:
        """Take over a socket."""
        super().__init__(fileno=sock.detach())
        self._meddler: Meddler | None = None
        self._middle: socket.socket | None = None
        self._cut: set[int] = set()
        self._received = 0

    def ask(self, meddler: Meddler, middle: socket.socket) -> None:
        """Ask ``meddler`` before each packet; ``middle`` is the other end of this socket's own pair, borrowed."""
        self._meddler, self._middle = meddler, middle

    def cut(self, number: int) -> None:
        """Receive the packet of a number, counted from 1, without room for its descriptors."""
        self._cut.add(number)

    def uncut(self, number: int) -> None:
        """Receive the packet of a number as usual: it was not sent."""
        self._cut.discard(number)

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send, or fail as the test wants."""
        self._check(data, 0)
        return super().send(data, flags)

    def sendmsg(  # type: ignore[override] # a connected socket needs no address
        self, buffers: Iterable[Any], ancdata: Iterable[tuple[int, int, Any]] = (), flags: int = 0, /
    ) -> int:
        """Send with descriptors, or fail as the test wants."""
        pieces, control = tuple(buffers), tuple(ancdata)
        descriptors = sum(memoryview(numbers).nbytes // _INT_BYTES for _level, _kind, numbers in control)
        refusing = self._check(b"".join(pieces), descriptors)
        if refusing is None:
            return super().sendmsg(pieces, control, flags)
        try:
            return super().sendmsg(pieces, control, flags)
        finally:
            _take_descriptors(refusing)

    def _check(self, data: Any, descriptors: int) -> socket.socket | None:
        """Fail as the test wants, or return the socket that refuses descriptors for this once."""
        number = None if self._meddler is None else self._meddler.refusal_of(data, descriptors)
        if number is None:
            return None
        middle = self._middle
        takes = number < 0 and middle is not None and PLATFORM.takes_descriptors(middle)
        if takes and middle is not None and PLATFORM.refuse_descriptors(middle):  # the kernel does it, where it can
            return middle
        raise OSError(abs(number), os.strerror(abs(number)))

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send, or fail as the test wants: of packets there is no part."""
        self.send(data, flags)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive; descriptors find no room in any case."""
        data = super().recv(bufsize, flags)
        self._count(flags)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive likewise."""
        size = super().recv_into(buffer, nbytes, flags)
        self._count(flags)
        return size

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive with descriptors, or without those that are cut; :func:`socket.recv_fds` calls this."""
        received = super().recvmsg(bufsize, self._control_room(ancbufsize, flags), flags)
        self._count(flags)
        return received

    def _control_room(self, ancbufsize: int, flags: int) -> int:
        """Return the room that a packet finds for its control data."""
        if not self._cut or flags & _PEEK or self._received + 1 not in self._cut:
            return ancbufsize
        return _SENDER_ROOM if PLATFORM.asks_for_senders(self) else 0

    def _count(self, flags: int) -> None:
        if not flags & _PEEK:
            self._received += 1

    def recvmsg_into(self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive; a packet that is to be cut finds no room for its descriptors, and the kernel says so."""
        received = super().recvmsg_into(buffers, self._control_room(ancbufsize, flags), flags)
        self._count(flags)
        return received


def _take_descriptors(sock: socket.socket) -> None:
    if sys.platform == "linux":
        from seqrpc.kernel.linux import SO_PASSRIGHTS  # noqa: PLC0415 - only there

        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)
