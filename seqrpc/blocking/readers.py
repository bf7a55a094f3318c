"""What does the work of a stream's reading end; users see it as a :class:`~seqrpc.blocking.streams.Stream`."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from seqrpc.blocking.family import Family, is_alone
from seqrpc.blocking.kept import keep
from seqrpc.blocking.reading import Reading
from seqrpc.blocking.waiting import LOOK_INTERVAL, READ, Bell, earlier, poll, seconds_to_rest
from seqrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    DescriptorsLost,
    LocalProtocolError,
    RemoteProtocolError,
    WrongProcess,
)
from seqrpc.interface.scope import scope
from seqrpc.kernel import forks
from seqrpc.kernel.closing import CLOSER, Sender
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all, sender_of, socket_of, value_fd
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.sockets import never_wait
from seqrpc.kernel.unread import close_unread, close_value
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import Inbox, Trouble, hides_packets
from seqrpc.protocol.items import End, ItemReader, failure_of, producer_gone
from seqrpc.protocol.received import ReceivedItems

_MOST_AT_ONCE: Final = 256
"""Packets that :meth:`StreamReader.take_ready` reads at most: a producer may write as fast as they are read."""


class StreamReader:
    """Reads a stream when it is asked for an item and has none ready.

    It holds the reading end and what decodes its packets, or knows how to get both.

    Args:
        family: what goes on while a thread waits for an item.
        fd: the reading end.
        reader: decodes packets.
        opening: makes the call that returns the stream, and returns the reader of that stream.
    """

    __slots__ = (
        "__weakref__", "_busy", "_closed", "_family", "_fd", "_forked", "_kept", "_lock", "_made", "_moved",
        "_opening", "_pumped", "_reader", "_sender", "_sock", "items",
    )  # fmt: skip

    def __init__(
        self,
        family: Family | None = None,
        fd: OwnedFd | None = None,
        reader: ItemReader | None = None,
        opening: Callable[[], StreamReader] | None = None,
    ) -> None:
        """Read nothing yet."""
        self._family = Family() if family is None else family
        self._fd = fd
        self._reader = reader
        self._opening = opening
        self.items = ReceivedItems()
        """What came in and nobody has taken."""
        self._sock: socket.socket | None = None
        self._kept: weakref.finalize[Any, Any] | None = None
        self._made: Reading | None = None
        self._sender: Sender = None
        self._closed = False
        self._moved = False
        self._busy: tuple[int, object] | None = None  # the thread that reads, and what it reads for
        self._pumped = False  # whether something else had the last turn: the stream has the next
        self._lock = threading.RLock()  # held while is decided who closes what
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, StreamReader._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """End without telling anybody: this is a copy in a forked child."""
        self._forked = self._closed = True
        self._lock = threading.RLock()  # a thread of the parent may hold the other one
        self.items.forget()  # what was received is the parent's to read
        self._opening = None
        for end in (self._sock, self._fd):
            if end is not None:
                end.close()
        self._sock = self._fd = self._made = None

    @property
    def is_unopened(self) -> bool:
        """Whether the call has not been made yet."""
        return self._opening is not None

    @property
    def is_closed(self) -> bool:
        """Whether no more is received; there may still be items that nobody has taken."""
        return self._closed

    @property
    def is_over(self) -> bool:
        """Whether it will give no more items."""
        return self._closed and not self.items and self.items.failure is None

    # Reading

    def open(self) -> None:
        """Make the call now, if it was not made yet.

        Raises:
            WrongProcess: it is to be opened in another process.
            RuntimeError: it is being opened already, which changes nothing.
            Exception: anything else that the call raises; the stream is over then, unless a signal handler raised it.
        """
        self._check_process()
        if self._opening is None:
            return
        turn = object()
        try:
            self._begin(turn)
            self._open()
        finally:
            self._end_turn(turn)

    def _open(self) -> None:
        """Make the call, if it was not made yet; whoever calls this reads."""
        opening = self._opening
        if opening is None:
            return
        try:
            opened = opening()
        except BaseException as exc:
            if isinstance(exc, Exception) and not isinstance(exc, WrongProcess):
                self._end()
            raise  # else whoever reads next makes the call again
        with self._lock:
            if self._closed:
                opened.close()
                return
            self._opening = None
            self._fd, opened._fd = opened._fd, None  # noqa: SLF001 - of the same class
            self._reader, self.items.check = opened._reader, opened.items.check  # noqa: SLF001 - as above
            self._family = opened._family  # noqa: SLF001 - as above
        opened.close()

    def next(self) -> Any:
        """Wait for the next item and return it; called when none is ready.

        Raises:
            StopIteration: there is none.
            Exception: as :class:`~seqrpc.blocking.streams.Stream` tells.
        """
        items, turn = self.items, object()
        try:
            self._begin(turn)
            self._open()
            while not items.is_ready:
                if items.has_more:
                    items.look()
                    continue
                self._raise_if_over()
                self._wait_for_packet()
        finally:
            self._end_turn(turn)
        return items.take()

    def take_ready(self) -> list[Any]:
        """Return the items that are there, without waiting, of a bounded number of packets.

        Raises:
            Exception: as :meth:`next`, if there is no item before that.
        """
        items, taken, turn = self.items, list[Any](), object()
        packets = 0
        try:
            self._begin(turn)
            self._open()
            while True:
                while items.is_ready:
                    taken.append(items.take())
                if items.has_more:
                    items.look()
                elif self._closed or items.failure is not None or packets == _MOST_AT_ONCE or not self._read_at_once():
                    break
                else:
                    packets += 1
            if not taken and items.failure is not None:
                self._raise_if_over()
        finally:
            self._end_turn(turn)
        return taken

    def _read_at_once(self) -> bool:
        reading = self._reading()
        if CLOSER.careful and reading.must_wait(0):
            return False
        return reading.read()[1]

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to read, lent.

        Raises:
            ValueError: it is closed, or was passed on.
        """
        self._check_process()
        self.open()
        if self._closed:
            raise ValueError("the stream is closed")
        self._reading()
        assert self._sock is not None
        return self._sock.fileno()

    def _begin(self, turn: object) -> None:
        """Refuse a second reader."""
        self._check_process()
        with self._lock:
            if self._busy is not None:
                who = "this" if self._busy[0] == threading.get_ident() else "another"
                raise RuntimeError(f"{who} thread is {self._doing} this stream already")
            self._busy = threading.get_ident(), turn

    @property
    def _doing(self) -> str:
        return "reading" if self._opening is None else "opening"

    def _end_turn(self, turn: object) -> None:
        try:
            self._rest(turn)
        except BaseException:  # a signal handler came between
            self._rest(turn)
            raise

    def _rest(self, turn: object) -> None:
        """Let others read, if this is what was begun; close what was ended meanwhile. It may be repeated."""
        with self._lock:
            if self._busy is None or self._busy[1] is not turn:
                return
            self._busy = None
            if self._closed:
                self._close_ends()

    def _check_process(self) -> None:
        if self._forked:
            raise forks.wrong_process("this stream")

    def _raise_if_over(self) -> None:
        if self.items.failure is not None:
            self._raise_failure()
        if self._moved:
            raise ConnectionLost("the stream was passed on to somebody else")
        if self._closed:
            self._check_process()
            raise StopIteration

    def _raise_failure(self) -> None:
        failure = self.items.failure
        assert failure is not None
        if self.items.has_ended or not isinstance(failure, DescriptorsLost):
            self._end()
        try:
            self.items.failure = None  # the last: who is interrupted before is told the next time
            raise failure
        finally:
            del failure  # else it and this frame would hold each other, and what was received, until collected

    def _reading(self) -> Reading:
        """Return what receives, made when it is first needed.

        Raises:
            StopIteration: the stream was closed meanwhile.
        """
        with self._lock, Uninterrupted():
            if self._closed:
                raise StopIteration
            if self._made is None:
                assert self._fd is not None
                self._sender = sender_of(self._fd)
                self._sock = socket_of(self._fd)
                self._kept = keep(self, self._sock)
                self._fd = None
                never_wait(self._sock)
                self._made = Reading(self._sock, Inbox(uid=self._sender), self)
            return self._made

    # Receiving

    def _wait_for_packet(self) -> None:
        """Take a packet, or do something that goes on meanwhile.

        Raises:
            DeadlineExceeded: the time given by ``seqrpc.timeout`` is up; nothing is lost.
        """
        reading, family = self._made or self._reading(), self._family
        deadline = until = scope.get().deadline_ns
        is_quiet = until is None and not family.pumps and is_alone() and not CLOSER.careful
        if (is_quiet or reading.left_over is not None) and reading.read(waits=is_quiet)[1]:
            return
        assert self._sock is not None
        fd = self._sock.fileno()
        own = [(fd, READ)]
        bell: Bell | None = None
        with contextlib.suppress(OSError):  # without one it looks now and then
            bell = None if is_alone() else Bell()
        if bell is None:
            until = earlier(until, time.monotonic_ns() + LOOK_INTERVAL * 1_000_000_000)
        try:
            if bell is not None:
                family.listen(bell)
                own.append((bell.fileno(), READ))
            ready, pump = poll(own, list(family.pumps), until)
        finally:
            if bell is not None:
                family.leave(bell)
                bell.close()
        self._pumped = pump is not None and not (fd in ready and self._pumped)
        if pump is not None and self._pumped:
            family.turn(pump)
        elif fd in ready and not self._closed and not (CLOSER.careful and reading.must_wait(seconds_to_rest(until))):
            reading.read()
        family.run_errands()
        if deadline is not None and not self.items.is_ready and time.monotonic_ns() >= deadline:
            raise DeadlineExceeded("the deadline passed before the next item of the stream came")

    # What the reading tells

    def receive_failed(self, exc: OSError) -> bool:
        """Handle a failure to receive; return whether to go on at once."""
        if isinstance(exc, BlockingIOError | InterruptedError):
            return False
        if not hides_packets(exc):
            self.items.failure = producer_gone(f"the stream cannot be read: {exc.strerror}")
        return True

    def take_trouble(self, trouble: Trouble, size: int) -> None:
        """Handle what came in place of a packet."""
        if self._closed:  # by another thread, which shut it down
            return
        if trouble is Trouble.END:
            self.items.failure = producer_gone("the producer of the stream died")
        else:
            self.items.failure = RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size}")

    def take_plain(self, data: bytes) -> None:
        """Take a packet that nothing came with."""
        self.take_packet(data, [])

    def take_packet(
        self,
        data: bytes,
        fds: list[OwnedFd],
        sender: Credentials | None = None,  # noqa: ARG002 - whoever has the other end of a stream may write
        *,
        lost: bool = False,
    ) -> None:
        """Take any packet."""
        assert self._reader is not None
        try:
            event = self._reader.receive_packet(data, fds, lost=lost)
        except Exception as exc:
            self.items.failure = exc
            return
        if event is None:
            return
        if not isinstance(event, End):
            self.items.add(event.values, event.fds)
        elif event.error is None:
            close_all(event.fds)
            self._end()
        else:
            self.items.failure, self.items.has_ended = failure_of(event), True

    def take_again(self, data: bytes) -> bool:  # noqa: ARG002
        """Take no packet twice: some of its items may have been taken."""
        return False

    def end_by(self, exc: Exception) -> None:
        """End after the items that are there."""
        self.items.failure = exc

    # Ending

    def detach(self) -> OwnedFd | None:
        """Give up the reading end, to be passed on.

        Returns:
            The reading end, owned by the caller; None if the stream has to be relayed, because items were received
            that nobody took yet, or because the call was not made yet.

        Raises:
            LocalProtocolError: a thread is reading or opening it, or it is over here.
            WrongProcess: it belongs to another process.
        """
        self._check_process()
        if self._busy is not None:
            raise LocalProtocolError(f"a stream that a thread is {self._doing} cannot be passed on")
        if self.items or self.items.failure is not None or self._opening is not None:
            return None
        if self._closed:
            over = "was passed on already" if self._moved else "is closed, or was read to its end,"
            raise LocalProtocolError(f"a stream that {over} cannot be passed on")
        with Uninterrupted():
            if self._made is not None:
                self._made.leave()
            fd = self._fd if self._sock is None else value_fd(self._sock.detach(), self._sender)
            self._fd, self._sock, self._made, self._closed, self._moved = None, None, None, True, True
            self._let_sock_go()
        return fd

    def _let_sock_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.detach()

    def attach(self, fd: OwnedFd) -> None:
        """Take back what :meth:`detach` returned: it was not passed on."""
        self._fd, self._closed, self._moved = fd, False, False

    def close(self) -> None:
        """Stop reading for good: the producer stops. If it had not ended, items that nobody took are dropped.

        A thread that waits for an item wakes up, and closes what it waited on.
        """
        with self._lock:
            self._closed = True
            if self._busy is not None and self._sock is not None:
                with contextlib.suppress(OSError):  # the other end is closed
                    self._sock.shutdown(socket.SHUT_RDWR)
            self._end()

    def _end(self) -> None:
        """Be over; what is held is closed at once, or by the thread that reads when it does so no more."""
        with self._lock:
            self._closed = True
            self._opening = None
            if self._busy is None:
                self._close_ends()

    def _close_ends(self) -> None:
        with Uninterrupted():
            sock, self._sock = self._sock, None
            made, self._made = self._made, None
            fd, self._fd = self._fd, None
            if made is not None:
                made.drop()
            if sock is not None:
                close_unread(sock, self._sender, discard=False)
                self._let_sock_go()
            if fd is not None:
                close_value(fd)

    def drop(self) -> None:
        """Stop reading for good, and let go of the items that nobody took."""
        self.close()
        self.items.failure = None
        self.items.drop()
