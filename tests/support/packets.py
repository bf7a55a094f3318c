"""Raw sockets on a loop, and messages made of bytes."""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections.abc import Sequence
from typing import Any

from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from support.waiting import PATIENCE


def raw_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends as the kernel makes them, non-blocking."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    return pair


async def readable(sock: socket.socket) -> None:
    """Wait until a raw socket has something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())


async def receive(sock: socket.socket) -> bytes:
    """Return the next packet of a raw socket, or nothing at its end."""
    while True:
        try:
            return sock.recv(100_000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            await readable(sock)


async def receive_to_the_end(sock: socket.socket) -> list[bytes]:
    """Return all packets until the end of a raw socket."""
    packets = []
    while packet := await receive(sock):
        packets.append(packet)
    return packets


def send_with(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send a packet with descriptors."""
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))], socket.MSG_DONTWAIT)


def fill(sock: socket.socket, data: bytes = b"x" * 1000) -> int:
    """Send until the kernel takes no more; return how many packets it took."""
    count = 0
    while True:
        try:
            sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return count
        count += 1


def wire(*message: Any) -> bytes:
    """Return the packet of a message, as a peer in any language would send it."""
    return bytes(Encoder().encode(message)[0])


def unwire(data: bytes) -> Any:
    """Return the message of a packet that came without descriptors."""
    value, problem = Decoder().decode(data, [])
    assert problem is None
    return value
