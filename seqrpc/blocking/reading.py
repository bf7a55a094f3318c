"""Receiving packets without an event loop, so that no signal handler comes between a packet and what it asks for."""

from __future__ import annotations

import _thread
import contextlib
import functools
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Protocol

from seqrpc.blocking.waiting import LOOK_INTERVAL, close_number
from seqrpc.errors import ConnectionLost
from seqrpc.kernel import ancillary
from seqrpc.kernel.ancillary import WHOLE, Received
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.interrupts import Uninterrupted, is_of_handler
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import BUFFER_BYTES, Inbox, Trouble, receive_buffer
from seqrpc.protocol.messages import RESPONSE

_ONCE: Final = ((),)  # the arguments of one call without arguments
_ANSWER: Final = bytes((0x94, RESPONSE))
_INTERRUPTED: Final = "a signal handler interrupted this side in the middle of a message"

Work = Callable[[], object]
"""What a thread that waits has to do before it waits on."""


def _release(lock: _thread.LockType) -> None:
    with contextlib.suppress(RuntimeError):  # it was released already
        lock.release()


class Taker(Protocol):
    """Whoever takes what is received."""

    def take_packet(
        self, data: bytes, fds: list[OwnedFd], sender: Credentials | None, *, lost: bool = False
    ) -> Work | None:
        """Take a packet; return what is to be done."""
        ...

    def take_plain(self, data: bytes) -> Work | None:
        """Take a packet that nothing came with; return what is to be done."""
        ...

    def take_trouble(self, trouble: Trouble, size: int) -> None:
        """Hear of what came in place of a packet."""
        ...

    def receive_failed(self, exc: OSError) -> bool:
        """Hear that receiving failed; return whether to go on at once."""
        ...

    def take_again(self, data: bytes) -> bool:
        """Return whether an answer that was interrupted may be taken again, so that nobody misses one."""
        ...

    def end_by(self, exc: Exception) -> None:
        """End."""
        ...


class _Room:
    """A buffer to receive into, and which reading is in the middle of a packet in it."""

    __slots__ = ("buffer", "reading")

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.reading: Reading | None = None


_here = threading.local()


def _room_here() -> _Room:
    """Return the one of this thread."""
    room: _Room | None = getattr(_here, "room", None)
    if room is None:
        room = _here.room = _Room(receive_buffer())
    return room


