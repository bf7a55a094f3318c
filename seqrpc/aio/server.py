"""A server: services behind an address, as whoever serves them sees it."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.connection import Connection
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.hub import Hub
from seqrpc.aio.interception import Interception
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.listener import Listener
from seqrpc.aio.opening import Opening
from seqrpc.aio.registry import Registry
from seqrpc.aio.succession import Predecessor
from seqrpc.calls.unclosed import Guard
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.interface.stats import Stats
from seqrpc.interface.tallies import Tallies
from seqrpc.kernel import buffers, sockets
from seqrpc.kernel.addresses import Address, AddressLike, FdAddress, SystemdAddress, parse_address
from seqrpc.kernel.listening import BACKLOG, ListeningSocket, adopt_listening, check_access_of_others, claim
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits


class Server(AsyncBlock):
    """Services that are being served; made by :func:`serve`.

    If it is dropped without being closed, it is closed, as by :meth:`close`, with a ResourceWarning.
    """

    __slots__ = ("__weakref__", "_guard", "_hub")

    def __init__(self, hub: Hub) -> None:
        """Wrap a hub."""
        self._hub = hub
        self._guard = Guard(hub)

    @property
    def address(self) -> Address | None:
        """Where it listens; None on a socket of the caller's."""
        return self._hub.address

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections that are open now."""
        return self._hub.connections

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, lent, in a tuple; empty once closed, and on a socket pair."""
        return self._hub.sockets

    def stats(self) -> Stats:
        """Return how the server is: what ``rpc.stats`` answers.

        It takes some milliseconds with thousands of connections. Who else than the same user and root is to learn it
        asks a method of the program's own, which returns this.

        Raises:
            WrongProcess, WrongLoop: the server belongs to another process, or to another event loop.
        """
        return self._hub.stats()

    def refuse_new(self) -> None:
        """Stop listening, and refuse what comes on the connections that there are; the first step of :meth:`drain`.

        Clients that wait to be accepted are told why. What runs goes on. Once the closing has begun, this does nothing.

        Raises:
            WrongProcess, WrongLoop: the server belongs to another process, or to another event loop.
        """
        self._hub.refuse_new()

    async def drain(self, drain_timeout: float | None = None) -> bool:
        """Stop: refuse what comes, let what runs finish, answer what was sent before clients knew, then close.

        It takes ``drain_timeout`` and a few times ``close_timeout`` at most. What is sent meanwhile is refused;
        a client that never stops sending is not read for ever.

        Streams run on while they have something to send: one that has been quiet for ``close_timeout`` is ended.

        A handler may drain its own server, also from a task or a thread that it started. The drain does not wait for
        handlers that drain the same server: once the rest has finished they are cancelled, as by :meth:`close`.

        Args:
            drain_timeout: seconds to wait for what runs; by default ``drain_timeout`` of the limits.

        Returns:
            Whether everything finished in time.

        Raises:
            WrongProcess, WrongLoop: the server belongs to another process, or to another event loop.
            Exception: as :meth:`close`.

        Cancel: what runs is waited for no longer; the server is closed, as by :meth:`close`, before this ends.
        """
        return await self._hub.drain(drain_timeout)

    async def close(self) -> None:
        """Stop now: handlers are cancelled, connections closed, the socket file removed.

        It waits ``close_timeout`` seconds for handlers that go on although they were cancelled, and then leaves
        them running, with a warning in the log. In a forked child this does nothing: the server is the parent's.

        After that the lifespans of the services are left, within ``lifespan_timeout``.

        Raises:
            WrongLoop: the server belongs to another event loop.
            Exception: the lifespan of a service failed; everything is closed.

        Cancel: the closing goes on.
        """
        await self._hub.close()

    async def wait_closed(self) -> None:
        """Wait until the server has stopped or, on a socket pair, the other side has gone.

        Raises:
            WrongProcess, WrongLoop: the server belongs to another process, or to another event loop.
            Exception: the lifespan of a service failed; everything is closed.
        """
        await self._hub.wait_closed()

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def __repr__(self) -> str:
        """Return where it listens."""
        return repr(self._hub)


def hub_of(server: Server) -> Hub:
    """Return what a server is made of."""
    return server._hub  # noqa: SLF001 - this module's own


async def _start(
    services: Iterable[Service],
    address: AddressLike | None,
    *,
    sock: socket.socket | None,
    allow: PolicyLike | None,
    mode: int | None,
    group: int | str | None,
    backlog: int,
    accept_descriptors: bool | None,
    pass_credentials: bool,
    interceptors: Iterable[Interceptor],
    limits: Limits,
    predecessor: Predecessor | None = None,
) -> Server:
    registry = Registry(services, allow, limits, Tallies())
    interception = Interception(interceptors)
    if (address is None) == (sock is None):
        raise ValueError("pass an address, or sock=, and not both")
    if accept_descriptors is None:
        accept_descriptors = registry.takes_descriptors
    where = None if address is None else parse_address(address)
    if sock is not None or isinstance(where, FdAddress | SystemdAddress):
        check_access_of_others("sock=" if where is None else str(where), mode, group)
    buffers.prepare()
    if predecessor is not None and where is not None:
        hub = Hub(registry, where, limits, interception)
        asked = {"accept_descriptors": accept_descriptors, "pass_credentials": pass_credentials}
        await _succeed(hub, predecessor, where, backlog, limits, mode=mode, group=group, **asked)
        return Server(hub)
    if sock is not None:
        sockets.check_socket(sock, "sock=")
    elif where is not None:
        sock = sockets.inherited_socket(where)
    is_pair = sock is not None and not sockets.is_listening(sock)
    hub = Hub(registry, where, limits, interception, is_shared=not is_pair)
    if sock is not None and is_pair:
        await _serve_pair(hub, sock, limits, pass_credentials=pass_credentials)
        return Server(hub)
    asked = {"accept_descriptors": accept_descriptors, "pass_credentials": pass_credentials}
    if sock is not None:
        listening = adopt_listening(sock, where, **asked)
    else:
        assert where is not None
        listening = claim(where, mode=mode, group=group, **asked)
    await _serve_many(hub, listening, backlog, limits)
    return Server(hub)


