"""The writing end of a stream (protocol section 6), produced by whichever thread waits."""

from __future__ import annotations

import _thread
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any, Final

from seqrpc.blocking.kept import keep
from seqrpc.blocking.outlet import Outlet
from seqrpc.blocking.waiting import READ, WRITE
from seqrpc.calls.departures import Source
from seqrpc.calls.failures import error_for, no_memory_file
from seqrpc.errors import Unavailable
from seqrpc.kernel import forks
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.interrupts import HELD, Uninterrupted, release
from seqrpc.kernel.pieces import Content
from seqrpc.kernel.sockets import never_wait
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import MAX_PACKET
from seqrpc.logs import get_logger
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import ItemWriter, Outgoing
from seqrpc.protocol.messages import SPILLED
from seqrpc.protocol.outbox import Outbox, Packet
from seqrpc.protocol.spilled import NoMemoryFile, write_spilled
from seqrpc.protocol.values import EXT_STREAM

_log = get_logger("seqrpc.producers")

_TURN_NS: Final = 1_000_000
"""Nanoseconds after which a producer lets its thread look for its answer, and others have their turns."""

_OLDEST_NS: Final = 100_000
"""Nanoseconds that an item may wait for others to share its packet. The next one may take its time: so what is there
is sent before it is asked for, unless the items before it came in no time."""

_FAST_NS: Final = 20_000