class Reading:
    """Receives the packets of one socket, for one thread at a time.

    Args:
        sock: the socket, borrowed.
        inbox: decides what each packet is.
        taker: takes them.
    """

    __slots__ = (
        "_arrived", "_at_once", "_brought", "_buffer", "_inbox", "_room", "_sock", "_taker", "_thread", "_waiting",
        "left_over",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, inbox: Inbox, taker: Taker) -> None:
        """Receive nothing yet."""
        # So that a thread which reads without looking at anything else does look now and then.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", LOOK_INTERVAL, 0))
        self._sock = sock
        self._inbox = inbox
        self._taker = taker
        self._thread = -1  # whose buffer it receives into
        self._room: _Room
        self._buffer: memoryview
        self._at_once: Callable[[], Received]
        self._waiting: Callable[[], Received]
        self._arrived: list[Received] = []
        self.left_over: bytes | None = None
        """A packet that a signal handler came between."""
        self._brought: Received | None = None  # what came with it, if descriptors did

    @property
    def is_busy(self) -> bool:
        """Whether a packet has come and is not taken yet."""
        return bool(self._arrived)

    def _receive_into(self, room: _Room) -> None:
        """Receive into a buffer: that of this thread, which all that it reads share, for each channel would need one.

        Or into one of its own, if a signal handler or a finalizer reads while its thread is in the middle of a packet.
        """
        self._thread = -1  # as long as a signal handler may come between
        self._room = room
        self._buffer = room.buffer
        self._at_once = ancillary.receiver(self._sock, self._buffer)
        self._waiting = ancillary.waiting_receiver(self._sock, self._buffer)
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """Leave the socket as it was, to be passed on: another program may wait for as long as it likes."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 0))

    def read(self, *, waits: bool = False) -> tuple[Work | None, bool]:  # noqa: C901 - one step for signal handlers
        """Take one packet; return what is to be done, and whether there was one.

        Args:
            waits: whether to wait for one, if the socket is not non-blocking.
        """
        if self.left_over is not None:
            return self.read_again(), True
        if self._thread != threading.get_ident():
            self._receive_into(_room_here())
        if self._room.reading is not None and self._room.reading is not self:
            self._receive_into(_Room(memoryview(bytearray(BUFFER_BYTES))))
        room = self._room
        arrived, receive = self._arrived, self._waiting if waits else self._at_once
        room.reading = self
        try:
            try:
                # In one step for signal handlers: what comes with a packet is in here before one can raise.
                arrived.extend(itertools.starmap(receive, _ONCE))
            except OSError as exc:
                if is_of_handler(exc):
                    raise
                return None, self._taker.receive_failed(exc)
            size, control, flags, _address = arrived[0]
            if control or flags != WHOLE or not size:
                if ancillary.numbers_in(control):
                    with Uninterrupted():
                        arrived.clear()
                        return self._take(size, control, flags, bytes(self._buffer[:size])), True
                work = self._take(size, control, flags, bytes(self._buffer[:size]))
                arrived.clear()
                return work, True
            work = self._taker.take_plain(bytes(self._buffer[:size]))
            arrived.clear()
        except BaseException:
            if arrived:
                try:
                    self._interrupted()
                except BaseException:  # a second signal handler, which may have come before it began
                    self._interrupted()
                    raise
            raise
        finally:
            room.reading = None
        return work, True

    def must_wait(self, seconds: float) -> bool:
        """Return whether the next packet has to wait, because too many descriptors of its sender are not closed yet.

        Ask as long as :data:`~seqrpc.kernel.closing.CLOSER` is careful.

        Args:
            seconds: how long to wait at most until it may come.
        """
        try:
            _came, brings, sender = ancillary.peek(self._sock, names_senders=self._inbox.names_senders)
        except OSError:  # whoever receives will see
            return False
        uid = self._inbox.uid if sender is None else sender.uid
        if not brings or CLOSER.has_room(uid):
            return False
        is_free = _thread.allocate_lock()
        is_free.acquire()
        try:
            if not CLOSER.has_room(uid, self, functools.partial(_release, is_free)) and seconds > 0:
                is_free.acquire(timeout=seconds)
        finally:
            CLOSER.forget(self)
        return not CLOSER.has_room(uid)

    def read_again(self) -> Work | None:
        """Take the packet that a signal handler came between."""
        data = self.left_over
        assert data is not None
        try:
            if self._brought is None:
                work = self._taker.take_plain(data)
            else:
                with Uninterrupted():
                    (size, control, flags, _address), self._brought, self.left_over = self._brought, None, None
                    return self._take(size, control, flags, data)
            self.left_over = None
        except BaseException:
            if self.left_over is not None and self._brought is None:
                self._decide(data)
            raise
        return work

    def drop(self) -> None:
        """Let go of a packet that is left over, and close what came with it."""
        brought, self._brought, self.left_over = self._brought, None, None
        for number in () if brought is None else ancillary.numbers_in(brought[1]):
            close_number(number)

    def _take(self, size: int, control: ancillary.Control, flags: int, data: bytes) -> Work | None:
        """Take what came with more than a packet, or in place of one."""
        fds: list[OwnedFd] = []
        size, sender, trouble = self._inbox.take(size, control, flags, fds)
        if trouble is not None and trouble is not Trouble.DESCRIPTORS_LOST:
            self._taker.take_trouble(trouble, size)
            return None
        return self._taker.take_packet(data[:size], fds, sender, lost=trouble is not None)

    def _interrupted(self) -> None:
        """Clean up after a signal handler that raised between receiving a packet and its end.

        An answer is taken again, if nobody may have missed it. Of anything else it is not known how far it got.
        """
        with Uninterrupted():
            if not self._arrived:
                return
            received = size, control, flags, _address = self._arrived.pop()
            data = bytes(self._buffer[: min(size, MAX_PACKET)])
            if ancillary.numbers_in(control):  # it was not begun, for handlers are put off then
                self._brought, self.left_over = received, data
            elif not control and flags == WHOLE and size:
                self._decide(data)
            else:
                self._taker.end_by(ConnectionLost(_INTERRUPTED))

    def _decide(self, data: bytes) -> None:
        """Decide what becomes of an answer that a signal handler came between."""
        self.left_over = data if self._taker.take_again(data) else None
        if self.left_over is None:
            self._taker.end_by(ConnectionLost(_INTERRUPTED))
