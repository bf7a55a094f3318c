"""Descriptors of every kind that is closed at once, if its sender is trusted, and of others; each call makes one."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from support.descriptors import memory_file


def a_socket() -> int:
    """Return a Unix socket."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()


def a_file() -> int:
    """Return a file without a name."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _fifo() -> int:
    with tempfile.TemporaryDirectory() as directory:
        os.mkfifo(Path(directory, "fifo"))
        return os.open(Path(directory, "fifo"), os.O_RDWR)


AT_ONCE: Final[Mapping[str, Callable[[], int]]] = {
    "memory file": lambda: memory_file(b"x" * 100_000).detach(),
    "unsealed memory file": lambda: memory_file(b"x", seals=0).detach(),
    "eventfd": lambda: os.eventfd(0),
    "null": lambda: os.open("/dev/null", os.O_RDONLY),
    "urandom": lambda: os.open("/dev/urandom", os.O_RDONLY),
}

SOON: Final[Mapping[str, Callable[[], int]]] = {
    "socket": a_socket,
    "file": a_file,
    "file to be read": lambda: os.open(__file__, os.O_RDONLY),
    "fifo": _fifo,
    "large memory file": lambda: memory_file(size=9 << 20, whole=True).detach(),
    # As of a file of any file system in memory.
    "file in memory": lambda: memory_file(b"x", seals=fcntl.F_SEAL_SEAL).detach(),
    "directory": lambda: os.open("/", os.O_RDONLY),
    "terminal": lambda: os.open("/dev/tty0", os.O_PATH) if os.path.exists("/dev/tty0") else a_file(),
}
