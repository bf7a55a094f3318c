"""A connection that is made anew whenever it ends: which one is the present one, and who waits for the next."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from seqrpc.aio.brought import Brought, dispatcher_of
from seqrpc.aio.caller import Caller
from seqrpc.aio.endpoints import check_server, open_transport
from seqrpc.aio.interception import Interception
from seqrpc.aio.link import Link
from seqrpc.aio.lobby import Lobby
from seqrpc.aio.places import check_loop, runs_here, wrong_loop
from seqrpc.aio.registry import Registry
from seqrpc.calls.outcomes import closed_here, server_busy, unavailable
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import (
    ConnectError,
    ConnectionLost,
    SeqrpcError,
    WrongLoop,
    WrongProcess,
    not_run,
)
from seqrpc.interface.policy import Policy
from seqrpc.interface.reconnecting import Reconnect, may_pass, may_send_again, told_anew
from seqrpc.interface.scope import run_outside
from seqrpc.kernel import forks, sockets
from seqrpc.kernel.addresses import Address
from seqrpc.limits import Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.messages import Params
from seqrpc.text import shown

_log = get_logger("seqrpc.client")

_MOST_OLD: Final = 8
"""Connections that are kept beside the present one, for the calls under way on them, after their other sides said that
they take no new ones. A server that says so again and again gets no further descriptors of this process."""


class Renewal:
    """Makes the connection, and makes it anew. Its users hold it through what calls; nothing of it holds them.

    It has no task: attempts are made by a timer, and connecting to a local socket never waits.

    Args:
        address: where to connect.
        policy: how often and how long.
        server: who must listen there, looked at each time before a byte is sent; None if anybody may.
        registry: what the other side may call here.
        interception: what surrounds the calls of the other side.
        limits: bounds of each connection.
    """

    def __init__(
        self,
        address: Address,
        policy: Reconnect,
        *,
        server: Policy | None,
        registry: Registry,
        interception: Interception,
        limits: Limits,
    ) -> None:
        """Connect to nobody yet."""
        self.loop = asyncio.get_running_loop()
        """The event loop that the connection belongs to."""
        self.home: asyncio.AbstractEventLoop | None = self.loop
        """Where it can be used; nowhere in a forked child."""
        self.caller: Caller | None = None
        """Makes the calls of the present connection; None while there is none that takes them."""
        self.policy = policy
        self.lobby = Lobby(self, policy, limits)
        """Where calls wait for a connection."""
        self.guard: Callable[[], Guard | None] = lambda: None
        """Returns what is to be held by those who may call; dropping it closes the connection."""
        self.made_anew: Callable[[], object] = lambda: None
        """Called each time that the connection was made anew."""
        self._address = address
        self._server = server
        self._limits = limits
        self._brought = Brought(registry, limits, interception, self)
        self._link: Link | None = None
        self._links: dict[Link, None] = {}  # all that have not ended, the oldest first
        self.trouble: SeqrpcError = ConnectionLost("the connection was not made yet")
        """Why there is none."""
        self._said: str | None = None  # why the last other side took no new calls
        self._delays = policy.delays()
        self.was_answered = False
        """Whether the present connection, or the last if there is none, is known to be good for something."""
        self._made_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.is_over = False
        """Whether it was closed on this side, or is being closed."""
        self._ended: asyncio.Future[None] = self.loop.create_future()
        forks.register(self, Renewal._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Connect to nobody: this is a copy in a forked child. The present connection hears of it by itself."""
        self.home = self.caller = self._link = None
        self._links.clear()

    # Connecting

    async def begin(self) -> None:
        """Make the first connection, enter the lifespans of what was brought, and then talk over it.

        Raises:
            ConnectError: there is nobody, and it is no use to wait, or ``ready_timeout`` has passed.
            Exception: what a lifespan raised at the start.
        """
        sock = await self._first_socket()
        try:
            await self._brought.lifespans.begin()
        except BaseException:
            sock.close()
            raise
        try:
            link = self._open(sock)
        except BaseException:
            await self._brought.lifespans.end()
            raise
        self._made(link)

    async def _first_socket(self) -> socket.socket:
        patience = self.policy.patience
        deadline = self.loop.time() + patience
        while True:
            try:
                return self._connected_socket()
            except ConnectError as exc:
                if not patience or not may_pass(exc):
                    raise
                left = deadline - self.loop.time()
                if left <= 0:
                    raise told_anew(exc, patience) from None
            await asyncio.sleep(min(next(self._delays), left))

    def _connected_socket(self) -> socket.socket:
        """Return a socket that is connected to whom ``server=`` admits."""
        try:
            sock = sockets.connect(self._address)
        except BlockingIOError:
            raise server_busy(str(self._address), 0) from None
        check_server(sock, self._server, self._address)
        return sock

    def _open(self, sock: socket.socket) -> Link:
        """Talk over a socket, which the connection owns."""
        link = self._brought.new_link(self._present_guard)
        link.run_outside(open_transport, sock, link, self._limits)
        dispatcher_of(link).give_away_connection()  # it would hold who calls, for good
        return link

    def _present_guard(self) -> Guard | None:
        return self.guard()

    def _attempt(self) -> None:
        self._timer = None
        if self.is_over or self.home is None:
            return
        try:
            link = self._open(self._connected_socket())
        except Exception as exc:  # a policy is the application's own, and the kernel may refuse anything
            self._failed(exc)
            return
        _log.debug("= %r was made anew", link)
        self._made(link)
        try:
            self.made_anew()
        except Exception:
            _log.exception("! on_reconnect failed of the connection to %s", shown(self._address))

    def _made(self, link: Link) -> None:
        """Use a connection from now on."""
        self._links[link] = None
        if self.is_over:  # a lifespan ended meanwhile
            link.abandon()
            return
        self._link = link
        self.was_answered = False
        self._made_at = self.loop.time()
        self.caller = Caller(link, self._limits)
        self.lobby.turns.next()

    def _failed(self, exc: Exception) -> None:
        """Try again later. Those who wait are told now if it is no use to wait."""
        if not isinstance(exc, SeqrpcError):
            number = exc.errno if isinstance(exc, OSError) and exc.errno else errno.EIO
            exc = ConnectError(number, f"cannot connect to {shown(self._address)}: {exc}")
        self.trouble = exc.with_traceback(None)
        if not may_pass(exc):
            _log.debug("! %s", exc)
            self.lobby.turns.fail(exc)
        self._try_later()

    def _try_later(self) -> None:
        if self._timer is None and not self.is_over:
            self._timer = run_outside(self.loop.call_later, next(self._delays), self._attempt)

    # What the connections tell

    def connection_made(self, link: Link) -> None:
        """Do nothing: it was made here."""

    def closing_received(self, link: Link) -> None:
        """Send no new calls over a connection; those under way finish on it."""
        self._retire(link, unavailable(link.session.closing_received))
        self._end_if_idle(link)
        old = [each for each in self._links if each is not self._link]
        for each in old[:-_MOST_OLD]:
            each.abandon()

    def connection_lost(self, link: Link) -> None:
        """Forget a connection."""
        self._links.pop(link, None)
        self._retire(link, link.lost_error())
        if self.is_over and not self._links:
            self._end()

    async def wait_left(self) -> None:
        """Wait for nothing: what was brought outlives its connections."""

    def _retire(self, link: Link, why: SeqrpcError) -> None:
        """Make another connection in place of this one, if it is the present one."""
        if link is not self._link:
            return
        self._link = self.caller = None
        self.trouble = why
        self._said = link.session.closing_received
        # A server that takes connections and is good for nothing is not asked any more often than nobody is.
        if self.was_answered or self.loop.time() - self._made_at > 2 * self.policy.longest_delay:
            self._delays = self.policy.delays()
        self._try_later()

    def _end_if_idle(self, link: Link) -> None:
        session = link.session
        if link is not self._link and not session.calls and not session.given_up and not session.requests:
            link.abandon()

    # Calls

    def may_send_again(self, caller: Caller, exc: BaseException, params: Params, *, idempotent: bool) -> bool:
        """Return whether a call that failed is to be made again over another connection than the one it was made on."""
        link = caller.line
        assert isinstance(link, Link)
        drains = link.session.closing_received is not None
        is_over = link.closed or link.transport.is_closing() or drains
        again = may_send_again(
            exc,
            idempotent=idempotent,
            is_over=is_over,
            drains=drains,
            params=params,
            travels=self._brought.living.travels,
        )
        if again:
            self._retire(link, link.lost_error())  # one that is closing has not ended yet
        return again and not self.is_over

    def call_ended(self, caller: Caller, *, answered: bool) -> None:
        """Hear that a call has ended, and whether it was answered by what runs at the other side."""
        if caller is self.caller:
            self.was_answered = self.was_answered or answered
        elif self.home is not None:
            link = caller.line
            assert isinstance(link, Link)
            self._end_if_idle(link)

    # Using it elsewhere

    def misuse(self) -> WrongProcess | WrongLoop:
        """Return what to raise where the connection is used from elsewhere."""
        if self.home is None:
            return forks.wrong_process("this connection")
        return wrong_loop("this connection", self.loop)

    def check_place(self) -> None:
        """Check that the connection can be used here.

        Raises:
            WrongProcess, WrongLoop: it belongs to another process, or to another event loop.
        """
        if self.home is None or not runs_here(self.home):
            raise self.misuse()

    @property
    def link(self) -> Link | None:
        """The present connection, if there is one."""
        return self._link

    @property
    def closing_reason(self) -> str | None:
        """Why the last connection took no new calls, as long as there is no other; None if it did not say."""
        return self._said if self._link is None else None

    # Ending

    @property
    def closed(self) -> bool:
        """True once it was closed on this side; a copy in a forked child never was open."""
        return self.home is None or self._ended.done()

    @property
    def is_unclosed(self) -> bool:
        """Whether it is open, or being made anew, in this process."""
        return self.home is not None and not self.is_over

    async def close(self) -> None:
        """End it for good; see :meth:`seqrpc.Connection.close`."""
        if self.home is None:
            return
        if self.loop.is_closed():
            self.abandon()
            return
        if not (self.closed and not runs_here(self.loop)):
            check_loop("this connection", self.loop)
            self._begin_close()
            await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until it was closed on this side, and what was brought has ended.

        Raises:
            WrongProcess, WrongLoop: it belongs to another process, or to another event loop.
            Exception: the lifespan of a service that was brought failed.
        """
        self.check_place()
        await asyncio.shield(self._ended)
        await self._brought.wait_left()

    def abandon(self) -> None:
        """End it without waiting; from any thread, and also when the loop runs no more."""
        loop = self.loop
        if self.home is None:
            return
        if loop.is_running() and not runs_here(loop):
            loop.call_soon_threadsafe(self._begin_close)
            return
        if loop.is_running():
            self._begin_close()
            return
        for link in list(self._links):
            link.abandon()
        if loop.is_closed():
            self.is_over = True
        else:  # it may run again, and then leave the lifespans
            loop.call_soon(self._begin_close)

    def _begin_close(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.caller = self._link = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.lobby.turns.fail(not_run(closed_here("async with")))
        for link in list(self._links):
            link.abandon()
        if not self._links:
            self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._brought.end_when_quiet()
            self._ended.set_result(None)

    def __repr__(self) -> str:
        """Return the state, and who is at the other end."""
        if self._link is not None:
            return repr(self._link)
        if self.closed or self.is_over:
            return "<Connection closed>"
        return f"<Connection reconnecting to {shown(self._address)}>"