class Producer:
    """Writes what an iterator yields to one end of a pair, and then closes both.

    The iterator runs in the thread of whoever works on it, one at a time, and in the context that the stream was sent
    from: what it calls takes along what that said.

    Args:
        sock: the writing end; the producer owns it.
        source: what to write.
        encoder: encodes it.
        context: where the source runs.
        rested: called when other threads may work on it again.
        ended: called with it at its end.
    """

    __slots__ = (
        "__weakref__", "_context", "_encoder", "_ended", "_ending", "_is_over", "_iterator", "_kept", "_last",
        "_outlet", "_reader_gone", "_refused", "_rested", "_running", "_sock", "_source", "_writer",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        source: Source,
        encoder: Encoder,
        context: Context,
        *,
        rested: Callable[[], object],
        ended: Callable[[Producer], object],
    ) -> None:
        """Produce nothing yet."""
        self._sock = sock
        self._kept = keep(self, sock)
        self._source = source
        self._encoder = encoder
        self._context = context
        self._writer = ItemWriter(encoder)
        self._outlet = Outlet(sock, self, Outbox())
        self._iterator: Iterator[Any] | None = None
        self._refused: Exception | None = None
        self._reader_gone = False
        self._last: Outgoing | None = None  # the end, once the source has ended
        self._is_over = False
        self._running = _thread.allocate_lock()  # by whom the source runs: it may call, and its thread wait again
        self._ending: str | None = None  # why it was ended while the source ran: whoever runs that ends it then
        self._rested = rested
        self._ended = ended
        forks.register(self, Producer._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Produce nothing: this is a copy in a forked child."""
        self._is_over = self._reader_gone = True
        self._outlet.outbox.forget()  # what waits is not told that it was not sent: the parent may send it
        self._writer = ItemWriter(self._encoder)
        self._sock.close()

    def interest(self) -> tuple[int, int]:
        """Return what to watch: the reader closes its end to say that it wants no more."""
        if self._is_over or self._running.locked():
            return -1, 0
        outlet = self._outlet
        if outlet.waits:
            return self._sock.fileno(), READ | WRITE if outlet.wants_room else READ
        return self._sock.fileno(), 0

    @property
    def retry_at(self) -> int | None:
        """When to go on although the socket does not say so."""
        return self._outlet.retry_at

    def work(self) -> None:
        """Produce for a moment."""
        self._run(self._work)

    def end(self, reason: str) -> None:
        """End it now, if it has not ended; the reader is told ``reason`` if the socket has room for it.

        If the source is running, in this thread or another one, it ends when that has yielded.
        """
        if self._run(self._end, reason):
            return
        self._ending = reason
        self._run(self._end, reason)  # in case that it ran no more

    def abandon(self) -> None:
        """End it: nobody goes on with it any more."""
        self.end("the connection of its service ended")

    def _run(self, function: Callable[..., object], *args: Any) -> bool:
        """Call a function in the context of the source, unless that is running; return whether it was not."""
        got: list[bool] = []
        try:
            # In one step for signal handlers: a lock that nobody knows to be held would be held for ever.
            got.extend(itertools.starmap(self._running.acquire, _AT_ONCE))
            if not got[0]:
                return False
            if not self._is_over:
                self._context.run(function, *args)
                if self._ending is not None:
                    self._context.run(self._end, self._ending)
        finally:
            if got and got[0]:
                self._running.release()
            release()
        if not self._is_over:
            if self._ending is not None:  # since it was looked at last
                self.end(self._ending)
            self._rested()
        return True

    def _work(self) -> None:
        try:
            try:
                self._go_on()
            except Exception as exc:
                self._finish(exc)
        except BaseException:
            self._end("the producer was interrupted")
            raise

    def _go_on(self) -> None:
        if self._reader_has_gone():
            return
        if self._last is not None:
            self._send_last()
            return
        if not self._flush():
            return
        if self._iterator is None:
            self._iterator = iter(self._source.items)
        until = time.monotonic_ns() + _TURN_NS
        self._produce(self._iterator, until)

    def _produce(self, iterator: Iterator[Any], until: int) -> None:
        """Ask for items until the time is up or there is no room."""
        writer, clock = self._writer, time.monotonic_ns
        last = first = 0
        for item in iterator:
            if self._ending is not None:  # it was ended meanwhile, perhaps by what the source itself called
                self._encoder.give_up(item)
                return
            writer.add(item)
            if HELD:
                release()
            now = clock()
            if not writer.full and now - last < _FAST_NS and now < until:
                first = first if writer.count > 1 else now
                if now - first < _OLDEST_NS:
                    last = now
                    continue
            if not self._flush() or now >= until:
                return
            last = clock()
        if self._flush():  # else the iterator is asked again once there is room, and has no more
            self._finish(None)

    def _reader_has_gone(self) -> bool:
        """Look whether the reader closed its end, or wrote to it, which readers never do."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return self._reader_gone
        except OSError:
            pass
        self._reader_gone = True
        self._end("nobody reads")
        return True

    # Writing

    def _flush(self) -> bool:
        """Send what waits; return False if the socket has no room for all of it.

        Raises:
            Exception: an item cannot be sent; what came before it was.
        """
        outlet, writer = self._outlet, self._writer
        with Uninterrupted():
            while True:
                if outlet.waits and not outlet.flush():
                    return False
                refused, self._refused = self._refused, None
                if refused is not None:
                    raise refused
                packet = writer.packet()
                if packet is None:
                    break
                self._put(packet)
            if writer.failure is not None:
                raise writer.failure
            if self._last is not None and self._last is not _TOLD and not self._reader_gone:
                last, self._last = self._last, _TOLD
                self._put(last)
                return not outlet.waits or outlet.flush()
        return True

    def _put(self, packet: Outgoing) -> None:
        """Let a packet wait, to be sent at once."""
        waiting = _Item(packet)
        if len(packet.data) > MAX_PACKET:
            try:
                waiting.shorten(self.too_long)
            except Exception:
                packet.unsent()
                raise
        self._outlet.outbox.add(waiting)

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
        """Do nothing: whoever waits goes on."""

    def refused(self, packet: Packet, reason: Exception) -> None:  # noqa: ARG002
        """Remember why an item cannot be sent."""
        self._refused = reason

    def broke(self, reason: OSError) -> None:  # noqa: ARG002
        """Send nothing more: nobody reads it."""
        self._reader_gone = True
        self._outlet.drop()

    # Ending

    def _finish(self, exc: BaseException | None) -> None:
        """End as the source did, once everything is sent."""
        error = None if exc is None else error_for(exc, self._source.where, withheld=self._source.is_sensitive)
        self._writer.failure = None
        self._close_source()
        self._last = self._writer.end(error)
        self._send_last()

    def _send_last(self) -> None:
        """Send what waits, and the end, as far as there is room; what cannot be sent is left out."""
        while True:
            try:
                if self._flush():
                    self._close()
            except Exception:  # noqa: S112 - it is why the stream ends, or nobody can be told
                continue
            return

    def _end(self, reason: str) -> None:
        """End it now, if it has not ended: first what holds descriptors, for the source may take its time."""
        if self._is_over:
            return
        with Uninterrupted():
            if not self._reader_gone and self._last is None:
                stopped = Unavailable(reason)
                self._last = self._writer.end((stopped.code, stopped.message, None))
                try:
                    self._flush()
                except Exception as exc:
                    _log.debug("! the reader of %r is not told that it was stopped: %s", self._source.where, exc)
            self._close()
        self._close_source()

    def _close_source(self) -> None:
        """Close the iterator: its ``finally`` blocks run, in this thread. Then close what was lent to it."""
        iterator, self._iterator = self._source.items if self._iterator is None else self._iterator, None
        self._source.items = ()
        close = getattr(iterator, "close", None) if hasattr(iterator, "__next__") else None
        try:
            if close is not None:
                close()
        except Exception:  # it may raise anything
            shows = not self._source.is_sensitive
            _log.error("! closing %r failed, which was streamed", self._source.where, exc_info=shows)
        finally:
            close_all(self._source.fds)

    def _close(self) -> None:
        with Uninterrupted():
            if self._is_over:
                return
            self._is_over = True
            self._outlet.drop()
            self._writer.drop()
            if self._last is not None and self._last is not _TOLD:
                self._last.unsent()
            close_unread(self._sock, None, discard=False)
            self._kept.detach()
            self._ended(self)

    def __repr__(self) -> str:
        """Return what it produces."""
        return f"<Producer of {self._source.where}>"


_AT_ONCE: Final = ((False,),)  # the arguments of one call of acquire, which does not wait

_TOLD: Final = Outgoing((b"", []))
"""In place of the end of a stream once that has been sent, or waits to be."""


class _Item(Packet):
    """A packet of a stream: what it lends is let go as its own."""

    __slots__ = ("_outgoing",)

    def __init__(self, outgoing: Outgoing) -> None:
        holds_memory = any(isinstance(lender, Buffer) for lender in outgoing.lenders)
        super().__init__(outgoing.data, outgoing.lenders, narrow=holds_memory)
        self._outgoing = outgoing

    def sent(self) -> None:
        self._outgoing.sent()

    def unsent(self) -> None:
        self._outgoing.unsent()


class StreamDeparture:
    """An iterator on its way out: a pair is made, and its reading end leaves.

    Args:
        source: what the stream yields.
        encoder: encodes the items.
        rested: called when other threads may work on it again.
        started: called with the producer once it can be worked on.
        ended: called with it at its end.
        dropped: called if it is not sent.

    Raises:
        OSError: the process has too many descriptors.
    """

    ext_type = EXT_STREAM

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        *,
        rested: Callable[[], object],
        started: Callable[[Producer], object],
        ended: Callable[[Producer], object],
        dropped: Callable[[], object],
    ) -> None:
        """Make the pair."""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        never_wait(self._ours)
        self._source = source
        self._encoder = encoder
        self._context = copy_context()
        self._rested = rested
        self._started = started
        self._ended = ended
        self._dropped = dropped
        self.producer: Producer
        """What produces it, once it was sent."""
        forks.register(self, StreamDeparture._close)

    def _close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        """Return the reading end, lent."""
        return self._theirs.fileno()

    def keep_apart(self) -> None:
        """Let nobody else work on the producer than who has this: to be called before it is sent."""
        self._started = lambda _producer: None

    def sent(self) -> None:
        """Let the reading end go; the producer is to be worked on."""
        self._theirs.close()
        self.producer = Producer(
            self._ours, self._source, self._encoder, self._context, rested=self._rested, ended=self._ended
        )
        self._started(self.producer)

    def unsent(self) -> None:
        """Close both ends; the source is left as it was."""
        self._close()
        self._dropped()

    def given_up(self) -> None:
        """Close both ends, and the source."""
        self.unsent()
        self._encoder.give_up(self._source)