async def _serve_pair(hub: Hub, sock: socket.socket, limits: Limits, *, pass_credentials: bool) -> None:
    sockets.distrust_names(sock)
    if pass_credentials:
        PLATFORM.ask_for_senders(sock)
    try:
        await hub.lifespans.begin()
    except BaseException:
        sock.close()
        raise
    try:
        link = hub.new_link()
        link.run_outside(open_transport, sock, link, limits)
    except BaseException:
        await hub.lifespans.end()
        raise


async def _serve_many(hub: Hub, listening: ListeningSocket, backlog: int, limits: Limits) -> None:
    try:
        await hub.lifespans.begin()
        listening.listen(backlog)
    except BaseException:
        listening.close()
        await hub.lifespans.end()
        raise
    hub.listen_with(Listener(asyncio.get_running_loop(), listening, hub.new_link, limits))


async def _succeed(
    hub: Hub, predecessor: Predecessor, where: Address, backlog: int, limits: Limits, **asked: Any
) -> None:
    """Be ready to accept what the predecessor accepts, and leave it to that until :meth:`Predecessor.relieve`."""
    try:
        await hub.lifespans.begin()
        listening = await predecessor.ask(where, backlog, **asked)
    except BaseException:
        await hub.lifespans.end()
        raise
    hub.listen_with(Listener(asyncio.get_running_loop(), listening, hub.new_link, limits), accepts=False)


def serve_after(
    predecessor: Predecessor, services: Service | Iterable[Service], address: AddressLike | None, **options: Any
) -> Opening[Server]:
    """Serve in the place of a daemon that started this process to be its successor.

    Args:
        predecessor: which it is; it accepts connections until :meth:`~Predecessor.relieve` is called.
        services: as for :func:`serve`.
        address: likewise; where the predecessor listens.
        options: likewise, all of them.

    Raises:
        AddressError: the predecessor listens elsewhere, or in another way.
        Exception: as :func:`serve`.
    """
    check_limits(options["limits"])
    start = functools.partial(_start, services_of(services), address, predecessor=predecessor, **options)
    return Opening(start, "seqrpc.run")


def serve(
    services: Service | Iterable[Service],
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    allow: PolicyLike | None = None,
    mode: int | None = None,
    group: int | str | None = None,
    backlog: int = BACKLOG,
    accept_descriptors: bool | None = None,
    pass_credentials: bool = False,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Opening[Server]:
    """Serve in this program's own loop: ``async with seqrpc.serve(Calculator(), path) as server: ...``.

    Args:
        services: one or several service objects, told apart by their names.
        address: where to listen; beside a socket file ``x.sock`` there is a lock, ``x.sock.lock``, as
            long as it is served; a connected ``fd:N`` or ``systemd:name`` is one end of a socket pair, or a
            connection that a service manager accepted (``Accept=yes``): it is served alone, to its end.
        sock: instead of ``address``: a listening socket or an end of a pair; the server owns it.
        allow: who may call where neither class nor method says; by default the same user and root.
        mode: permission bits of the socket file, by default 0o600, whatever the umask, in place before it can be
            reached. Not for ``sock=``, ``fd:N`` and ``systemd:name``: whoever made the socket has set them.
        group: group of the socket file, by name or number; likewise. It takes a ``mode``, too: 0o660.
        backlog: how many connections may wait to be accepted.
        accept_descriptors: whether clients may send descriptors; by default whether any argument may take
            one, or be too large for a packet, for a large message travels as a descriptor, too. Where the
            kernel can it refuses them itself (``SO_PASSRIGHTS``, protocol 9.3).
        pass_credentials: True makes the caller of each call the process that sent it (``SO_PASSCRED``), and not
            the one that connected, which may have passed the socket on. Of such a caller the kernel tells neither
            supplementary groups nor a pidfd: ``groups`` and ``pidfd()`` are None, and policies by group see
            the primary group only. On a socket pair it is so in any case.
        interceptors: what surrounds each call, the first is outermost; see :class:`seqrpc.Interceptor`.
        limits: bounds of the server and its connections.

    Returns:
        To be awaited, or used in ``async with``: the :class:`Server`, accepting connections.

    Raises:
        AddressInUse: a live server has the address.
        ListenError: the system does not let this process listen there, as where there is no such directory.
        AddressError: the address cannot be listened on, or ``mode`` and ``group`` are given where others set them,
            or ``group`` with a mode that lets nobody but the owner connect.
        TypeError, ValueError: a service cannot be served; the message names the method. Or one is no interceptor.
        Exception: what the lifespan of a service raised; the others were left again, and nothing is served.

    Cancel: lifespans that were entered are left, nothing is served, and no file is left.
    """
    check_limits(limits)
    return Opening(
        functools.partial(
            _start,
            services_of(services),
            address,
            sock=sock,
            allow=allow,
            mode=mode,
            group=group,
            backlog=backlog,
            accept_descriptors=accept_descriptors,
            pass_credentials=pass_credentials,
            interceptors=interceptors,
            limits=limits,
        ),
        "seqrpc.serve",
    )
