"""The one place where somebody else's word than the kernel's says who calls: on socket pairs that tests made."""

from __future__ import annotations

import asyncio
import socket

from seqrpc.aio.carrier import Carrier
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.kernel import sockets
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import Limits


class _PretendedTransport(SeqpacketTransport):
    """A transport whose other end is who the test says."""

    __slots__ = ()

    def __init__(self, sock: socket.socket, protocol: SeqpacketProtocol, limits: Limits, peer: Credentials) -> None:
        loop = asyncio.get_running_loop()
        self._begin(sock, Carrier(loop, sock, protocol, limits, names_senders=False, peer=peer))


def open_as(peer: Credentials, sock: socket.socket, protocol: SeqpacketProtocol, limits: Limits) -> None:
    """Make a transport that owns one end of a socket pair, and that takes ``peer`` to be at the other.

    Raises:
        ValueError: the socket is no end of a pair, but connected to an address: there the kernel's word holds. It is
            closed.
    """
    try:
        if sockets.is_named(sock):
            raise ValueError("nobody can pretend to be another one at an address, but only on a socket pair of a test")
        _PretendedTransport(sock, protocol, limits, peer)
    except BaseException:
        close_unread(sock, None, discard=False)
        raise
