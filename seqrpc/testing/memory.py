"""Servers without an address: over socket pairs, and called by whomever a test says."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.client import connect
from seqrpc.aio.connection import Connection
from seqrpc.aio.hub import Hub
from seqrpc.aio.interception import Interception
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.opening import Opening
from seqrpc.aio.places import check_loop
from seqrpc.aio.registry import Registry
from seqrpc.aio.server import Server, hub_of
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.interface.tallies import Tallies
from seqrpc.kernel import buffers
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits
from seqrpc.testing.pairs import FaultyPair, pair_of
from seqrpc.testing.pretending import open_as
from seqrpc.text import shown


class _InnerDoor:
    """In place of a listener: nobody comes in but by :meth:`MemoryServer.open_socket`."""

    sockets: tuple[socket.socket, ...] = ()
    is_unclosed = False
    is_anothers = False
    failures = 0

    def accept_connections(self) -> None:
        pass

    def pause_accepting(self) -> None:
        pass

    def accept_waiting(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class MemoryServer(Server):
    """Services that can be called over socket pairs of this process; made by :func:`memory_server`.

    It is a :class:`seqrpc.Server` in all else: it drains, closes, and knows its connections. It stays when one of them
    ends.
    """

    __slots__ = ("_interceptors", "_limits", "_loop", "_takes_descriptors")

    def __init__(
        self, hub: Hub, interceptors: tuple[Interceptor, ...], limits: Limits, *, takes_descriptors: bool
    ) -> None:
        """Wrap a hub."""
        super().__init__(hub)
        self._interceptors = interceptors
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._takes_descriptors = takes_descriptors

    def connect(
        self,
        *,
        caller: Credentials | None = None,
        pair: FaultyPair | None = None,
        services: Service | Iterable[Service] = (),
        allow: PolicyLike | None = None,
        interceptors: Iterable[Interceptor] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> Opening[Connection]:
        """Connect to it: ``async with server.connect(caller=caller(uid=1000)) as connection: ...``.

        Args:
            caller: who calls, as the server sees it; by default this process, by the kernel's word on each packet.
            pair: what is between, from :func:`~seqrpc.testing.faulty_pair`; by default nothing.
            services: what the server may call here, on this same connection, as for :func:`seqrpc.connect`.
            allow: who may call those, likewise.
            interceptors: what surrounds calls at this end, likewise.
            limits: bounds of this end, likewise.

        Returns:
            To be awaited, or used in ``async with``: the :class:`~seqrpc.Connection`.

        Raises:
            TypeError, ValueError: ``caller`` is none, a service cannot be served, or one is no interceptor.
            Exception: what the lifespan of a service raised at the start.
        """
        _check_caller(caller)
        options: dict[str, object] = {
            "services": services_of(services),
            "allow": allow,
            "interceptors": interceptors,
            "limits": limits,
        }
        return Opening(functools.partial(self._connect, caller, pair, options), "MemoryServer.connect")

    async def _connect(
        self, caller: Credentials | None, pair: FaultyPair | None, options: dict[str, object]
    ) -> Connection:
        sock = self.open_socket(caller=caller, pair=pair)
        try:
            return await connect(sock=sock, **options)  # type: ignore[arg-type] # as connect above took them
        except BaseException:
            sock.close()
            raise

    def open_socket(self, *, caller: Credentials | None = None, pair: FaultyPair | None = None) -> socket.socket:
        """Return the client's end of a new connection, owned by whoever called this.

        It is for other clients than :meth:`connect` makes: one without a loop, in a thread, or a test that knows the
        packets itself.

        Args:
            caller: as for :meth:`connect`.
            pair: likewise.

        Raises:
            TypeError: ``caller`` is none.
            WrongLoop: the server belongs to another event loop.
        """
        _check_caller(caller)
        check_loop("this server", self._loop)
        between = None if pair is None else pair_of(pair)
        ours, theirs = socket_pair() if between is None else between.take()
        try:
            if (
                not self._takes_descriptors
            ):  # whoever sends them is to be told, and with a pair that sends to its middle
                PLATFORM.refuse_descriptors(ours if between is None else between.facing_client)
            self._serve(ours, caller)
        except BaseException:
            theirs.close()
            raise
        return theirs

    def _serve(self, sock: socket.socket, caller: Credentials | None) -> None:
        if caller is None:
            calls = Interception(self._interceptors)
        else:
            calls = Interception(self._interceptors, functools.partial(open_as, caller))
        link = hub_of(self).new_link(calls)
        link.run_outside(calls.opens, sock, link, self._limits)


def _check_caller(caller: object) -> None:
    if caller is not None and not isinstance(caller, Credentials):
        raise TypeError(f"caller= takes what seqrpc.testing.caller(uid=...) returns, got {shown(repr(caller))}")


async def _start(
    services: tuple[Service, ...],
    *,
    allow: PolicyLike | None,
    accept_descriptors: bool | None,
    interceptors: Iterable[Interceptor],
    limits: Limits,
) -> MemoryServer:
    registry = Registry(services, allow, limits, Tallies())
    around = tuple(interceptors)
    hub = Hub(registry, None, limits, Interception(around))
    takes = registry.takes_descriptors if accept_descriptors is None else accept_descriptors
    buffers.prepare()
    await hub.lifespans.begin()
    hub.listen_with(_InnerDoor())
    return MemoryServer(hub, around, limits, takes_descriptors=takes)


def memory_server(
    services: Service | Iterable[Service],
    *,
    allow: PolicyLike | None = None,
    accept_descriptors: bool | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Opening[MemoryServer]:
    """Serve over socket pairs, without an address.

    ``async with memory_server(Calculator()) as server: ...``. The arguments mean what they do for :func:`seqrpc.serve`;
    those about addresses, sockets and their files have no place here.

    Returns:
        To be awaited, or used in ``async with``: the :class:`MemoryServer`, whose ``connect`` connects to it, as often
        as there are people in the test.

    Raises:
        TypeError, ValueError: a service cannot be served, or one is no interceptor.
        Exception: what the lifespan of a service raised; nothing is served.
    """
    options: dict[str, Any] = {"accept_descriptors": accept_descriptors, "interceptors": interceptors, "limits": limits}
    return _opening(services, "memory_server", allow=allow, **options)


def _opening(
    services: Service | Iterable[Service], name: str, *, limits: Limits, **options: Any
) -> Opening[MemoryServer]:
    check_limits(limits)
    start = functools.partial(_start, services_of(services), limits=limits, **options)
    return Opening(start, f"seqrpc.testing.{name}")


class _ServedInMemory(AsyncBlock):
    """A server and one connection to it, for the time of a block."""

    __slots__ = ("_connection", "_options", "_server", "_serving")

    def __init__(self, serving: Opening[MemoryServer], options: dict[str, object]) -> None:
        self._serving = serving
        self._options = options
        self._server: MemoryServer
        self._connection: Connection

    async def __aenter__(self) -> Connection:
        self._server = await self._serving
        try:
            self._connection = await self._server.connect(**self._options)  # type: ignore[arg-type] # as they came
        except BaseException:
            await self._server.close()
            raise
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self._connection.close()
        finally:
            await self._server.close()

    def __repr__(self) -> str:
        return "seqrpc.testing.serve_in_memory(...)"


def serve_in_memory(
    served: Service | Iterable[Service],
    *,
    caller: Credentials | None = None,
    pair: FaultyPair | None = None,
    allow: PolicyLike | None = None,
    accept_descriptors: bool | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
    services: Service | Iterable[Service] = (),
    services_allow: PolicyLike | None = None,
    client_interceptors: Iterable[Interceptor] = (),
    client_limits: Limits = DEFAULT_LIMITS,
) -> _ServedInMemory:
    """Serve over a socket pair, and connect to it.

    ``async with serve_in_memory(Calculator()) as connection: ...``. All is as in production, but for the address:
    packets, descriptors, policies, interceptors, limits and lifespans.

    Args:
        served: what is served, one or several.
        caller: who calls, as the server sees it, from :func:`~seqrpc.testing.caller`; by default this process, by the
            kernel's word on each packet, which tells no supplementary groups.
        pair: what is between, from :func:`~seqrpc.testing.faulty_pair`; by default nothing.
        allow: as for :func:`seqrpc.serve`, and so are the next three.
        accept_descriptors: whether the client may send descriptors.
        interceptors: what surrounds calls at the server.
        limits: bounds of the server.
        services: what the server may call at the client, as for :func:`seqrpc.connect`, and so are the others.
        services_allow: who may call those, ``allow`` of :func:`seqrpc.connect`.
        client_interceptors: what surrounds calls at the client.
        client_limits: bounds of the client.

    Returns:
        To be used in ``async with``, which gives the :class:`~seqrpc.Connection`; at its end connection and server are
        closed.

    Raises:
        TypeError, ValueError: a service cannot be served, one is no interceptor, or ``caller`` is none.
        Exception: in the block, what the lifespan of a service raised.
    """
    _check_caller(caller)
    check_limits(client_limits)
    options: dict[str, object] = {
        "caller": caller,
        "pair": pair,
        "services": services_of(services),
        "allow": services_allow,
        "interceptors": client_interceptors,
        "limits": client_limits,
    }
    at_server: dict[str, Any] = {
        "accept_descriptors": accept_descriptors,
        "interceptors": interceptors,
        "limits": limits,
    }
    return _ServedInMemory(_opening(served, "serve_in_memory", allow=allow, **at_server), options)
