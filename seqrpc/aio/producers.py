"""The writing end of a stream (protocol section 6)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Container
from contextvars import ContextVar
from typing import Any, Final

from seqrpc.aio.accounts import Account
from seqrpc.aio.inflight import InFlight
from seqrpc.aio.outlet import Outlet
from seqrpc.aio.starting import pace_of
from seqrpc.calls.departures import Source
from seqrpc.calls.failures import error_for, no_memory_file
from seqrpc.errors import Overloaded, RpcError, Unavailable
from seqrpc.interface.tallies import count
from seqrpc.kernel import forks
from seqrpc.kernel.ancillary import SEND_FLAGS
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import MAX_PACKET
from seqrpc.logs import get_logger
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import ItemWriter, Outgoing
from seqrpc.protocol.messages import SPILLED
from seqrpc.protocol.outbox import Outbox, Packet
from seqrpc.protocol.spilled import NoMemoryFile, write_spilled

_log = get_logger("seqrpc.producers")

_FAST: Final = 0.000_02
"""Seconds between two items up to which the second may wait for a third: a producer that takes longer over an item
has no packet to share with the next."""

_OLDEST: Final = 0.000_1
"""Seconds between turns of the others on the loop, and that an item may wait for others to share its packet. It waits
at all only while its producer goes on without waiting itself: what is there when the producer waits is sent."""

_FIRST_DELAY: Final = 0.002
"""Seconds until the first look at whether a reader has read what it left unread; they double."""

producing: ContextVar[Producer | None] = ContextVar("seqrpc.producing", default=None)
"""The producer whose source runs here."""


class Producer:
    """Writes what an async iterable yields to one end of a pair, in a task of its own, and then closes both.

    Args:
        sock: the writing end; the producer owns it.
        source: what to write.
        encoder: encodes it.
        account: of the user who gets it, with whose other streams it shares the turns of the loop, and on which what
            is unread of it is booked; None: nobody counts.
    """

    def __init__(self, sock: socket.socket, source: Source, encoder: Encoder, account: Account | None = None) -> None:
        """Prepare; :meth:`start` begins."""
        self._sock = sock
        self._source = source
        self._writer = ItemWriter(encoder)
        self._encoder = encoder
        self._loop = asyncio.get_running_loop()
        self._account = account
        self._in_flight: InFlight | None = None  # made with the first item that is booked
        self._is_held_up = False  # whether it waits for what is in flight to be read
        self._pace = pace_of(self._loop, None if account is None else account.uid)
        self._line: deque[asyncio.Future[None]] = deque()  # this one alone, while it waits for its turn
        self._task: asyncio.Task[None] | None = None
        self._send = sock.send
        self._outlet: Outlet | None = None  # made when a packet first cannot leave in the quick way
        self._room: asyncio.Future[None] | None = None
        self._soon: asyncio.Handle | None = None
        self._stopped: RpcError | None = None  # why this side stops it; the reader is told
        self._failure: Exception | None = None  # why an item could not be sent
        self._refused: Exception | None = None  # the same, of the packet that waited
        self._reader_gone = False
        self._was_told = False  # whether the source ends because the reader has gone
        self._packets = 0  # how many left
        forks.register(self, Producer._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Produce nothing: this is a copy in a forked child, whose loop may go on with what the parent's had begun."""
        self._reader_gone = True  # whatever the source yields here is nobody's
        if self._outlet is not None:
            self._outlet.let_go_in_child()  # what waits is not told that it was not sent: the parent may send it
        self._writer = ItemWriter(self._encoder)
        self._sock.close()

    def start(self, done: Callable[[Producer], object]) -> None:
        """Begin; ``done`` is called at the end."""
        self._loop.add_reader(self._sock.fileno(), self._on_readable)
        # Not by the loop's task factory, which may begin at once: whoever starts this has to hear of it first.
        self._task = asyncio.Task(self._run(), loop=self._loop)
        self._task.add_done_callback(lambda _task: self._ended(done))

    def _ended(self, done: Callable[[Producer], object]) -> None:
        if self._sock.fileno() >= 0:  # it was cancelled before its first step, so _run never ran
            stopped = self._stopped or Unavailable("the producer was cancelled")
            self._put_last(self._writer.end((stopped.code, stopped.message, None)))
            if self._stopped is not None or self._reader_gone:  # else the loop ends, which closes generators itself
                self._encoder.give_up(self._source)
            self._close()
        done(self)
        self._task = None  # whose context has this, and the call that it came of

    def refuse(self, reason: str) -> None:
        """Do nothing: a stream takes no calls that could be refused."""

    async def wait_idle(self, quiet_timeout: float, spared: Container[object] = ()) -> None:
        """Wait until the producer has ended, or has had nothing to send for ``quiet_timeout`` seconds.

        One in ``spared`` is not waited for. A stream that waits for its reader to take what there is is not quiet.
        """
        task = self._task
        while task is not None and not task.done() and self not in spared:
            before = self._packets
            await asyncio.wait([task], timeout=quiet_timeout)
            if self._packets == before and not self.waits and not self._is_held_up:
                return

    def stop(self, reason: str) -> None:
        """Stop producing; the reader is told ``reason`` if the socket has room for it."""
        if self._stopped is not None or self._reader_gone:
            return  # do not interrupt what the source does at its end
        self._stopped = Unavailable(reason)
        if self._task is not None:
            self._task.cancel()

    async def wait_stopped(self) -> None:
        """Wait until the producer has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _on_readable(self) -> None:
        """Stop: the reader closed its end, or wrote to it, which readers never do; what it wrote is not read."""
        if self._sock.fileno() < 0:  # a forked child runs the loop that it inherited
            return
        self._loop.remove_reader(self._sock.fileno())
        self._reader_gone = True
        self._pace.end(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and self._stopped is None and not self._was_told:
            self._task.cancel()

    # Producing

    async def _run(self) -> None:
        """Produce, tell the end, close. Nothing that the source raises gets further than this."""
        producing.set(self)
        error: tuple[str, str, Any] | None = None
        try:
            await self._produce()
        except asyncio.CancelledError:
            if self._failure is not None:
                error = error_for(self._failure, self._source.where, withheld=self._source.is_sensitive)
            elif self._stopped is None and not self._reader_gone:  # the loop ends, or somebody cancels all its tasks
                self._stopped = Unavailable("the producer was cancelled")
        except BaseException as exc:
            if self._sock.fileno() >= 0:  # else it is a copy in a forked child, which nobody asked
                error = error_for(exc, self._source.where, withheld=self._source.is_sensitive)
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):  # these are for the loop, as in any task
                raise
        finally:
            if self._stopped is not None:
                self._encoder.give_up(error)
                error = self._stopped.code, self._stopped.message, None
            elif error is not None and self._source.errors is not None:
                count(self._source.errors, error[0])
            try:
                await self._end(error)
            finally:
                self._close()

    async def _produce(self) -> None:
        iterator = aiter(self._source.items)
        try:
            await self._write_all(iterator)
        finally:
            self._was_told = self._reader_gone
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    async def _write_all(self, iterator: AsyncIterator[Any]) -> None:
        writer, clock = self._writer, time.monotonic
        last = first = turn = 0.0  # when the last item came, the first that waits, and when the loop last went on
        async for item in iterator:
            if self._reader_gone or self._stopped is not None:  # the source does not mind being cancelled
                self._encoder.give_up(item)
                return
            writer.add(item)
            now = clock()
            if not writer.full and now - last < _FAST:
                if writer.count == 1:
                    first = now
                    self._soon = self._loop.call_soon(self._flush_soon)
                if now - first < _OLDEST:
                    last = now
                    continue
            has_room = self._flush()
            if self._in_flight is not None and self._in_flight.holds_up():
                await self._wait_read(self._in_flight)
                has_room = True
            if has_room and now - turn < _OLDEST:
                last = clock()
                continue
            await self._let_others_run(has_room=has_room)
            last = turn = clock()
        while not self._flush():
            await self._wait_room()

    async def _let_others_run(self, *, has_room: bool) -> None:
        """Let the others on the loop have their turn, if the source gives them none, and wait for room if need be."""
        if not has_room:
            await self._wait_room()
        if self._pace.is_over():  # many streams of one user may go on at once
            await self._pace.wait(self._line)
        elif has_room:
            await asyncio.sleep(0)

    async def _wait_read(self, in_flight: InFlight) -> None:
        """Take no further item as long as the user leaves much unread, of this stream too."""
        if not self._flush():
            await self._wait_room()
        delay, self._is_held_up = _FIRST_DELAY, True
        try:
            while in_flight.holds_up():
                await asyncio.sleep(delay)
                delay = min(2 * delay, in_flight.look_again_after)
        finally:
            self._is_held_up = False

    # Writing

    def _flush_soon(self) -> None:
        """Send what waits, because the source is waiting too."""
        self._soon = None
        try:
            self._flush()
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        """Stop the source because an item could not be sent."""
        self._failure = exc
        assert self._task is not None
        self._task.cancel()

    def _flush(self) -> bool:
        """Send what waits; return False if the socket has no room for all of it.

        Raises:
            Exception: an item cannot be sent; what came before it was.
        """
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        writer, outlet = self._writer, self._outlet
        if outlet is not None and outlet.outbox.packets and not self._flush_outlet(outlet):
            return False
        while (packet := writer.packet()) is not None:
            if not self._put(packet):
                return False
        if writer.failure is not None:
            raise writer.failure
        return True

    def _put(self, packet: Outgoing, *, is_last: bool = False) -> bool:
        """Send a packet, or let it wait; return False if there is no room for it now.

        Args:
            packet: what to send.
            is_last: whether it is sent whatever the user has not read: it is the end.

        Raises:
            Exception: it cannot be sent.
        """
        failure: OSError | None = None
        outlet = self._outlet
        if not packet.lenders and len(packet.data) <= MAX_PACKET and (outlet is None or not outlet.room.narrow):
            send = self._send
            try:
                send(packet.data, SEND_FLAGS)  # type: ignore[arg-type] # pieces are longer
            except OSError as exc:
                failure = exc.with_traceback(None)  # which would hold this frame
            else:
                self._packets += 1
                return True
        if outlet is None:
            outlet = self._outlet = Outlet(self._loop, self._sock, self, Outbox())
        waiting = _Item(packet)
        long_bytes = len(packet.data) if len(packet.data) > MAX_PACKET else 0
        try:
            if self._account is not None and (long_bytes or packet.lenders):
                self._book(self._account, len(packet.lenders), long_bytes, is_last=is_last)
            if long_bytes:
                waiting.shorten(self.too_long)
        except Exception:
            packet.unsent()
            raise
        outlet.outbox.add(waiting)
        if failure is not None and not outlet.failed(failure):
            return False
        return self._flush_outlet(outlet)

    def _book(self, account: Account, lent: int, long_bytes: int, *, is_last: bool) -> None:
        """Book a packet with so many descriptors, or that is so long, as in flight.

        Raises:
            Overloaded: the user leaves too much unread.
        """
        in_flight = self._in_flight
        if in_flight is None:
            in_flight = self._in_flight = InFlight(self._sock, account, self._waiting)
        number = lent + (long_bytes > 0)
        lack = None if is_last else in_flight.lack(number, long_bytes)
        if lack is not None:
            raise Overloaded(lack)
        in_flight.sent(number, long_bytes)

    def _flush_outlet(self, outlet: Outlet) -> bool:
        """Send the packet that waits; return False if there is no room for it now.

        Raises:
            Exception: it cannot be sent.
        """
        if not outlet.flush():
            return False
        self._packets += 1
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused
        return True

    def _waiting(self) -> int:
        return 0 if self._outlet is None else len(self._outlet.outbox.packets)

    @property
    def waits(self) -> bool:
        """Whether a packet waits for room."""
        return self._waiting() > 0

    @property
    def watches(self) -> bool:
        """Whether the loop watches for room."""
        return self._outlet is not None and self._outlet.watching

    # What the outlet tells

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd]:
        """Send a packet that is too long as a memory file (protocol section 5).

        Raises:
            TooLarge, Overloaded: no memory file can be made; the reader is told.
        """
        try:
            file = write_spilled(data)
        except NoMemoryFile as exc:
            _log.warning("! %r: an item cannot be sent: %s", self._source.where, exc)
            raise no_memory_file(exc) from exc
        return bytes(self._encoder.encode((SPILLED, len(data)))[0]), file

    def writable(self) -> None:
        """Go on: there may be room."""
        try:
            if not self._flush():
                return
        except Exception as exc:
            self._fail(exc)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def refused(self, packet: Packet, reason: Exception) -> None:  # noqa: ARG002
        """Remember why an item cannot be sent."""
        self._refused = reason

    def broke(self, reason: OSError) -> None:  # noqa: ARG002
        """Send nothing more: nobody reads it. The loop notices that too, and has the source stopped."""
        self._reader_gone = True
        self._drop()

    def _drop(self) -> None:
        if self._outlet is not None:
            self._outlet.drop()

    async def _wait_room(self) -> None:
        """Wait until what waits was sent."""
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    # Ending

    async def _end(self, error: tuple[str, str, Any] | None) -> None:
        """Tell the reader of the end. A producer that was stopped does not wait for room to say so."""
        last = self._writer.end(error)
        try:
            may_tell = not self._reader_gone and await self._flush_rest()
        except BaseException:
            last.unsent()
            raise
        if not may_tell:
            last.unsent()
            return
        self._put_last(last)
        with contextlib.suppress(Exception):
            while not self._flush() and self._stopped is None:
                await self._wait_room()

    def _put_last(self, last: Outgoing) -> None:
        """Send the end if there is room, else let it wait."""
        with contextlib.suppress(Exception):
            self._put(last, is_last=True)

    async def _flush_rest(self) -> bool:
        """Send what waits, or give up what cannot be sent; return False if this side stops the producer meanwhile."""
        with contextlib.suppress(Exception):
            while not self._flush():
                if self._stopped is not None:
                    return False
                await self._wait_room()
        return True

    def _close(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        self._drop()
        self._outlet = None  # which has this as its owner
        self._writer.drop()
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.end(self._loop)
        if self._sock.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
        close_unread(self._sock, None, discard=False)
        close_all(self._source.fds)


class _Item(Packet):
    """A packet of a stream that does not leave in the quick way: what it lends is let go as its own."""

    __slots__ = ("_outgoing",)

    def __init__(self, outgoing: Outgoing) -> None:
        holds_memory = any(isinstance(lender, Buffer) for lender in outgoing.lenders)
        super().__init__(outgoing.data, outgoing.lenders, narrow=holds_memory)
        self._outgoing = outgoing

    def sent(self) -> None:
        self._outgoing.sent()

    def unsent(self) -> None:
        self._outgoing.unsent()
