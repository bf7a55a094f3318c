"""A connection to a service."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterable

from seqrpc.aio.brought import Brought, dispatcher_of
from seqrpc.aio.connection import Connection
from seqrpc.aio.endpoints import check_server, open_transport, socket_for
from seqrpc.aio.enduring import begin_enduring
from seqrpc.aio.interception import Interception
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.link import Link
from seqrpc.aio.opening import Opening
from seqrpc.aio.pinned import PinnedLink
from seqrpc.aio.registry import Registry
from seqrpc.aio.renewal import Renewal
from seqrpc.calls.unclosed import Guard
from seqrpc.interface.policy import PolicyLike, as_policy
from seqrpc.interface.reconnecting import Reconnect, address_to_reconnect_to, as_reconnect
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.kernel.addresses import AddressLike, parse_address
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits


class _Client:
    """A connection that is made once, and what lives as long as it does."""

    def __init__(
        self,
        registry: Registry,
        limits: Limits,
        interception: Interception,
        link_class: Callable[..., Link] = Link,
    ) -> None:
        self._limits = limits
        self._brought = Brought(registry, limits, interception, self, link_class)
        self._link = self._brought.new_link()

    async def begin(self, sock: socket.socket) -> Connection:
        """Enter the lifespans, and then talk over ``sock``, which the connection owns."""
        try:
            await self._brought.lifespans.begin()
        except BaseException:
            sock.close()
            raise
        try:
            self._link.run_outside(open_transport, sock, self._link, self._limits)
        except BaseException:
            await self._brought.lifespans.end()
            raise
        self._link.caller.guard = Guard(self._link)
        return dispatcher_of(self._link).give_away_connection()

    def connection_made(self, link: Link) -> None:
        pass

    def closing_received(self, link: Link) -> None:
        pass

    def connection_lost(self, link: Link) -> None:  # noqa: ARG002 - there is but one
        self._brought.end_when_quiet()

    async def wait_left(self) -> None:
        await self._brought.wait_left()

    def abandon(self) -> None:
        self._link.abandon()

    def __repr__(self) -> str:
        return repr(self._link)


async def _connect(
    address: AddressLike | None,
    *,
    sock: socket.socket | None,
    server: PolicyLike | None,
    services: Iterable[Service],
    allow: PolicyLike | None,
    interceptors: Iterable[Interceptor],
    limits: Limits,
    reconnect: Reconnect | None,
) -> Connection:
    registry = Registry(services, allow, limits)
    interception = Interception(interceptors)
    policy = None if server is None else as_policy(server)
    if reconnect is not None:
        target = address_to_reconnect_to(address, sock)
        renewal = Renewal(target, reconnect, server=policy, registry=registry, interception=interception, limits=limits)
        return await begin_enduring(renewal, interception)
    sock = await socket_for(address, sock, limits)
    check_server(sock, policy, "sock=" if address is None else parse_address(address))
    return await _Client(registry, limits, interception).begin(sock)


async def connect_to_process(
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
        registry, interception = Registry(services, allow, limits), Interception(interceptors)
        client = _Client(registry, limits, interception, functools.partial(PinnedLink, pid))
    except BaseException:
        sock.close()
        raise
    return await client.begin(sock)


def connect(
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    server: PolicyLike | None = None,
    services: Service | Iterable[Service] = (),
    allow: PolicyLike | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
    reconnect: bool | Reconnect = False,
) -> Opening[Connection]:
    """Connect to a service: ``async with seqrpc.connect(path) as connection: ...``.

    Args:
        address: where it listens; ``fd:N`` is a connected socket that this process inherited.
        sock: instead of ``address``: a connected SEQPACKET socket, as one end of a pair; the
            connection owns it.
        server: who must listen there, a policy about the process that called ``listen`` (under socket
            activation that is the service manager); checked before a byte is sent. On a socket pair it
            is about the pair's maker.
        services: what the other side may call here, on this same connection. Their lifespans are entered once it is
            made, before anything is sent or received, and left when it has ended.
        allow: who may call those; by default the same user and root.
        interceptors: what surrounds each call, the first is outermost; see :class:`seqrpc.Interceptor`.
        limits: bounds of the connection; ``connect_timeout`` covers a full backlog, for which ``reconnect=`` has its
            ``ready_timeout``.
        reconnect: True, or a :class:`seqrpc.Reconnect`, makes the connection anew whenever it ends, until it is closed
            on this side, and waits for a daemon that is not there yet. Calls that did not run are made again, and those
            of methods that are marked ``idempotent=True`` also if they may have run. Not for ``sock=``, ``fd:N`` and
            ``systemd:name``.

    Returns:
        To be awaited, or used in ``async with``: the :class:`~seqrpc.Connection`. If it is dropped without being closed
        (nobody has it, a proxy of it, or a call on it under way, nor runs a handler of its services), it is closed with
        a ResourceWarning.

    Raises:
        ConnectError: there is nobody to connect to; its subclass, the message and ``errno`` say why.
        UntrustedServer: ``server`` does not admit who listens; nothing was sent.
        AddressError: the address cannot be read, or an inherited socket does not fit.
        TypeError, ValueError: a service cannot be served, or one is no interceptor.
        Exception: what the lifespan of a service raised at the start.

    Cancel: nothing is left open, and lifespans that were entered are left.
    """
    check_limits(limits)
    policy = as_reconnect(reconnect)
    return Opening(
        functools.partial(
            _connect,
            address,
            sock=sock,
            server=server,
            services=services_of(services),
            allow=allow,
            interceptors=interceptors,
            limits=limits,
            reconnect=policy,
        ),
        "seqrpc.connect",
    )
