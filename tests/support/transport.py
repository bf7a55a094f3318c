"""What the tests of aio/transport have in common."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

import seqrpc
from seqrpc import SeqpacketTransport
from seqrpc.kernel.platforms import PLATFORM
from support.packets import (
    Recorder,
)
from support.processes import AS_ROOT

as_root = pytest.mark.skipif(not AS_ROOT, reason="needs to become another user")

Pair = tuple[socket.socket, socket.socket]


def same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def refuse_descriptors(sock: socket.socket) -> None:
    if not PLATFORM.refuse_descriptors(sock):
        pytest.skip("this kernel cannot refuse descriptors")


def queue_one(transport: SeqpacketTransport) -> None:
    """Fill the kernel's buffer until a packet has to wait in the transport's own queue."""
    while not transport.get_write_buffer_packets():
        transport.send_packet(b"filling")


class Tolerant(Recorder):
    """Takes what is not whole in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[Any] = []

    def packet_truncated(self, size: int) -> bool:
        self.cut.append(size)
        self.news.set()
        return True

    def descriptors_lost(self, data: bytes, credentials: seqrpc.Credentials | None) -> bool:
        assert credentials is not None
        self.cut.append((data, credentials.uid))
        self.news.set()
        return True
