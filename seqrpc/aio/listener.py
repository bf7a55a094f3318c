"""Accepting connections on an event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable

from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.places import runs_here
from seqrpc.aio.shares import TURN_SECONDS, Share, several_users, share_of_newcomers
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.calls.unclosed import Guard
from seqrpc.interface.scope import outside, run_in
from seqrpc.kernel import forks
from seqrpc.kernel.addresses import AbstractAddress, PathAddress
from seqrpc.kernel.forks import wrong_process
from seqrpc.kernel.listening import BACKLOG, ListeningSocket
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.sockets import somebody_waits
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.logs import Shortage, get_logger, tell_loop

_log = get_logger("seqrpc.listener")

_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPTED_PER_WAKEUP = 64
_ALONE_SECONDS = 6 * TURN_SECONDS
"""Seconds for which newcomers are accepted in a turn of the loop, as long as it serves one user at most. To read that
user, and its handlers, take a third of that: who waits in the backlog, perhaps behind hundreds of the same user, waits
little longer than if nothing else were done. Where others are there, accepting takes no more of a turn than reading one
does."""

_FIRST_DELAY = 0.01
_LAST_DELAY = 0.5


class Listener:
    """Accepts connections, and gives each a transport and a protocol of its own. Its end ends the accepting only.

    Args:
        loop: the running loop.
        listening: what to accept from; the listener owns it.
        protocol_factory: called without arguments for each connection.
        limits: passed to the transports.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: ListeningSocket,
        protocol_factory: Callable[[], SeqpacketProtocol],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Own the socket; nothing is accepted before :meth:`accept_connections`."""
        self.loop = loop
        self._listening = listening
        self._factory = protocol_factory
        self._limits = limits
        self._fd = listening.sock.fileno()
        self._surroundings = outside()  # in which it accepts, whoever is called as it begins to
        self._by_packet = PLATFORM.asks_for_senders(listening.sock)
        self.is_accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._delay = 0.0
        self._waiting: Share | None = None  # while some wait whom this turn had no time for
        self._shortage = Shortage(_log)
        self.failures = 0
        """How often the system did not give a connection that waits."""
        self.closed: asyncio.Future[None] = loop.create_future()
        """Done once it is closed."""
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, Listener._let_go_in_child)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, lent, in a tuple; empty once closed."""
        return () if self._forked or self.closed.done() else (self._listening.sock,)

    def check_process(self) -> None:
        """Raise WrongProcess in a fork of the process that it belongs to."""
        if self._forked:
            raise wrong_process("this server")

    def _let_go_in_child(self) -> None:
        """Close without telling anybody: this is a copy in a forked child."""
        self._forked = True
        self._waiting = None
        self.is_accepting = False
        self._listening.forked()

    def accept_connections(self) -> None:
        """Begin to accept, now."""
        if not self.is_accepting and not self._forked and not self.closed.done():
            self.is_accepting = True
            run_in(self._surroundings, self.loop.add_reader, self._fd, self._accept_ready)

    def pause_accepting(self) -> None:
        """Accept nobody until :meth:`accept_connections`: who comes waits in the backlog, or to get into it."""
        if self._forked or self.closed.done():
            return
        if self._retry is not None:
            self._retry.cancel()
        self._waiting = None
        self.is_accepting = False
        self.loop.remove_reader(self._fd)

    def accept_waiting(self) -> None:
        """Accept what waits in the backlog, for ``close_timeout`` at most: ``close`` resets the rest.

        It accepts no more than fit there by default: as many again may come meanwhile.

        The backlog of an inherited socket is left alone: it outlives ``close``, and whoever shares the
        socket, as a service manager does with the daemon's next run, serves it. So is that of one that is another's.
        """
        listening = self._listening
        if self._forked or listening.is_anothers or not isinstance(listening.address, PathAddress | AbstractAddress):
            return
        ends = time.monotonic() + self._limits.close_timeout
        for _ in range(BACKLOG):
            if self.closed.done() or time.monotonic() >= ends:
                return
            try:
                sock, _address = listening.sock.accept()
            except OSError:  # nothing waits any more, or there is no descriptor for it
                return
            self._adopt(sock)

    @property
    def listening(self) -> ListeningSocket:
        """What is accepted from, lent."""
        return self._listening

    def close(self) -> None:
        """Stop accepting and let the address go; connections live on, those not yet accepted are refused."""
        if self._forked or self.closed.done():
            return
        self.pause_accepting()
        self.closed.set_result(None)
        self._listening.close()

    @property
    def is_anothers(self) -> bool:
        """Whether the address is another process's now, which shares the socket."""
        return self._listening.is_anothers

    @property
    def is_unclosed(self) -> bool:
        """Whether the address is still taken, by this process."""
        return not self._forked and not self.closed.done()

    def abandon(self) -> None:
        """Close without waiting; from any thread, and also when the loop runs no more."""
        if self.loop.is_running() and not runs_here(self.loop):
            self.loop.call_soon_threadsafe(self.close)
        elif not self.loop.is_closed():
            self.close()
        elif not self._forked:
            self._listening.close()

    def __repr__(self) -> str:
        """Return where it listens, for people."""
        return f"<SeqpacketServer at {self._listening.address}>"

    async def wait_closed(self) -> None:
        """Wait until ``close`` was called; a copy in a forked child is closed from its beginning."""
        if not self._forked:
            await asyncio.shield(self.closed)

    def _accept_ready(self) -> None:
        if not self.is_accepting:  # a forked child runs the loop that it inherited
            return
        self._waiting = None
        ends = time.monotonic() + (TURN_SECONDS if several_users(self.loop) else _ALONE_SECONDS)
        for _ in range(_ACCEPTED_PER_WAKEUP):
            try:
                sock, _address = self._listening.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._back_off(exc)
                return
            self._delay = 0.0
            self._adopt(sock)
            if not self.is_accepting:  # the protocol closed the server, or lets those who come wait
                return
            if time.monotonic() >= ends:
                break
        if somebody_waits(self._listening.sock):  # and may be another user than those who are heard at length, alone
            self._waiting = share_of_newcomers(self.loop)

    def _adopt(self, sock: socket.socket) -> None:
        """Give a connection its transport; what goes wrong costs this connection only."""
        try:
            # It was accepted, so its maker is known; a listener may want more. What it accepts inherits that, but not,
            # on newer kernels, if it connected before the listener wanted it.
            by_packet = self._by_packet or PLATFORM.asks_for_senders(sock)
            SeqpacketTransport(self.loop, sock, self._factory(), self._limits, names_senders=by_packet)
        except Exception as exc:
            close_unread(sock, None, discard=False)
            if not isinstance(exc, OSError):  # a peer that is gone already is no error
                tell_loop(self.loop, _log, {"message": "a connection could not be taken", "exception": exc})

    def _back_off(self, exc: OSError) -> None:
        """Look away for a while: a listener that cannot accept stays readable and would spin."""
        self.failures += 1
        what = "out of descriptors" if exc.errno in _FULL else "cannot accept"
        self._shortage.say("! %s: %s; trying again until it works", what, exc)
        self._delay = min(max(_FIRST_DELAY, 2 * self._delay), _LAST_DELAY)
        self.loop.remove_reader(self._fd)
        self.is_accepting = False
        self._retry = run_in(self._surroundings, self.loop.call_later, self._delay, self.accept_connections)


