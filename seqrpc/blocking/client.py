"""Connecting to a service without an event loop."""

from __future__ import annotations

import errno
import functools
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.connection import Connection, ReconnectingConnection
from seqrpc.blocking.dispatch import Dispatcher
from seqrpc.blocking.family import Family
from seqrpc.blocking.interception import around, caller_of
from seqrpc.blocking.interceptors import Interception, Interceptor
from seqrpc.blocking.line import Line
from seqrpc.blocking.living import LivingValues
from seqrpc.blocking.pinned import PinnedLine
from seqrpc.blocking.reconnecting import Lines, Made, ReconnectingCaller
from seqrpc.calls.outcomes import server_busy
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import DeadlineExceeded, UntrustedServer
from seqrpc.interface.entries import MethodTable
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.reconnecting import Reconnect, address_to_reconnect_to, as_reconnect
from seqrpc.interface.scope import scope
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import AbstractAddress, Address, AddressLike, PathAddress, parse_address
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits

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
    reconnect: bool | Reconnect = False,
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
        reconnect: True, or a :class:`seqrpc.Reconnect`: wait for a daemon that is not there yet, and connect anew, in
            the thread that next calls, when the connection has ended. Calls that did not run are sent again, and those
            that may have run if their method is marked as ``idempotent``.
        limits: bounds of the connection; ``connect_timeout`` covers a full backlog, for which ``reconnect=`` has its
            ``ready_timeout``.

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
    maker = _Maker(table, interception, None if server is None else as_policy(server), limits)
    anew = as_reconnect(reconnect)
    if anew is not None:
        return maker.reconnecting(address_to_reconnect_to(address, sock), anew)
    if (address is None) == (sock is None):
        raise ValueError("pass an address, or sock=, and not both")
    if sock is not None:
        sockets.check_socket(sock, "sock=")
        sockets.distrust_names(sock)
        return maker.connection_on(sock, "sock=")
    assert address is not None
    return maker.connection_to(parse_address(address))


def connect_to_process(
    sock: socket.socket,
    pid: int,
    *,
    services: Iterable[Service] = (),
    allow: PolicyLike | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Connection:
    """Return a connection over one end of a pair whose other end has the process ``pid``, a child of this one.

    A packet of any other process ends it (protocol 9.2). The socket is the connection's, and closed if there is none.
    The rest is as for :func:`connect`.
    """
    try:
        served = tuple(services)
        _check_lifespans(served)
        line_class = functools.partial(PinnedLine, pid)
        maker = _Maker(MethodTable(served, allow), Interception(interceptors), None, limits, line_class)
    except BaseException:
        sock.close()
        raise
    return maker.connection_on(sock, "sock=")


class _Maker:
    """Makes the connections of one client.

    Args:
        table: what the other side may call.
        interception: what surrounds calls.
        server: who must listen there, or None.
        limits: bounds of the connections.
        line_class: makes the line of one.
    """

    def __init__(
        self,
        table: MethodTable,
        interception: Interception,
        server: Policy | None,
        limits: Limits,
        line_class: Callable[..., Line] = Line,
    ) -> None:
        self._table = table
        self._interception = interception
        self._server = server
        self._line_class = line_class
        self._limits = limits
        self._family = Family()
        self._living = LivingValues(limits, self._family, interception)

    def connection_on(self, sock: socket.socket, where: str) -> Connection:
        """Return the connection on a connected socket, which it owns."""
        with Uninterrupted():
            made, dispatcher = self._make(sock, where)
            made.caller.guard = Guard(_Whole(made.line))
            connection = Connection(made.line, around(made.caller, self._interception))
            dispatcher.remember(connection)
        return connection

    def connection_to(self, address: Address) -> Connection:
        """Return a connection to an address."""
        sock = connected_socket(address, self._limits.connect_timeout)
        return self.connection_on(sock, str(address))

    def reconnecting(self, address: Address, policy: Reconnect) -> Connection:
        """Return a connection to an address that is made again and again."""
        make = functools.partial(self._make_anew, address)
        lines = Lines(make, policy, self._family, self._living.travels, self._limits)
        caller = ReconnectingCaller(lines)
        connection = ReconnectingConnection(lines, around(caller, self._interception))
        lines.face = weakref.ref(connection)
        lines.ready(scope.get().deadline_ns, lines.patience_from_now())
        caller.guard = Guard(lines)
        return connection

    def _make_anew(self, address: Address, adopt: Callable[[Made], object]) -> None:
        sock = connected_socket(address, 0)  # who waits, waits between attempts
        with Uninterrupted():
            adopt(self._make(sock, str(address))[0])

    def _make(self, sock: socket.socket, where: str) -> tuple[Made, Dispatcher]:
        """Return what a connection on a socket is made of; if that fails, the socket is closed."""
        limits, interception, family = self._limits, self._interception, self._family
        try:
            if self._server is not None:
                _check_server(sock, self._server, where)
            handler = Dispatcher(
                self._table, limits, interception, lambda line: Connection(line, caller_of(line, interception))
            )
            line = self._line_class(
                sock, handler, limits, family, self._living, by_packet=PLATFORM.asks_for_senders(sock)
            )
        except BaseException:
            sock.close()
            raise
        if handler.serves:
            family.add(line)
        return Made(line, Caller(line)), handler


class _Whole:
    """A connection, and what others hold of it: all of it ends if it is dropped unclosed.

    Args:
        line: the connection.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def is_unclosed(self) -> bool:
        """Whether nobody has closed it."""
        return self._line.is_unclosed

    def abandon(self) -> None:
        """End it without waiting."""
        self._line.abandon()
        self._line.family.abandon()

    def __repr__(self) -> str:
        """Return the state of the connection, and who is at the other end."""
        return repr(self._line)


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
        sock: socket.socket | None = None
        try:
            with Uninterrupted():
                sock = sockets.connect(address)
                if sock.gettimeout() == 0 and not _is_inherited(address):
                    sock.setblocking(True)
        except BaseException as exc:
            if sock is not None:  # a signal handler raised at the end of the block
                sock.close()
                raise
            if not isinstance(exc, BlockingIOError):
                raise
            if time.monotonic() >= end:
                raise server_busy(str(address), connect_timeout) from None
        else:
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
