"""A connection to a service."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from collections.abc import Iterable

from seqrpc.aio.connection import Connection
from seqrpc.aio.endpoints import open_transport, socket_for
from seqrpc.aio.held import HeldValues
from seqrpc.aio.interception import Interception
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.lifespans import Lifespans
from seqrpc.aio.link import Link
from seqrpc.aio.living import LivingValues
from seqrpc.aio.opening import Opening
from seqrpc.aio.registry import Registry
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import UntrustedServer
from seqrpc.interface.policy import PolicyLike, as_policy
from seqrpc.interface.scope import run_outside
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.kernel.addresses import AddressLike, parse_address
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import DEFAULT_LIMITS, Limits, check_limits
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.client")

_ENDED = "the connection of its service ended"


class _Client:
    """A connection, and what lives as long as it does: threads, and the lifespans of the services that it brings."""

    def __init__(self, registry: Registry, limits: Limits, interception: Interception) -> None:
        self._registry = registry
        self._limits = limits
        self._held = HeldValues()
        self._dispatcher = interception.new_dispatcher(registry)
        living = LivingValues(limits, self._held, interception=interception)
        self._link = Link(self._dispatcher, limits, living, self, interception.new_caller)
        self._lifespans = Lifespans(registry.services, limits, self._link.abandon)
        self._lives_ended: asyncio.Future[None] = self._link.loop.create_future()
        self._ending: asyncio.Task[None] | None = None

    async def begin(self, sock: socket.socket) -> Connection:
        """Enter the lifespans, and then talk over ``sock``, which the connection owns."""
        try:
            await self._lifespans.begin()
        except BaseException:
            sock.close()
            raise
        try:
            run_outside(open_transport, sock, self._link, self._limits)
        except BaseException:
            await self._lifespans.end()
            raise
        self._link.caller.guard = Guard(self._link)
        return self._dispatcher.give_away_connection()

    def connection_made(self, link: Link) -> None:
        pass

    def connection_lost(self, link: Link) -> None:  # noqa: ARG002 - there is but one
        self._registry.when_quiet(self._end)

    def _end(self) -> None:
        self._registry.close()
        if self._lifespans:
            self._ending = asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        """Leave the lifespans, once nothing of the services runs any more."""
        self._held.stop(_ENDED)
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                await self._dispatcher.running.wait_idle()
                await self._held.wait_stopped()
        except TimeoutError:
            _log.warning("= handlers are still running that were cancelled with their connection; %s", self._link)
        await self._lifespans.end()
        self._lives_ended.set_result(None)

    async def wait_left(self) -> None:
        if self._lifespans and not self._link.loop.is_closed():
            await self._lifespans.wait(self._lives_ended)


async def _connect(
    address: AddressLike | None,
    *,
    sock: socket.socket | None,
    server: PolicyLike | None,
    services: Iterable[Service],
    allow: PolicyLike | None,
    interceptors: Iterable[Interceptor],
    limits: Limits,
) -> Connection:
    registry = Registry(services, allow, limits)
    interception = Interception(interceptors)
    policy = None if server is None else as_policy(server)
    sock = await socket_for(address, sock, limits)
    if policy is not None:
        try:
            who = PLATFORM.peer_credentials(sock)
            is_admitted = policy.admits(who)
        except BaseException:
            sock.close()
            raise
        if not is_admitted:
            sock.close()
            where = "sock=" if address is None else str(parse_address(address))
            raise UntrustedServer(errno.EACCES, f"{where}: server={policy!r} does not admit who listens there: {who!r}")
    return await _Client(registry, limits, interception).begin(sock)


def connect(
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    server: PolicyLike | None = None,
    services: Service | Iterable[Service] = (),
    allow: PolicyLike | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
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
        limits: bounds of the connection; ``connect_timeout`` covers a full backlog.

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
        ),
        "seqrpc.connect",
    )
