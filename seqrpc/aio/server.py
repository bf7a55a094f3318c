"""A daemon: services behind an address."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from seqrpc.aio.connection import Connection, uid_of
from seqrpc.aio.current import current_call
from seqrpc.aio.dispatch import Calls, Registry
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.exports import Exports
from seqrpc.aio.lastreads import HeldConnection, LastReads
from seqrpc.aio.lifespans import Lifespans
from seqrpc.aio.listener import SeqpacketServer
from seqrpc.aio.living import LivingValues
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.places import check_loop, wrong_process
from seqrpc.aio.producers import producing
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.kernel import buffers, forks, sockets
from seqrpc.kernel.addresses import Address, AddressLike, parse_address
from seqrpc.kernel.listening import BACKLOG, ListeningSocket, adopt_listening, claim
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import DEFAULT_LIMITS, RESERVED_DESCRIPTORS, Limits
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.server")

_STOPPING = "the server is stopping"

_FOR_OTHERS = 64
"""One of so many connections is kept for others than the user who has most."""


class _ServerConnection(HeldConnection):
    """A connection that its server knows of."""

    def __init__(self, server: Server, calls: Calls, limits: Limits) -> None:
        super().__init__(calls, limits, LivingValues(limits, server.exports))
        self.calls = calls
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.connection_lost(self)

    def refuse(self, reason: str) -> None:
        """End a connection that is not wanted, with the reason."""
        self.send_closing(reason)
        self._close_transport()


class Server:
    """Services that are being served; made by :func:`serve`.

    Args:
        registry: the services.
        address: where, for people.
        limits: ``max_connections``, ``drain_timeout`` and ``close_timeout`` are used, and the rest passed on.
    """

    def __init__(self, registry: Registry, address: Address | None, limits: Limits) -> None:
        """Prepare; :func:`serve` starts it."""
        self.address = address
        self._registry = registry
        self._limits = limits
        self._listener: SeqpacketServer | None = None
        self._connections: set[_ServerConnection] = set()
        self._connections_of: Counter[int | None] = Counter()  # by uid
        self._draining = False
        self._spared: set[object] = set()  # the calls, and streams, that wait for a drain
        self._last_reads = LastReads(limits.close_timeout)
        self.lifespans = Lifespans(registry.services, limits, self._begin_closing)
        """What surrounds the lives of the services."""
        self.exports = Exports()
        """The streams and objects that clients hold; they outlive their connections, and end with the server."""
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, Server._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Serve nobody: this is a copy in a forked child. What it is made of hears of it by itself."""
        self._forked = True
        self._connections.clear()

    def _check_place(self) -> None:
        if self._forked:
            raise wrong_process("this server")
        check_loop("this server", self._loop)

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections that are open now."""
        return frozenset(self._connections)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, lent, in a tuple; empty once closed, and on a socket pair."""
        return () if self._listener is None else self._listener.sockets

    def new_connection(self) -> SeqpacketProtocol:
        """Return the protocol for one more connection."""
        return _ServerConnection(self, Calls(self._registry), self._limits)

    def connection_made(self, connection: _ServerConnection) -> None:
        """Take a connection in, or refuse it."""
        self._connections.add(connection)
        uid = uid_of(connection)
        self._connections_of[uid] += 1
        bound = _max_connections(self._limits)
        if self._draining:
            connection.refuse(_STOPPING)
        elif len(self._connections) > bound:
            _log.warning("! a connection is refused: there are %d already", bound)
            connection.refuse(f"the server has {bound} connections already")
        elif uid is not None and self._connections_of[uid] > (most := bound - bound // _FOR_OTHERS):
            _log.warning("! a connection is refused: there are %d of user %d already", most, uid)
            connection.refuse(f"the server has {most} connections of this user already")

    def connection_lost(self, connection: _ServerConnection) -> None:
        """Let a connection go; a server on a socket pair is done with its only one."""
        if connection in self._connections:
            self._connections.remove(connection)
            uid = uid_of(connection)
            self._connections_of[uid] -= 1
            if not self._connections_of[uid]:
                del self._connections_of[uid]
        self._last_reads.forget(connection)
        if self._listener is None and not self._connections:
            self._registry.when_quiet(self._begin_closing if self.lifespans else self._finish)

    def _finish(self) -> None:
        self._registry.close()
        if not self._finished.done():
            self._finished.set_result(None)

    def listen_with(self, listener: SeqpacketServer) -> None:
        """Accept connections from ``listener``, which this server owns from now on."""
        self._listener = listener
        listener.accept_connections()

    def refuse_new(self) -> None:
        """Stop listening, and refuse what comes on the connections that there are; the first step of :meth:`drain`.

        Who waits to be accepted is told why. What runs goes on. From when it is being closed it does nothing.
        """
        if self._closing is not None:
            return
        self._stop_listening()
        for connection in self._connections:
            connection.send_closing(_STOPPING)
        self.exports.refuse(_STOPPING)
        self._last_reads.hold(self._connections)

    async def drain(self, drain_timeout: float | None = None) -> bool:
        """Stop: refuse what comes, let what runs finish, answer what was sent before that was known, then close.

        It takes ``drain_timeout`` and a few times ``close_timeout`` at most. What is sent meanwhile is refused;
        who sends on and on is not read for ever.

        Streams run on as long as they have something to send: one that has been quiet for ``close_timeout`` is ended.

        A handler may drain its own server, also in a task or a thread that it started. Neither it nor any other that
        drains the same server is waited for: once the rest has finished they are cancelled, as by :meth:`close`.

        Args:
            drain_timeout: seconds to wait for what runs; by default ``drain_timeout`` of the limits.

        Returns:
            Whether everything finished in time.

        Raises:
            WrongProcess, WrongLoop: the server belongs to another process, or to another event loop.
            Exception: as :meth:`close`.

        Cancel: what runs is waited for no longer; the server is closed, as by :meth:`close`, before this ends.
        """
        self._check_place()
        self.refuse_new()
        self._spare_current()
        try:
            async with asyncio.timeout(self._limits.drain_timeout if drain_timeout is None else drain_timeout):
                for connection in list(self._connections):
                    await connection.calls.wait_idle(self._spared)
                await self._registry.wait_quiet(self._spared)
                await self.exports.wait_idle(self._limits.close_timeout, self._spared)
        except TimeoutError:
            _log.warning("= %s: handlers were still running after the drain timeout; they are cancelled", self.address)
            return False
        else:
            await self._last_reads.finish()
            return True
        finally:
            await self.close()

    def _spare_current(self) -> None:
        """Leave the call, or the stream, that drains out of what a drain waits for: it waits for the drain."""
        self._spared.add(producing.get())
        with suppress(LookupError):
            call = current_call()
            self._spared.add(call)
            calls = call.connection.handler
            if isinstance(calls, Calls):
                calls.look_again()  # another drain may be waiting for this one

    async def close(self) -> None:
        """Stop now: handlers are cancelled, connections closed, the socket file removed.

        Handlers that go on although they were cancelled are waited for ``close_timeout`` seconds, and then
        left running, with a warning in the log. In a forked child this does nothing: the server is the parent's.

        After that the lifespans of the services are left, within ``lifespan_timeout``.

        Raises:
            WrongLoop: the server belongs to another event loop.
            Exception: the lifespan of a service failed; everything is closed.

        Cancel: the closing goes on.
        """
        if self._forked:
            return
        self._check_place()
        self._begin_closing()
        assert self._closing is not None
        await self.lifespans.wait(self._closing)  # a handler that closes its own server is cancelled by it

    def _begin_closing(self) -> None:
        self._stop_listening()
        if self._closing is None:
            self._last_reads.close()
            connections = list(self._connections)
            for connection in connections:  # at once, for they are not read any more then
                connection.abandon()
            self._closing = asyncio.ensure_future(self._close_connections(connections))

    def _stop_listening(self) -> None:
        """Refuse what comes; who waits to be accepted is told why."""
        self._draining = True
        if self._listener is not None:
            self._listener.accept_waiting()
            self._listener.close()

    async def _close_connections(self, connections: list[_ServerConnection]) -> None:
        await asyncio.gather(*(connection.close() for connection in connections))
        self._registry.stop_lingering()
        self.exports.stop(_STOPPING)
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                for connection in connections:
                    await connection.calls.wait_idle()
                await self._registry.wait_quiet()
                await self.exports.wait_stopped()
        except TimeoutError:
            _log.warning(
                "= %s: handlers are still running %g s after they were cancelled; they are not waited for",
                self.address,
                self._limits.close_timeout,
            )
        await self.lifespans.end()
        self._finish()

    async def wait_closed(self) -> None:
        """Wait until the server has stopped, or on a socket pair, the other side has gone.

        Raises:
            WrongProcess, WrongLoop: the server belongs to another process, or to another event loop.
            Exception: the lifespan of a service failed; everything is closed.
        """
        self._check_place()
        await self.lifespans.wait(self._finished)

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


def _max_connections(limits: Limits) -> int:
    """Return how many connections a server takes: beyond the process's descriptors it could refuse none politely."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.max_connections
    return min(limits.max_connections, max(1, soft - RESERVED_DESCRIPTORS))


class _Serving:
    """What :func:`serve` returns: await it, or use it in ``async with``."""

    def __init__(self, services: Service | Iterable[Service], address: AddressLike | None, **options: Any) -> None:
        self._services = services
        self._address = address
        self._options = options
        self._server: Server | None = None

    def __await__(self) -> Generator[Any, Any, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._start()
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.close()

    async def _start(self) -> Server:
        return await _start(self._services, self._address, **self._options)


async def _start(
    services: Service | Iterable[Service],
    address: AddressLike | None,
    *,
    sock: socket.socket | None,
    allow: PolicyLike | None,
    mode: int,
    group: int | str | None,
    backlog: int,
    accept_descriptors: bool | None,
    pass_credentials: bool,
    limits: Limits,
) -> Server:
    registry = Registry([services] if isinstance(services, Service) else services, allow, limits)
    if (address is None) == (sock is None):
        raise ValueError("pass an address, or sock=, and not both")
    if accept_descriptors is None:
        accept_descriptors = registry.takes_descriptors
    where = None if address is None else parse_address(address)
    buffers.prepare()
    if sock is not None:
        sockets.check_socket(sock, "sock=")
    elif where is not None:
        sock = sockets.inherited_socket(where)
    server = Server(registry, where, limits)
    if sock is not None and not sockets.is_listening(sock):
        await _serve_pair(server, sock, limits, pass_credentials=pass_credentials)
        return server
    asked = {"accept_descriptors": accept_descriptors, "pass_credentials": pass_credentials}
    if sock is not None:
        listening = adopt_listening(sock, where, **asked)
    else:
        assert where is not None
        listening = claim(where, mode=mode, group=group, **asked)
    await _serve_many(server, listening, backlog, limits)
    return server


async def _serve_pair(server: Server, sock: socket.socket, limits: Limits, *, pass_credentials: bool) -> None:
    sockets.distrust_names(sock)
    if pass_credentials:
        PLATFORM.ask_for_senders(sock)
    try:
        await server.lifespans.begin()
    except BaseException:
        sock.close()
        raise
    open_transport(sock, server.new_connection(), limits)


async def _serve_many(server: Server, listening: ListeningSocket, backlog: int, limits: Limits) -> None:
    try:
        await server.lifespans.begin()
        listening.listen(backlog)
    except BaseException:
        listening.close()
        await server.lifespans.end()
        raise
    server.listen_with(SeqpacketServer(asyncio.get_running_loop(), listening, server.new_connection, limits))


def serve(
    services: Service | Iterable[Service],
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    allow: PolicyLike | None = None,
    mode: int = 0o600,
    group: int | str | None = None,
    backlog: int = BACKLOG,
    accept_descriptors: bool | None = None,
    pass_credentials: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> _Serving:
    """Serve in this program's own loop: ``async with seqrpc.serve(Calculator(), path) as server: ...``.

    Args:
        services: one or several service objects, told apart by their names.
        address: where to listen; beside a socket file ``x.sock`` there is a lock, ``x.sock.lock``, as
            long as it is served; a connected ``fd:N`` is one end of a socket pair, served alone.
        sock: instead of ``address``: a listening socket or an end of a pair; the server owns it.
        allow: who may call where neither class nor method says; by default the same user and root.
        mode: permission bits of the socket file, whatever the umask, in place before it can be reached.
        group: group of the socket file, by name or number.
        backlog: connections that may wait to be accepted.
        accept_descriptors: whether clients may send descriptors; by default whether any argument may take
            one, or be too large for a packet, for a large message travels as a descriptor, too. Where the
            kernel can it refuses them itself (``SO_PASSRIGHTS``, protocol 9.3).
        pass_credentials: True makes the caller of each call the process that sent it (``SO_PASSCRED``), and not
            the one that connected, which may have passed the socket on. Of such a caller the kernel tells neither
            supplementary groups nor a pidfd: ``groups`` and ``pidfd()`` are None, and policies by group see
            the primary group only. On a socket pair it is so in any case.
        limits: bounds of the server and its connections.

    Returns:
        To be awaited, or used in ``async with``: the :class:`Server`, accepting connections.

    Raises:
        AddressInUse: a live server has the address.
        AddressError: the address cannot be listened on.
        TypeError, ValueError: a service cannot be served; the message names the method.
        Exception: what the lifespan of a service raised; the others were left again, and nothing is served.

    Cancel: lifespans that were entered are left, nothing is served, and no file is left.
    """
    return _Serving(
        services,
        address,
        sock=sock,
        allow=allow,
        mode=mode,
        group=group,
        backlog=backlog,
        accept_descriptors=accept_descriptors,
        pass_credentials=pass_credentials,
        limits=limits,
    )