class SeqpacketServer(asyncio.AbstractServer):
    """Accepts connections and gives each a transport and a protocol of its own, as :class:`asyncio.Server` does.

    Made by :func:`seqrpc.create_server`. Closing it ends the accepting, not the connections. If it is dropped unclosed,
    it is closed with a ResourceWarning.
    """

    def __init__(self, listener: Listener) -> None:
        """Wrap a listener."""
        self._listener = listener
        self._guard = Guard(listener)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, lent, in a tuple; empty once closed."""
        return self._listener.sockets

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._listener.loop

    def is_serving(self) -> bool:
        """Return whether connections are being accepted."""
        return self._listener.is_accepting

    async def start_serving(self) -> None:
        """Begin to accept; does nothing if it does already or is closed.

        Raises:
            WrongProcess: this is a fork of the process that it belongs to.
        """
        self._listener.check_process()
        self._listener.accept_connections()

    async def serve_forever(self) -> None:
        """Accept until closed; if this is cancelled, the server is closed.

        Raises:
            WrongProcess: this is a fork of the process that it belongs to.
        """
        await self.start_serving()
        try:
            await self._listener.wait_closed()
        finally:
            self.close()

    def close(self) -> None:
        """Stop accepting and let the address go; connections live on, those not yet accepted are refused."""
        self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until ``close`` was called; a copy in a forked child is closed from its beginning."""
        await self._listener.wait_closed()
