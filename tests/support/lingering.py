"""Descriptors whose close waits: TCP sockets with unsent data, and files of a FUSE mount whose server is silent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from support.processes import fork

LINGER_SECONDS: Final = 3
"""How long closing one takes, in the end."""

_FULL: Final = 64 * 1024


def start_thread(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Start a thread as :func:`_thread.start_new_thread`, in which coverage is measured too."""
    threading.Thread(target=function, args=args, daemon=True).start()


class Lingering:
    """Makes sockets whose last close takes :data:`LINGER_SECONDS`, for they have unsent data and nobody reads it.

    Args:
        seconds: how long it takes.
    """

    def __init__(self, seconds: int = LINGER_SECONDS) -> None:
        self._seconds = seconds
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # far less than is sent
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(4096)
        self._deaf: list[socket.socket] = []

    def make(self) -> socket.socket:
        """Return one more; closing it here is quick as long as somebody else has it."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _FULL)
        sock.connect(self._listener.getsockname())
        accepted, _address = self._listener.accept()
        self._deaf.append(accepted)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(_FULL))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, self._seconds))
        return sock

    def release(self) -> None:
        """Let all of them close at once: nobody is there to send to any more."""
        for sock in self._deaf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # with a reset
            sock.close()
        self._deaf.clear()

    def close(self) -> None:
        """Release them, and make no more."""
        self.release()
        self._listener.close()


@contextlib.contextmanager
def lingering(seconds: int = LINGER_SECONDS) -> Iterator[Lingering]:
    """Return what makes sockets whose close waits; at the end none does any more."""
    made = Lingering(seconds)
    try:
        yield made
    finally:
        made.close()


def hidden(sock: socket.socket) -> socket.socket:
    """Return a Unix socket in whose queue ``sock``, which is closed, is the only thing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, sock:
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [sock.fileno()]))])
    return theirs


# FUSE (linux/fuse.h): just enough to open one file

_LOOKUP, _FORGET, _GETATTR, _OPEN, _INIT, _OPENDIR, _BATCH_FORGET = 1, 2, 3, 14, 26, 27, 42
_DIRECTORY, _FILE = 0o40755, 0o100644
_MNT_DETACH: Final = 2


class SilentFileSystem:
    """A file system with a file ``x``; from :meth:`fall_silent` on nothing that it is asked is answered.

    Its server is a child, which ends when this process does, and lets go whoever waits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        orders, self._orders = os.pipe()  # before any file of it is opened, so that it is closed before those are
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
        mounted = self._libc.mount(b"silent", os.fsencode(path), b"fuse", 0, options.encode()) == 0
        failure = OSError(ctypes.get_errno(), "cannot mount")
        self._server = fork() if mounted else 0
        if mounted and self._server == 0:
            try:
                os.close(self._orders)
                self._serve(device, orders)
            finally:
                os._exit(0)
        os.close(orders)
        os.close(device)
        if not mounted:
            os.close(self._orders)
            raise failure

    def open(self) -> int:
        """Return a descriptor of the file."""
        return os.open(self._path / "x", os.O_RDONLY | os.O_CLOEXEC)

    def fall_silent(self) -> None:
        os.write(self._orders, b"silence")

    def unmount(self) -> None:
        """Go: whoever waits for an answer gets an error."""
        os.close(self._orders)
        os.waitpid(self._server, 0)
        self._libc.umount2(os.fsencode(self._path), _MNT_DETACH)

    def _serve(self, device: int, orders: int) -> None:
        silent = False
        while True:
            ready, _, _ = select.select([device, orders], [], [])
            if orders in ready:
                if not os.read(orders, 100):
                    return
                silent = True
                continue
            request = os.read(device, 1 << 17)
            _size, what, unique, node = struct.unpack_from("<IIQQ", request)
            if not silent and what not in (_FORGET, _BATCH_FORGET):
                body = self._answer(what, node)
                os.write(device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)

    @staticmethod
    def _answer(what: int, node: int) -> bytes:
        if what == _INIT:
            return struct.pack("<IIIIHHIIHHI", 7, 31, 65_536, 0, 0, 0, 65_536, 1, 0, 0, 0) + bytes(28)
        if what == _LOOKUP:
            return struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + _attributes(2)
        if what == _GETATTR:
            return struct.pack("<QII", 0, 0, 0) + _attributes(node)
        return struct.pack("<QII", 1, 0, 0) if what in (_OPEN, _OPENDIR) else b""


def _attributes(node: int) -> bytes:
    mode = _DIRECTORY if node == 1 else _FILE
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def can_mount() -> bool:
    """Return whether this process can mount a file system of its own."""
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as directory:
        try:
            SilentFileSystem(Path(directory)).unmount()
        except OSError:
            return False
    return True


@contextlib.contextmanager
def silent_file_system() -> Iterator[SilentFileSystem]:
    """Mount a file system that may fall silent; at the end it is gone."""
    with tempfile.TemporaryDirectory() as directory:
        mounted = SilentFileSystem(Path(directory))
        try:
            yield mounted
        finally:
            mounted.unmount()
