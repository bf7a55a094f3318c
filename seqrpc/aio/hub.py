"""The machinery of a server: its connections, what runs on them, and how it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Protocol

from seqrpc.aio.accounts import CONNECTIONS, LIVING, Ledger, table_size
from seqrpc.aio.connection import Connection
from seqrpc.aio.current import handled_call
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.held import HeldValues
from seqrpc.aio.interception import Interception
from seqrpc.aio.lastreads import LastReads
from seqrpc.aio.lifespans import Lifespans
from seqrpc.aio.link import Link
from seqrpc.aio.living import LivingValues
from seqrpc.aio.objects import ObjectEnd
from seqrpc.aio.places import check_loop, runs_here
from seqrpc.aio.producers import producing
from seqrpc.aio.registry import Registry
from seqrpc.aio.running import RunningCalls
from seqrpc.aio.stats import Oversight
from seqrpc.aio.watching import Watches
from seqrpc.errors import AddressError
from seqrpc.interface.scope import outside, run_in
from seqrpc.interface.stats import Stats
from seqrpc.interface.tallies import count
from seqrpc.kernel import forks
from seqrpc.kernel.addresses import Address
from seqrpc.kernel.forks import wrong_process
from seqrpc.limits import LONGEST_TIMER, Limits
from seqrpc.logs import Shortage, get_logger

_log = get_logger("seqrpc.server")

_STOPPING = "the server is stopping"


class Door(Protocol):
    """Where connections come from, again and again: a :class:`~seqrpc.aio.listener.Listener` in all servers.

    (In tests there is one that nobody outside can reach.)
    """

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, lent, in a tuple; empty once closed."""
        ...

    @property
    def is_unclosed(self) -> bool:
        """Whether somebody may still come."""
        ...

    @property
    def failures(self) -> int:
        """How often the system did not give a connection that waits."""
        ...

    @property
    def is_anothers(self) -> bool:
        """Whether a successor is at the address now."""
        ...

    def accept_connections(self) -> None:
        """Begin to accept, now."""
        ...

    def pause_accepting(self) -> None:
        """Let those who come wait, until :meth:`accept_connections`."""
        ...

    def accept_waiting(self) -> None:
        """Accept what waits."""
        ...

    def close(self) -> None:
        """Stop accepting."""
        ...

    def abandon(self) -> None:
        """Close without waiting; from any thread, and also when the loop runs no more."""
        ...


