"""A client of sockets and MessagePack alone, which knows every byte of what it sends."""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from support.foreign import WITHIN

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

MAX_MESSAGE = 1 << 20  # what foreign_service.py takes

PAGE = mmap.PAGESIZE

SENDER_SIZE = struct.calcsize("3i")

Ext = msgpack.ExtType


def packed(*message: Any) -> bytes:
    data: bytes = msgpack.packb(message)
    return data


class Raw:
    """A socket, and the descriptors that came in on it."""

    def __init__(self, sock: socket.socket, keep: contextlib.ExitStack) -> None:
        self.sock = sock
        self.keep = keep
        self.fds: list[int] = []
        """Of the last packet; they are closed at the end of the test."""
        self.sender = 0
        """The process that sent the last packet, if the socket has ``SO_PASSCRED``."""
        sock.settimeout(WITHIN)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        assert self.sock.sendmsg([data], rights, socket.MSG_EOR | socket.MSG_NOSIGNAL) == len(data)

    def receive(self) -> bytes:
        """Return the next packet; nothing at the end."""
        room = socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(SENDER_SIZE)
        try:
            data, control, flags, _address = self.sock.recvmsg(65_536, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # once, ahead of what was sent earlier
            return self.receive()
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        self.fds, self.sender = [], 0
        for _level, kind, content in control:
            if kind == socket.SCM_RIGHTS:
                self.fds = [*array.array("i", content)]
            else:
                self.sender = struct.unpack("3i", content)[0]
        for fd in self.fds:
            self.keep.callback(os.close, fd)
        return data

    def ask(self, call_id: int, method: str, *params: Any, fds: Sequence[int] = ()) -> Any:
        """Call and return the message that comes next."""
        self.send(packed(0, call_id, f"Foreign.{method}", params), fds)
        return self.message()

    def message(self) -> Any:
        return msgpack.unpackb(self.receive(), strict_map_key=False)

    def takes_over(self, index: int = 0) -> Raw:
        """Return a socket that came with the last packet."""
        return Raw(self.keep.enter_context(socket.socket(fileno=os.dup(self.fds[index]))), self.keep)


class Maker:
    """Makes sockets and files that are closed at the end of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keep = contextlib.ExitStack()
        self.open: set[int] = set()

    def connect(self) -> Raw:
        sock = self.keep.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        sock.connect(str(self.path))
        return Raw(sock, self.keep)

    def pair(self, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> tuple[Raw, int]:
        """Return our end, and the one to send, which is to be closed then if the end of file matters."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        return Raw(self.keep.enter_context(ours), self.keep), self.fd(theirs.detach())

    def fd(self, number: int) -> int:
        self.open.add(number)
        self.keep.callback(self.close, number)
        return number

    def close(self, number: int) -> None:
        if number in self.open:
            self.open.remove(number)
            os.close(number)

    def null(self) -> int:
        return self.fd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def pipe(self) -> int:
        reader, writer = os.pipe()
        self.fd(writer)
        return self.fd(reader)

    def memfd(self, content: bytes, seals: int = SEALS, size: int | None = None) -> int:
        fd = self.fd(os.memfd_create("raw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.write(fd, content)
        if size is not None:
            os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd

    def socket(self, kind: socket.SocketKind) -> int:
        return self.fd(socket.socket(socket.AF_UNIX, kind).detach())

    def listening(self) -> int:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind("")  # a name of the kernel's choice
        sock.listen()
        return self.fd(sock.detach())

    def regular_file(self) -> int:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(PAGE))
            file.flush()
            return self.fd(os.dup(file.fileno()))

    def written_only(self, content: bytes) -> int:
        return self.fd(os.open(f"/proc/self/fd/{self.memfd(content)}", os.O_WRONLY | os.O_CLOEXEC))


class Service:
    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.process = process

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def comes_to_have(self, files: int) -> bool:
        """Return whether no more files than these are open soon.

        Some of what it was sent is closed by a thread of its own; and there may be fewer, as what an earlier
        connection left may have been closed only after they were counted.
        """
        until = time.monotonic() + WITHIN
        while self.open_files() > files:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True


def content_of(fd: int) -> bytes:
    """Return what is in a memory file, which must be as the protocol wants it."""
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    return os.pread(fd, os.fstat(fd).st_size, 0)


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\x01"


Case = Callable[[Maker], tuple[bytes, list[int]]]


def spilled(content: bytes, *more: Any, seals: int = SEALS) -> Case:
    """Return a SPILLED packet for a message, sealed as said, and with more after its length."""
    return lambda make: (packed(4, len(content), *more), [make.memfd(content, seals)])


def buffer(index: int, offset: int, length: int) -> Any:
    return Ext(4, struct.pack(">BQQ", index, offset, length))


def over_the_limit(make: Maker, *message: Any) -> int:
    return make.memfd(packed(*message), size=MAX_MESSAGE + 1)


def echo(*params: Any) -> bytes:
    return packed(0, 1, "Foreign.echo", params)
