"""From an address to a transport or a listening server, in asyncio's manner."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from seqrpc.aio.listener import Listener, SeqpacketServer
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.calls.outcomes import server_busy
from seqrpc.errors import AddressError, UntrustedServer
from seqrpc.interface.policy import Policy
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import Address, AddressLike, parse_address
from seqrpc.kernel.listening import BACKLOG, listen
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits

P = TypeVar("P", bound=SeqpacketProtocol)

_FIRST_DELAY = 0.001
_LAST_DELAY = 0.05


async def connected_socket(address: Address, connect_timeout: float) -> socket.socket:
    """Return a socket connected to ``address``, owned by the caller; a full backlog is tried again.

    Raises:
        ConnectError: there is nobody, or ``connect_timeout`` seconds passed (ServerBusy, ``errno`` is ``EAGAIN``).
        AddressError: an inherited socket does not fit.

    Cancel: nothing is left open.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + connect_timeout
    delay = _FIRST_DELAY
    while True:
        try:
            return sockets.connect(address)
        except BlockingIOError:
            if loop.time() >= deadline:
                raise server_busy(str(address), connect_timeout) from None
        await asyncio.sleep(delay * (0.5 + os.urandom(1)[0] / 510))  # so that waiting clients spread
        delay = min(2 * delay, _LAST_DELAY)


async def create_connection(
    protocol_factory: Callable[[], P],
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[SeqpacketTransport, P]:
    """Connect to ``address``, or take the connected socket ``sock``; the like of ``loop.create_connection``.

    Args:
        protocol_factory: called without arguments.
        address: where to connect; ``connect_timeout`` of the limits bounds it.
        sock: instead of ``address``: a connected SEQPACKET socket; the transport owns it.
        limits: bounds of this connection.

    Returns:
        The transport and the protocol, for which ``connection_made`` was called.

    Raises:
        ValueError: both or neither of ``address`` and ``sock`` are given.
        ConnectError, AddressError: as :func:`connected_socket`.

    Cancel: nothing is left open.
    """
    check_limits(limits)
    sock = await socket_for(address, sock, limits)
    try:
        protocol = protocol_factory()
    except BaseException:
        sock.close()
        raise
    return open_transport(sock, protocol, limits), protocol


async def socket_for(address: AddressLike | None, sock: socket.socket | None, limits: Limits) -> socket.socket:
    """Return the connected socket that one of ``address`` and ``sock`` stands for, owned by the caller.

    Raises:
        ValueError: both or neither are given.
        ConnectError, AddressError: as :func:`connected_socket`.
    """
    if (address is None) == (sock is None):
        raise ValueError("pass an address, or sock=, and not both")
    if sock is not None:
        sockets.check_socket(sock, "sock=")
        sockets.distrust_names(sock)
        return sock
    assert address is not None
    return await connected_socket(parse_address(address), limits.connect_timeout)


def check_server(sock: socket.socket, server: Policy | None, where: object) -> None:
    """Check that whoever listens at the other end of a connected socket is whom ``server=`` admits, else close it.

    Raises:
        UntrustedServer: it is not; nothing was sent.
    """
    if server is None:
        return
    try:
        who = PLATFORM.peer_credentials(sock)
        if not server.admits(who):
            text = f"{where}: server={server!r} does not admit who listens there: {who!r}"
            raise UntrustedServer(errno.EACCES, text)
    except BaseException:
        sock.close()
        raise


def open_transport(sock: socket.socket, protocol: SeqpacketProtocol, limits: Limits) -> SeqpacketTransport:
    """Return a transport that owns ``sock``; if that fails, the socket is closed.

    Raises:
        AddressError: the socket is not connected.
    """
    try:
        # One that we connected has a known peer; others were made to name their senders (distrust_names).
        by_packet = PLATFORM.asks_for_senders(sock)
        return SeqpacketTransport(asyncio.get_running_loop(), sock, protocol, limits, names_senders=by_packet)
    except BaseException as exc:
        close_unread(sock, None, discard=False)
        if isinstance(exc, OSError) and exc.errno == errno.ENOTCONN:
            raise AddressError("the socket is not connected") from None
        raise


async def create_server(
    protocol_factory: Callable[[], SeqpacketProtocol],
    address: AddressLike,
    *,
    mode: int | None = None,
    group: int | str | None = None,
    backlog: int = BACKLOG,
    accept_descriptors: bool = True,
    pass_credentials: bool = False,
    start_serving: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> SeqpacketServer:
    """Listen at ``address``; the like of ``loop.create_unix_server``.

    Args:
        protocol_factory: called without arguments for each connection.
        address: where to listen.
        mode: permission bits of the socket file, by default 0o600, in place before it can be reached; not for
            ``fd:N`` and ``systemd:name``, whose file is made elsewhere.
        group: group of the socket file, by name or number; likewise. It takes a ``mode``, too: 0o660.
        backlog: connections that may wait to be accepted.
        accept_descriptors: False makes the kernel refuse descriptors where it can (protocol 9.3).
        pass_credentials: True makes ``credentials`` of ``packet_received`` those of whoever sent the packet, not of
            whoever connected.
        start_serving: False waits for ``server.start_serving()``.
        limits: bounds of its connections.

    Raises:
        AddressInUse: a live server has the address.
        ListenError: the system does not let this process listen there.
        AddressError: the address cannot be listened on, or mode and group are given where others set them.
    """
    check_limits(limits)
    listening = listen(
        parse_address(address),
        mode=mode,
        group=group,
        backlog=backlog,
        accept_descriptors=accept_descriptors,
        pass_credentials=pass_credentials,
    )
    listener = Listener(asyncio.get_running_loop(), listening, protocol_factory, limits)
    if start_serving:
        listener.accept_connections()
    return SeqpacketServer(listener)