class Hub:
    """Keeps the connections of one server: takes them in, forgets those that ended, and ends them all.

    Args:
        registry: the services.
        address: where the server listens, to be shown to people.
        limits: ``max_connections``, ``drain_timeout`` and ``close_timeout`` are used, and the rest passed on.
        interception: what surrounds calls.
        is_shared: whether several users may come, who have shares of what there is.
    """

    def __init__(
        self,
        registry: Registry,
        address: Address | None,
        limits: Limits,
        interception: Interception,
        *,
        is_shared: bool = True,
    ) -> None:
        """Begin without connections."""
        self.address = address
        """Where it listens, for people."""
        self._registry = registry
        self._limits = limits
        self._interception = interception
        self._listener: Door | None = None
        self._dispatchers: dict[Link, Dispatcher] = {}  # by connection
        self.connections_taken = 0
        """How many connections there were until now."""
        self._draining = False
        self._accepts = (
            False  # whether the listener is this server's to use: not before a predecessor or behind a successor
        )
        self._is_full = False  # whether others wait until a connection ends
        self._shortage = Shortage(_log)
        self._sweep: asyncio.TimerHandle | None = None  # of connections that are idle
        self._adopting = False  # whether what comes was a connection already
        self._spared: set[object] = set()  # the calls, and streams, that wait for the server to stop
        self._last_reads = LastReads(limits.close_timeout)
        self.lifespans = Lifespans(registry.services, limits, self._begin_closing)
        """What surrounds the lives of the services."""
        self.ledger = Ledger(limits, is_shared=is_shared)
        """What each user holds."""
        self.held = HeldValues(registry.tallies)
        """The streams and objects that clients hold; they outlive their connections, and end with the server."""
        self.oversight = Oversight(registry.tallies, self._dispatchers, self.held)
        """Tells how the server is."""
        self.oversight.accounts = self.ledger.stats
        registry.tell_stats(self.stats)
        self.watches = Watches(registry.tallies, self._running)
        """Who watches calls as they pass."""
        registry.tell_calls(self.watches.begin)
        self._loop = asyncio.get_running_loop()
        self._surroundings = outside()  # of all connections, whoever is called as one of them begins
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, Hub._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Serve nobody: this is a copy in a forked child. The parts of the server hear of the fork by themselves."""
        self._forked = True
        self._dispatchers.clear()

    def _check_place(self) -> None:
        if self._forked:
            raise wrong_process("this server")
        check_loop("this server", self._loop)

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections that are open now."""
        for link in self._dispatchers:
            link.is_known = True
        return frozenset(dispatcher.connection for dispatcher in self._dispatchers.values())

    def stats(self) -> Stats:
        """Do what :meth:`seqrpc.Server.stats` says."""
        self._check_place()
        failures = 0 if self._listener is None else self._listener.failures
        return self.oversight.look(is_stopping=self._draining, accept_failures=failures)

    def _running(self) -> Iterator[RunningCalls]:
        """Yield what runs on each connection, and on each object."""
        for dispatcher in self._dispatchers.values():
            yield dispatcher.running
        for held in self.held.living:
            if isinstance(held, ObjectEnd):
                yield held.running

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket, lent, in a tuple; empty once closed, and on a socket pair."""
        return () if self._listener is None else self._listener.sockets

    @property
    def connections_open(self) -> int:
        """How many connections there are now."""
        return len(self._dispatchers)

    @property
    def calls_in_flight(self) -> int:
        """How many calls run, also those whose connections ended; without calls on objects."""
        running = sum(dispatcher.running.number for dispatcher in self._dispatchers.values())
        return running + self._registry.left_running

    @property
    def values_held(self) -> int:
        """How many streams and objects of this side others have, or get with a message that is on its way out."""
        return self.ledger.total[LIVING]

    @property
    def is_relieved(self) -> bool:
        """Whether a successor is at the address now: this server finishes what it has."""
        return self._listener is not None and self._listener.is_anothers

    @property
    def is_idle(self) -> bool:
        """Whether nobody is connected, nothing runs, and nobody holds a stream or an object."""
        registry = self._registry
        is_running = registry.left_running or self.ledger.is_busy
        return not (self._dispatchers or is_running) and not self.values_held and self.held.is_empty

    def new_link(self, interception: Interception | None = None) -> Link:
        """Return the machinery of one more connection, for its transport.

        Args:
            interception: what surrounds its calls, if that is not what surrounds those of all.
        """
        calls = self._interception if interception is None else interception
        living = LivingValues(self._limits, self.held, interception=calls, surroundings=self._surroundings)
        return Link(
            calls.new_dispatcher(self._registry), self._limits, living, self, calls.new_caller, ledger=self.ledger
        )

    def connection_made(self, link: Link) -> None:
        """Take a connection in, or refuse it."""
        assert isinstance(link.handler, Dispatcher)
        self._dispatchers[link] = link.handler
        lack = link.account.lack_of_place()
        link.account.book(CONNECTIONS)
        tallies = self._registry.tallies
        tallies.connections += 1
        self.connections_taken += 1
        if self._draining:
            count(tallies.turned_away, "stopping")
            link.refuse(_STOPPING)
        elif self._adopting:  # it was admitted before
            return
        elif lack is not None:
            count(tallies.turned_away, "full" if lack.startswith("all ") else "user")
            _log.warning("! a connection is refused: %s", lack)
            link.refuse(lack)
        places = table_size()
        if len(self._dispatchers) >= places and self._listener is not None and not self._draining:
            # Who waits in the backlog costs no descriptor, and is served as soon as somebody goes: to refuse, we would
            # have to accept first, and a client would have to try again and again.
            self._is_full = True
            self._listener.pause_accepting()
            self._shortage.say("! %d connections are all that RLIMIT_NOFILE leaves room for: others wait", places)

    def closing_received(self, link: Link) -> None:
        """Do nothing: calls of this side hear of it."""

    def connection_lost(self, link: Link) -> None:
        """Forget a connection; a server on a socket pair ends with its only one."""
        self._registry.tallies.malformed += link.was_malformed
        if self._dispatchers.pop(link, None) is not None:
            link.account.release(CONNECTIONS)
            link.let_go_of_handler()
        self._last_reads.forget(link)
        if self._is_full and not self._draining and len(self._dispatchers) < table_size():
            self._is_full = False
            if self._accepts:
                self.accept()
        if self._listener is None and not self._dispatchers:
            self._registry.when_quiet(self._begin_closing if self.lifespans else self._finish)

    def _finish(self) -> None:
        self.ledger.close()
        if not self._finished.done():
            self._finished.set_result(None)

    def listen_with(self, listener: Door, *, accepts: bool = True) -> None:
        """Accept connections from ``listener``, which this server owns from now on; or not yet (:meth:`accept`)."""
        self._listener = listener
        if accepts:
            self.accept()
        if self._limits.idle_timeout <= LONGEST_TIMER:
            self._sweep_soon()

    def accept(self) -> None:
        """Accept connections."""
        assert self._listener is not None
        self._accepts = True
        self._listener.accept_connections()

    def stand_aside(self) -> None:
        """Accept nobody until :meth:`accept`, whichever connections end: another process does."""
        assert self._listener is not None
        self._accepts = False
        self._listener.pause_accepting()

    @property
    def listener(self) -> Door | None:
        """Where connections come from, again and again; None on a socket pair."""
        return self._listener

    @property
    def dispatchers(self) -> dict[Link, Dispatcher]:
        """The machinery of the connections that are open now, with what answers on each."""
        return dict(self._dispatchers)

    def adopt(self, sock: socket.socket) -> Link | None:
        """Serve a connection that another process accepted, or this one gave away; return None if it has ended.

        It counts for ``max_connections``, but is not refused where there are more.

        Args:
            sock: the socket; the server owns it.
        """
        link = self.new_link()
        self._adopting = True
        try:
            link.run_outside(open_transport, sock, link, self._limits)
        except (AddressError, OSError):  # it is closed
            return None
        finally:
            self._adopting = False
        return link

    def give_away(self, link: Link) -> socket.socket | None:
        """Return the socket of a connection on which nothing is under way, and forget it; None if something is.

        The caller owns the socket. The other side notices nothing.
        """
        dispatcher = self._dispatchers.get(link)
        if dispatcher is None or not dispatcher.running.is_idle or link.session.closing_sent:
            return None
        sock = link.detach()
        if sock is not None:
            self.connection_lost(link)
        return sock

    def _sweep_soon(self) -> None:
        delay = self._limits.idle_timeout / 2
        self._sweep = run_in(self._surroundings, self._loop.call_later, delay, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close connections on which nothing has happened since the sweep before the last one."""
        for link, dispatcher in list(self._dispatchers.items()):
            if link.session.calls or link.session.given_up or not dispatcher.running.is_idle:
                link.quiet_sweeps = 0
                continue
            link.quiet_sweeps += 1
            if link.quiet_sweeps > 2:
                link.refuse(f"nothing came for {self._limits.idle_timeout:g} s (idle_timeout)")
        self._sweep_soon()

    def refuse_new(self) -> None:
        """Do what :meth:`seqrpc.Server.refuse_new` says."""
        if self._closing is not None:
            return
        self._check_place()
        self._stop_listening()
        for link in self._dispatchers:
            link.answers.send_closing(_STOPPING)
        self.held.refuse(_STOPPING)
        self._last_reads.hold(self._dispatchers)

    async def drain(self, drain_timeout: float | None = None) -> bool:
        """Do what :meth:`seqrpc.Server.drain` says."""
        self._check_place()
        self.refuse_new()
        self._spare_current()
        try:
            async with asyncio.timeout(self._limits.drain_timeout if drain_timeout is None else drain_timeout):
                for dispatcher in list(self._dispatchers.values()):
                    await dispatcher.running.wait_idle(self._spared)
                await self._registry.wait_quiet(self._spared)
                self.watches.end()
                self._spared.update(await self.watches.wait_read(self._limits.close_timeout))
                await self.held.wait_idle(self._limits.close_timeout, self._spared)
        except TimeoutError:
            _log.warning("= %s: handlers were still running after the drain timeout; they are cancelled", self.address)
            return False
        else:
            await self._last_reads.finish()
            return True
        finally:
            await self.close()

    def _spare_current(self) -> None:
        """Do not wait for the call, or the stream, that stops the server: it waits for the stop itself."""
        self._spared.add(producing.get())
        call = handled_call()
        if call is not None:
            self._spared.add(call)
            call.dispatcher.running.look_again()  # another drain may be waiting for this one

    async def close(self) -> None:
        """Do what :meth:`seqrpc.Server.close` says."""
        if self._forked:
            return
        self._check_place()
        self._spare_current()
        while True:
            self._begin_closing()
            assert self._closing is not None
            await self.lifespans.wait(self._closing)  # closing cancels a handler that closes its own server
            if not self._closing.cancelled():  # else all tasks were, but this one
                return

    @property
    def is_unclosed(self) -> bool:
        """Whether it still serves, or may, and nobody has begun to close it."""
        if self._forked or self._closing is not None:
            return False
        return bool(self._dispatchers) or (self._listener is not None and self._listener.is_unclosed)

    def abandon(self) -> None:
        """Close without waiting; from any thread, and also when the loop runs no more."""
        loop = self._loop
        if loop.is_running():
            if runs_here(loop):
                run_in(self._surroundings, self._begin_closing)
            else:
                loop.call_soon_threadsafe(self._begin_closing)
            return
        if self._listener is not None:
            self._listener.abandon()
        for link in list(self._dispatchers):
            link.abandon()
        if not loop.is_closed():  # it may run again, and then leave the lifespans
            loop.call_soon(self._begin_closing)

    def _begin_closing(self) -> None:
        self._stop_listening()
        if self._closing is None or self._closing.cancelled():  # as all tasks were, and maybe before it began
            self._last_reads.close()
            dispatchers = dict(self._dispatchers)
            for link in dispatchers:  # at once: after that they are not read any more
                link.abandon()
            self._closing = asyncio.ensure_future(self._close_connections(dispatchers))
            self._closing.add_done_callback(lambda _closing: self._finish())  # also if it was cancelled

    def _stop_listening(self) -> None:
        """Accept no more; tell those who wait to be accepted why."""
        self._draining = True
        if self._sweep is not None:
            self._sweep.cancel()
        if self._listener is not None:
            self._listener.accept_waiting()
            self._listener.close()

    async def _close_connections(self, dispatchers: dict[Link, Dispatcher]) -> None:
        try:
            await self._end_all(dispatchers)
        finally:  # also if all tasks are cancelled
            await self.lifespans.end()
        self._finish()

    async def _end_all(self, dispatchers: dict[Link, Dispatcher]) -> None:
        """End what there is; wait for it, but no longer than ``close_timeout``."""
        await asyncio.gather(*(link.close() for link in dispatchers))
        self._registry.stop_lingering()
        self.held.stop(_STOPPING)
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                for dispatcher in dispatchers.values():
                    await dispatcher.running.wait_idle()
                await self._registry.wait_ended(self._spared)
                await self.held.wait_stopped()
        except TimeoutError:
            _log.warning(
                "= %s: handlers are still running %g s after they were cancelled; they are not waited for",
                self.address,
                self._limits.close_timeout,
            )

    def __repr__(self) -> str:
        """Return where it listens, for people."""
        where = "on a socket that was passed" if self.address is None else f"at {self.address}"
        return f"<Server {where}>"

    async def wait_left(self) -> None:
        """Wait for nothing: what the server keeps outlives its connections."""

    async def wait_closed(self) -> None:
        """Do what :meth:`seqrpc.Server.wait_closed` says."""
        self._check_place()
        await self.lifespans.wait(self._finished)
