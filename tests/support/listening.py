"""What the tests of kernel/listening have in common."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqrpc.errors import AddressInUse
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import PathAddress
from seqrpc.kernel.listening import ListeningSocket, listen
from support.processes import AS_ROOT

SEQPACKET = socket.SOCK_SEQPACKET

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root may become another user or give files away")


def listen_at(path: str | Path, **options: Any) -> ListeningSocket:
    return listen(PathAddress(os.fspath(path)), **options)


def serves(listening: ListeningSocket, path: str | Path) -> bool:
    """Whether a client at ``path`` reaches this very server."""
    with sockets.connect(PathAddress(os.fspath(path))) as client:
        client.send(b"hello")
        with listening.sock.accept()[0] as accepted:
            return accepted.recv(10) == b"hello"


def contents(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@contextlib.contextmanager
def foreign_server(
    path: Path, kind: socket.SocketKind = SEQPACKET, *, backlog: int | None = 5
) -> Iterator[socket.socket]:
    """A server that knows nothing of our locks."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(os.fspath(path))
        if backlog is not None and kind != socket.SOCK_DGRAM:
            sock.listen(backlog)
        yield sock


def same(before: os.stat_result, after: os.stat_result) -> bool:
    return [before.st_ino, before.st_mode, before.st_uid, before.st_gid, before.st_ctime_ns] == [
        after.st_ino,
        after.st_mode,
        after.st_uid,
        after.st_gid,
        after.st_ctime_ns,
    ]


def refused(path: Path, reason: str) -> None:
    with pytest.raises(AddressInUse, match=reason) as caught:
        listen_at(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # one traceback for people, not two
