"""Connecting to a service without an event loop."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable
from typing import Final

from seqrpc.blocking.connection import Connection
from seqrpc.blocking.dispatch import Dispatcher
from seqrpc.blocking.family import Family
from seqrpc.blocking.interception import caller_of
from seqrpc.blocking.interceptors import Interception, Interceptor
from seqrpc.blocking.line import Line
from seqrpc.blocking.living import LivingValues
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import DeadlineExceeded, ServerBusy, UntrustedServer
from seqrpc.interface.entries import MethodTable
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.scope import scope
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import AbstractAddress, Address, AddressLike, PathAddress, parse_address
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits
from seqrpc.text import shown

_FIRST_DELAY: Final = 0.001
_LAST_DELAY: Final = 0.05


def connect(
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    server: PolicyLike | None = None,
    services: Service | Iterable[Service] = (),
    allow: PolicyLike | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Connection:
    """Connect to a service: ``with seqrpc.blocking.connect(path) as connection: ...``.

    Args:
        address: where it listens; ``fd:N`` is a connected socket that this process inherited.
        sock: instead of ``address``: a connected SEQPACKET socket, as one end of a pair; the connection owns it.
        server: who must listen there, a policy about the process that called ``listen`` (under socket
            activation that is the service manager); checked before a byte is sent. On a socket pair it
            is about the pair's maker.
        services: what the other side may call here, on this same connection, while a thread waits for an answer or
            calls :meth:`Connection.process`. Their methods run in that thread, one after the other.
        allow: who may call those; by default the same user and root.
        interceptors: what surrounds each call, the first is outermost; see :class:`seqrpc.blocking.Interceptor`.
        limits: bounds of the connection; ``connect_timeout`` covers a full backlog.

    Returns:
        The :class:`Connection`, to be closed by ``with`` or by its ``close``. If it is dropped without being closed, it
        is closed with a ResourceWarning.

    Raises:
        ConnectError: there is nobody to connect to; its subclass, the message and ``errno`` say why.
        UntrustedServer: ``server`` does not admit who listens; nothing was sent.
        AddressError: the address cannot be read, or an inherited socket does not fit.
        DeadlineExceeded: the time given by :func:`seqrpc.timeout` is up.
        TypeError, ValueError: a service cannot be served, or one is no interceptor.
    """
    check_limits(limits)
    served = services_of(services)
    _check_lifespans(served)
    table = MethodTable(served, allow)
    interception = Interception(interceptors)
    policy = None if server is None else as_policy(server)
    with Uninterrupted():
        connected = _socket_for(address, sock, limits)
        try:
            if policy is not None:
                _check_server(connected, policy, "sock=" if address is None else str(parse_address(address)))
            return _open(connected, table, interception, limits)
        except BaseException:
            connected.close()
            raise


def _open(sock: socket.socket, table: MethodTable, interception: Interception, limits: Limits) -> Connection:
    family = Family()
    living = LivingValues(limits, family, interception)
    dispatcher = Dispatcher(table, limits, interception, lambda line: Connection(line, caller_of(line, interception)))
    line = Line(sock, dispatcher, limits, family, living, by_packet=PLATFORM.asks_for_senders(sock))
    if dispatcher.serves:
        family.add(line)
    caller = caller_of(line, interception)
    caller.guard = Guard(line)
    connection = Connection(line, caller)
    dispatcher.remember(connection)
    return connection


def _check_lifespans(services: Iterable[Service]) -> None:
    """Refuse services that need an event loop around them.

    Raises:
        TypeError: one has a lifespan of its own.
    """
    for service in services:
        if type(service).lifespan is not Service.lifespan:
            name = type(service).__qualname__
            raise TypeError(
                f"{name}.lifespan needs an event loop, which a blocking connection has not: open what {name} needs"
                " before you connect"
            )


def _socket_for(address: AddressLike | None, sock: socket.socket | None, limits: Limits) -> socket.socket:
    """Return the connected socket that one of the two stands for, owned by the caller."""
    if (address is None) == (sock is None):
        raise ValueError("pass an address, or sock=, and not both")
    if sock is not None:
        sockets.check_socket(sock, "sock=")
        sockets.distrust_names(sock)
        return sock
    assert address is not None
    return connected_socket(parse_address(address), limits.connect_timeout)


def connected_socket(address: Address, connect_timeout: float) -> socket.socket:
    """Return a socket connected to ``address``, owned by the caller; a full backlog is tried again.

    Raises:
        ConnectError: there is nobody, or ``connect_timeout`` seconds passed (ServerBusy, ``errno`` is ``EAGAIN``).
        DeadlineExceeded: the time given by ``seqrpc.timeout`` is up.
        AddressError: an inherited socket does not fit.
    """
    end = time.monotonic() + connect_timeout
    deadline = scope.get().deadline_ns
    delay = _FIRST_DELAY
    while True:
        try:
            sock = sockets.connect(address)
        except BlockingIOError:
            if time.monotonic() >= end:
                message = f"cannot connect to {shown(address)}: its backlog was full for {connect_timeout:g} s"
                raise ServerBusy(errno.EAGAIN, f"{message}: the daemon is overloaded, or hangs") from None
        else:
            if sock.gettimeout() == 0 and not _is_inherited(address):
                sock.setblocking(True)
            return sock
        if deadline is not None and time.monotonic_ns() >= deadline:
            raise DeadlineExceeded("the deadline passed before the connection was made")
        time.sleep(delay * (0.5 + os.urandom(1)[0] / 510))  # so that waiting clients spread
        delay = min(2 * delay, _LAST_DELAY)


def _is_inherited(address: Address) -> bool:
    """Return whether others may have the same socket, whose blocking mode is theirs, too."""
    return not isinstance(address, PathAddress | AbstractAddress)


def _check_server(sock: socket.socket, policy: Policy, where: str) -> None:
    """Check who listens at the other end.

    Raises:
        UntrustedServer: the policy does not admit them.
    """
    who = PLATFORM.peer_credentials(sock)
    if not policy.admits(who):
        raise UntrustedServer(errno.EACCES, f"{where}: server={policy!r} does not admit who listens there: {who!r}")
