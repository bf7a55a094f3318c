"""Packets on an event loop: a transport and protocol pair in asyncio's manner, useful without the RPC above it.

asyncio's and uvloop's own transports refuse ``SOCK_SEQPACKET``; this one needs only ``add_reader`` and
``add_writer`` of them. One ``send_packet`` is one ``packet_received`` at the other end, or none.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from seqrpc.aio.gate import Gate
from seqrpc.aio.places import wrong_process
from seqrpc.aio.shares import NOBODYS, TURN_SECONDS, share_of
from seqrpc.errors import ConnectionLost, RemoteProtocolError
from seqrpc.kernel import ancillary, forks, sockets
from seqrpc.kernel.ancillary import SEND_FLAGS, WHOLE, Received
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all, received_fd
from seqrpc.kernel.pieces import Content, Pieces
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.logs import get_logger, tell_loop

_log = get_logger("seqrpc.transport")

_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNABORTED, errno.EBADF})
_PASSING = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})

_TOO_LONG = frozenset({errno.EMSGSIZE, errno.ENOBUFS})

_SHORT = 64
"""Bytes up to which making a packet shorter would not help."""

_LONE_WAKEUPS = 8
"""Wake-ups without a second read after one that found a single packet: the read that finds nothing costs 1 µs."""

_WAKEUP_BYTES = 32_768
"""Received bytes after which a wake-up ends: the largest packets take so long to look at that 64 would be a stall."""

_RETRY_DELAY = 0.01
"""Seconds until a queued packet is tried again that the kernel had no room for."""

_NOTHING_QUEUED: Final[deque[_Queued]] = deque(maxlen=0)
"""Stands for a queue until a packet has to wait, which on most connections none ever does: a deque has 760 bytes."""

_monotonic: Final = time.monotonic
_thread = threading.local()


def receive_buffer() -> memoryview:
    """Return this thread's receive buffer: what is read is copied out before anything else runs."""
    buffer: memoryview | None = getattr(_thread, "buffer", None)
    if buffer is None:
        buffer = _thread.buffer = memoryview(bytearray(MAX_PACKET + 1))
    return buffer


class SeqpacketProtocol(asyncio.BaseProtocol):
    """What a :class:`SeqpacketTransport` calls. Override what you need; none of it may block.

    ``connection_made``, ``connection_lost``, ``pause_writing`` and ``resume_writing`` are asyncio's.
    """

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:  # noqa: ARG002
        """Take one packet.

        Args:
            data: 1 to 65,536 bytes.
            fds: 0 to 253 descriptors, close-on-exec; from here on they are this protocol's to close.
            credentials: who sent it: on a socket pair the packet's true sender, else whoever made the
                connection (protocol section 9); None if the kernel does not say.
        """
        close_all(fds)

    def descriptors_lost(self, data: bytes, credentials: Credentials | None) -> bool:  # noqa: ARG002
        """Take a packet some of whose descriptors were lost on the way (``MSG_CTRUNC``); the others are closed.

        Returns:
            True to go on; False, as here, aborts the connection.
        """
        return False

    def packet_truncated(self, size: int) -> bool:  # noqa: ARG002
        """Hear of a packet of more than 65,536 bytes (``size``, where the kernel tells it): it is lost.

        Returns:
            True if the protocol ends the connection in its own way; False, as here, aborts it.
        """
        return False

    def packet_too_long(self, data: Content) -> tuple[bytes, OwnedFd] | None:  # noqa: ARG002
        """Say what to send in place of a packet that is longer than 65,536 bytes, or than the kernel takes.

        Returns:
            A short packet and a descriptor to go before its others, which the transport closes; or None, as
            here: ``send_packet`` raises.

        Raises:
            OSError: it cannot be made; ``send_packet`` raises that.
        """
        return None

    def eof_received(self) -> None:
        """Hear that the peer closed, or sent an empty packet; the connection is lost next."""


class SeqpacketTransport(asyncio.ReadTransport):
    """A connected SEQPACKET socket on an event loop.

    Made by :func:`seqrpc.create_connection` and :class:`SeqpacketServer`. Use it from its loop's thread.
    It has what :class:`asyncio.Transport` has, with ``send_packet`` in place of a stream's ``write``.
    ``get_extra_info`` knows ``socket``, ``sockname``, ``peername``, ``credentials`` (who connected, or who
    listens; None on a socket pair, where each packet tells) and ``connected_uid`` (whose connection it is, also where
    each packet tells; on a pair, who made it; None if the kernel does not say).

    Args:
        loop: the running loop.
        sock: a connected socket; the transport owns it.
        protocol: whom to tell.
        limits: ``max_packets_per_wakeup``, ``high_water_bytes`` and ``low_water_bytes`` are used.
        names_senders: whether each packet tells who sent it, as on a socket pair; by default that is
            found out from the socket's names, which whoever made it may have chosen.
    """

    __slots__ = (
        "__weakref__", "_arrived", "_awake_until", "_broken", "_buffer", "_busy_poll_timeout", "_closing",
        "_credentials", "_fd", "_forked", "_gate", "_high", "_lone_wakeups", "_loop", "_lost", "_low",
        "_names_senders", "_packets", "_protocol", "_queue", "_queued_bytes", "_reading", "_receive", "_round",
        "_send", "_send_room", "_sends_at_once", "_share", "_sock", "_takes_descriptors", "_writing",
        "_writing_paused",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: SeqpacketProtocol,
        limits: Limits = DEFAULT_LIMITS,
        *,
        names_senders: bool | None = None,
    ) -> None:
        """Own the socket and begin reading; ``connection_made`` is called before this returns."""
        self._names_senders = sockets.names_senders(sock) if names_senders is None else names_senders
        self._credentials: Credentials | None = None
        peer = PLATFORM.peer_credentials(sock)
        if self._names_senders:
            PLATFORM.ask_for_senders(sock)
        else:
            self._credentials = peer
        if sock.gettimeout():  # Python would wait for packets, for so long, before it asks the kernel
            sock.setblocking(False)
        uid = None if peer is None else peer.uid
        names = {"sockname": sock.getsockname(), "peername": sock.getpeername(), "connected_uid": uid}
        super().__init__({"socket": sock, "credentials": self._credentials, **names})
        self._loop = loop
        self._sock = sock
        self._send = sock.send
        self._send_room = sockets.SendRoom(sock)
        self._fd = sock.fileno()
        self._protocol = protocol
        self._buffer = receive_buffer()
        self._share = share_of(uid)
        self._round = self._share.round  # in which it was admitted last
        self._takes_descriptors = self._names_senders or PLATFORM.takes_descriptors(sock)
        make_receiver = ancillary.receiver if self._takes_descriptors else ancillary.plain_receiver
        self._receive = make_receiver(sock, self._buffer)
        self._gate: Gate | None = None  # made when it is needed first
        self._arrived: tuple[Received | OSError, bytes] | None = None  # from there, while reading is paused
        self._packets = range(limits.max_packets_per_wakeup)
        self._high, self._low = limits.high_water_bytes, limits.low_water_bytes
        self._queue = _NOTHING_QUEUED
        self._queued_bytes = 0
        self._writing = self._writing_paused = False  # whether the loop watches for room, and the protocol was told
        self._reading = self._closing = self._lost = False
        self._sends_at_once = True  # nothing waits, and neither end has begun to close
        self._broken: OSError | None = None  # why nothing can be sent any more; what was sent to us is still read
        self._lone_wakeups = 0
        self._busy_poll_timeout = limits.busy_poll_timeout
        self._awake_until = 0.0  # while the loop is kept awake
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, SeqpacketTransport._let_go_in_child)
        self.resume_reading()
        try:
            protocol.connection_made(self)
        except BaseException:  # nobody hears of this connection: its maker closes the socket
            self._stop_reading()
            self._closing = self._lost = True
            self._sends_at_once = False
            self._share = NOBODYS
            self._drop_queue()
            raise

    # Reading

    def is_reading(self) -> bool:
        """Return whether packets are being received."""
        return self._reading

    def pause_reading(self) -> None:
        """Stop receiving: not one more packet is read. The kernel then makes the peer wait.

        A connection over which nothing can be sent any more ends here: nothing else would tell of its end.
        """
        if self._reading:
            self._stop_reading()
            if self._broken is not None:
                self._lose(self._broken)

    def resume_reading(self) -> None:
        """Receive again; does nothing on a closing transport."""
        if not self._reading and not self._closing:
            self._reading = True
            if self._arrived is not None:
                self._loop.call_soon(self._read_elsewhere, *self._arrived)
            elif self._gate is None or not self._gate.shut:
                self._watch_readable()

    def _watch_readable(self) -> None:
        self._loop.add_reader(self._fd, self._read_awake if self._busy_poll_timeout else self._read_ready)

    def end_wakeup(self) -> None:
        """Let others on the loop go on after the packet that is being received: it was much work."""
        self._lone_wakeups = max(1, self._lone_wakeups)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _read_ready(self) -> None:  # noqa: C901 - the hottest place of all: a function of its own for a part costs
        """Read what is there, up to three bounds; alone packets are read one a wake-up."""
        share = self._share  # a connection that ends meanwhile has it no more
        if (CLOSER.careful or share.crowded) and not self._may_receive():
            return
        taken, receive = 0, self._receive
        began = now = _monotonic()
        until = 0.0
        for received in self._packets:
            try:
                size, control, flags, _address = receive()
            except OSError as exc:
                if self._receive_failed(exc, received):
                    continue
                break
            fds: list[OwnedFd] = []
            sender = self._credentials
            if control or flags != WHOLE or not size:
                size, sender = self._take_control(size, control, flags, fds)
            if size:
                try:  # as in _give_packet
                    self._protocol.packet_received(self._buffer[:size].tobytes(), fds, sender)
                except Exception as exc:
                    close_all(fds)
                    self._fail(exc, "the protocol's packet_received failed")
            now = _monotonic()
            if self._lone_wakeups:
                self._lone_wakeups -= 1
                break
            taken += size
            until = until or share.until(began)
            if now >= until or taken >= _WAKEUP_BYTES or not self._reading:
                break
        share.used += now - began  # as charge does
        if share.used >= share.look_at:
            share.look(self._loop)

    def _read_awake(self) -> None:
        """Read what is there, and keep the loop from sleeping for a while: the next packet may be near."""
        self._read_ready()
        if not self._awake_until:
            self._loop.call_soon(self._stay_awake)
        self._awake_until = time.monotonic() + self._busy_poll_timeout

    def _stay_awake(self) -> None:
        if self._reading and time.monotonic() < self._awake_until:
            self._loop.call_soon(self._stay_awake)  # with something to call, the loop looks for events and never waits
        else:
            self._awake_until = 0.0

    def _take_control(
        self, size: int, control: list[tuple[int, int, bytes]], flags: int, fds: list[OwnedFd]
    ) -> tuple[int, Credentials | None]:
        """Take what came besides a packet; return its size, or 0 if nothing is left to do for it, and who sent it."""
        size, sender, lost = ancillary.take_control(size, control, flags, len(self._buffer), fds, uid=self._peer_uid())
        if CLOSER.careful:
            self.end_wakeup()
        if not self._names_senders:
            sender = self._credentials
        elif PLATFORM.credentials_come_once:
            sender = self._credentials = sender or self._credentials
        if lost or not 0 < size <= MAX_PACKET:
            close_all(fds)
            self._rare_packet(size, sender)
            return 0, sender
        return size, sender

    def _may_receive(self) -> bool:
        """Return whether a packet may be received in the ordinary way; if not, reading goes on later by itself."""
        if self._share.crowded:
            if not self._share.admits(self._round, self._loop):
                return False
            self._round = self._share.round
        if not CLOSER.careful or not self._takes_descriptors:
            return True
        if self._gate is None:
            self._gate = Gate(
                self._loop,
                self._sock,
                self._peer_uid(),
                names_senders=self._names_senders,
                reopened=self._read_on,
                arrived=self._read_elsewhere,
            )
        self.end_wakeup()
        if self._gate.is_open():
            return True
        self._loop.remove_reader(self._fd)
        return False

    def _peer_uid(self) -> int | None:
        return None if self._credentials is None else self._credentials.uid

    def _read_on(self) -> None:
        """Receive again, after there was no room for descriptors."""
        if self._reading:
            self._watch_readable()
            if self._broken is not None:
                self._read_rest()

    def _read_elsewhere(self, received: Received | OSError, data: bytes) -> None:
        """Take a packet that another thread received, as if it were received now, and go on."""
        if not self._reading:
            self._arrived = received, data
            return
        self._arrived = None
        if isinstance(received, OSError):
            self._receive_failed(received, 0)
        else:
            share, began = self._share, _monotonic()
            size, control, flags, _address = received
            self._buffer[: len(data)] = data
            fds: list[OwnedFd] = []
            size, sender = self._take_control(size, control, flags, fds)
            if size:
                self._give_packet(data, fds, sender)
            share.charge(_monotonic() - began, self._loop)
        self._read_on()

    def _give_packet(self, data: bytes, fds: list[OwnedFd], sender: Credentials | None) -> None:
        try:
            self._protocol.packet_received(data, fds, sender)
        except Exception as exc:
            close_all(fds)
            self._fail(exc, "the protocol's packet_received failed")

    def _read_rest(self) -> None:
        """Read what came before the connection broke. The loop need not call: there may be no end of file."""
        if self._reading and not (self._gate is not None and self._gate.shut):
            self._lone_wakeups = 0
            self._read_ready()
            self._loop.call_soon(self._read_rest)

    def _receive_failed(self, exc: OSError, received: int) -> bool:
        """Take a failure to receive; return whether to go on at once."""
        if isinstance(exc, BlockingIOError | InterruptedError):
            if self._broken is not None:  # everything that was sent to us is read
                self._lose(self._broken)
            elif received == 1:
                self._lone_wakeups = _LONE_WAKEUPS
            return False
        if exc.errno != errno.ECONNRESET or self._broken is not None:
            self._lose(exc)
            return False
        self._break(exc)  # it hides packets that came before (protocol 1.6)
        return self._reading

    def _rare_packet(self, size: int, sender: Credentials | None) -> None:
        """Tell the protocol of an end, of a packet that was cut, or of one whose descriptors were lost."""
        try:
            if size == 0:
                self._protocol.eof_received()
                self._lose(self._broken)
            elif size > MAX_PACKET:
                if not self._protocol.packet_truncated(size):
                    self._lose(RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size}"))
            elif not self._protocol.descriptors_lost(self._buffer[:size].tobytes(), sender):
                self._lose(OSError(errno.EMFILE, "descriptors were lost on the way in"))
        except Exception as exc:
            self._fail(exc, "the protocol failed")

    # Writing

    def send_packet(
        self,
        data: Content,
        fds: Sequence[HasFileno] = (),
        failed: Callable[[OSError], None] | None = None,
    ) -> None:
        """Send one packet now if the kernel takes it, else as soon as it does; never wait.

        ``fds`` are borrowed until this returns: those of a packet that must wait are duplicated. One that is too long
        goes as the protocol's :meth:`SeqpacketProtocol.packet_too_long` says.

        Args:
            data: 1 to 65,536 bytes.
            fds: up to 253 things with a descriptor; they are duplicated at the peer.
            failed: called, with the reason, if the packet had to wait and was then refused for a reason
                of its own, as by a peer that takes no descriptors; without it that ends the connection.

        Raises:
            ValueError: too few or too many bytes, too many descriptors, this connection's own, or one of
                ``fds`` has none to lend.
            ConnectionLost: the connection is closing or ended; nothing was sent.
            WrongProcess: this is a fork of the process that it belongs to; nothing was sent.
            OSError: the kernel refuses this packet, and takes others: ``EMSGSIZE``, ``ENOBUFS``,
                ``ETOOMANYREFS``, ``EPERM`` (:func:`seqrpc.kernel.ancillary.send`), ``EMFILE``.
        """
        if self._sends_at_once and not fds and 0 < len(data) <= MAX_PACKET:
            send = self._send  # an attribute that is called where it stands is looked up the long way (3.11)
            try:
                send(data, SEND_FLAGS)  # type: ignore[arg-type] # what comes in pieces is longer
                return
            except OSError:  # rare enough to be tried again, in the long way
                pass
        if self._closing or self._broken is not None:
            if self._forked:
                raise wrong_process("this transport")
            raise ConnectionLost("the connection is closed") from self._broken
        if isinstance(data, Pieces) or len(data) > MAX_PACKET:
            self._send_spilled(data, fds, failed)
        else:
            numbers, held = self._check(data, fds), _held_bytes(fds)
            self._send_numbers(_Queued(data, len(data) + held, failed, spilled=held > 0), numbers)

    def _send_spilled(self, data: Content, fds: Sequence[HasFileno], failed: Callable[[OSError], None] | None) -> None:
        spilled = self._protocol.packet_too_long(data)
        if spilled is None:
            raise ValueError(f"a packet has 1 to {MAX_PACKET} bytes, this one {len(data)}")
        packet, file = spilled
        with file:
            numbers = self._check(packet, (file, *fds))
            self._send_numbers(_Queued(packet, len(data) + _held_bytes(fds), failed, spilled=True), numbers)

    def _send_numbers(self, packet: _Queued, numbers: list[int]) -> None:
        """Send a packet with its descriptors, or queue it with duplicates of them."""
        if not self._queue:
            self._send_room.change(narrow=packet.spilled)
            try:
                ancillary.send(self._sock, packet.data, numbers)
                self._send_room.change(narrow=False)
                return
            except (BlockingIOError, InterruptedError):
                self._watch_writable()
            except OSError as exc:
                self._send_room.change(narrow=False)
                if exc.errno in _GONE and exc.errno != errno.EBADF:
                    self._break(exc)
                    raise ConnectionLost(f"nobody reads the connection any more: {exc.strerror}") from exc
                spilled = self._spill_refused(packet, exc, len(numbers))
                if spilled is None:
                    raise
                with spilled:
                    self._send_numbers(packet, [spilled.fileno(), *numbers])
                return
        self._enqueue(packet, numbers)

    def _spill_refused(self, packet: _Queued, exc: OSError, fds: int) -> OwnedFd | None:
        """Make a packet short that the kernel finds too long; return what goes with it, None if nothing helps."""
        if exc.errno not in _TOO_LONG or len(packet.data) <= _SHORT or fds == MAX_DESCRIPTORS:
            return None
        spilled = self._protocol.packet_too_long(packet.data)
        if spilled is None:
            return None
        packet.data, file = spilled
        packet.spilled = True
        return file

    def _check(self, data: bytes | memoryview, fds: Sequence[HasFileno]) -> list[int]:
        if not 0 < len(data) <= MAX_PACKET:
            raise ValueError(f"a packet has 1 to {MAX_PACKET} bytes, this one {len(data)}")
        if len(fds) > MAX_DESCRIPTORS:
            raise ValueError(f"a packet carries at most {MAX_DESCRIPTORS} descriptors, this one {len(fds)}")
        numbers = [_number_of(fd) for fd in fds]
        if self._fd in numbers:
            raise ValueError("a connection's own socket cannot be sent over it")  # only the kernel could ever free it
        return numbers

    def _enqueue(self, packet: _Queued, numbers: Sequence[int]) -> None:
        try:
            for number in numbers:
                # It may be one that somebody else sent, and be the last of it.
                packet.fds.append(received_fd(os.dup(number), self._peer_uid()))
        except OSError:
            close_all(packet.fds)
            if not self._queue:
                self._send_room.change(narrow=False)
                self._unwatch_writable()
            raise
        if self._queue is _NOTHING_QUEUED:
            self._queue = deque()
        self._queue.append(packet)
        self._sends_at_once = False
        self._queued_bytes += packet.weight
        self._check_high_water()

    def _check_high_water(self) -> None:
        if self._queued_bytes > self._high and not self._writing_paused:
            self._writing_paused = True
            self._call_protocol("pause_writing")

    def _write_ready(self) -> None:
        """Send what waits, until the kernel takes no more, or others on the loop have waited long enough."""
        until = _monotonic() + TURN_SECONDS
        while self._queue and _monotonic() < until:
            packet = self._queue[0]
            self._send_room.change(narrow=packet.spilled)
            try:
                ancillary.send(self._sock, packet.data, [fd.fileno() for fd in packet.fds])
            except (BlockingIOError, InterruptedError):
                break
            except OSError as exc:
                if exc.errno in _GONE:
                    self._break(exc)
                    return
                if not self._spill_queued(packet, exc) and not self._refuse_queued(packet, exc):
                    break
            else:
                self._dequeue()
        if self._writing_paused and self._queued_bytes <= self._low:
            self._writing_paused = False
            self._call_protocol("resume_writing")
        if not self._queue:
            self._send_room.change(narrow=False)
            self._unwatch_writable()
            if self._closing and not self._lost:
                self._finish_soon(None)

    def _spill_queued(self, packet: _Queued, exc: OSError) -> bool:
        """Make a queued packet short, in its place, if the kernel finds it too long; return whether it is now."""
        try:
            file = self._spill_refused(packet, exc, len(packet.fds))
        except OSError:  # it is refused for the first reason
            return False
        if file is not None:
            packet.fds.insert(0, file)
        return file is not None

    def _refuse_queued(self, packet: _Queued, exc: OSError) -> bool:
        """Drop a queued packet that the kernel refuses; return False if it is to be tried again later instead."""
        if exc.errno in _PASSING:
            self._unwatch_writable()
            self._loop.call_later(_RETRY_DELAY, self._write_again)
            return False
        self._dequeue()
        self._refuse(packet, exc)
        return True

    def _write_again(self) -> None:
        if self._queue and not self._lost:
            self._watch_writable()

    def _watch_writable(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._write_ready)

    def _unwatch_writable(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _dequeue(self) -> None:
        packet = self._queue.popleft()
        self._queued_bytes -= packet.weight
        self._sends_at_once = not self._queue and not self._closing and self._broken is None
        close_all(packet.fds)

    def _refuse(self, packet: _Queued, exc: OSError) -> None:
        if packet.failed is None:
            self._lose(exc)
            return
        try:
            packet.failed(exc)
        except Exception as failure:
            self._fail(failure, "the callback of a packet that was not sent failed")

    def _break(self, exc: OSError) -> None:
        """Give up sending. What the peer had sent before it went away is still to be read."""
        self._broken = exc
        self._sends_at_once = False
        self._drop_queue()
        if not self._reading:
            self._lose(exc)
            return
        self._loop.call_soon(self._read_rest)
        if self._writing_paused:  # nothing else would end it: the protocol may send, and hear that it is over
            self._writing_paused = False
            self._call_protocol("resume_writing")

    def _drop_queue(self) -> None:
        self._unwatch_writable()
        while self._queue:
            self._dequeue()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait to be sent."""
        return self._queued_bytes

    def get_write_buffer_packets(self) -> int:
        """Return the packets that wait to be sent."""
        return len(self._queue)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high water mark in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks in bytes: above ``high`` ``pause_writing`` is called, at ``low`` ``resume_writing``.

        Raises:
            ValueError: not ``0 <= low <= high``.
        """
        if high is None:
            high = DEFAULT_LIMITS.high_water_bytes if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"water marks must be 0 <= low <= high, got low {low} and high {high}")
        self._low, self._high = low, high
        self._check_high_water()

    # Ending

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Stop receiving, send what waits, then close; ``connection_lost(None)`` is called at the end.

        What the peer sent and nobody read is thrown away first, so that the peer is not reset.
        """
        if self._closing:
            return
        self._stop_reading()
        self._closing = True
        self._sends_at_once = False
        if not self._queue:
            self._finish_soon(None)

    def abort(self) -> None:
        """Close at once; what waits is not sent."""
        self._lose(None)

    def detach(self) -> socket.socket | None:
        """Give the socket back, owned by the caller, and end without telling the protocol; None if packets wait."""
        if self._queue or self._closing or self._broken is not None:
            return None
        self._stop_reading()
        self._closing = self._lost = True
        self._sends_at_once = False
        self._share = NOBODYS
        return self._sock

    def _let_go_in_child(self) -> None:
        """Be closed, without a word to anybody: this is a copy in a forked child.

        What a loop that was inherited may still call does nothing, and asks nothing of that loop.
        """
        self._forked = self._closing = self._lost = True
        self._sends_at_once = self._reading = self._writing = self._writing_paused = False
        self._packets = range(0)
        self._share = NOBODYS
        self._send_room.narrow = False
        while self._queue:
            close_all(self._queue.popleft().fds)
        self._queued_bytes = 0
        self._sock.close()

    def _lose(self, exc: Exception | None) -> None:
        """End now."""
        if self._lost:
            return
        self._stop_reading()
        self._closing = True
        self._sends_at_once = False
        self._drop_queue()
        self._finish_soon(exc)

    def _finish_soon(self, exc: Exception | None) -> None:
        self._lost = True
        self._share = NOBODYS
        self._loop.call_soon(self._finish, exc)

    def _finish(self, exc: Exception | None) -> None:
        if self._forked:
            return
        try:
            self._protocol.connection_lost(exc)
        except Exception as failure:
            self._tell_loop(failure, "the protocol's connection_lost failed")
        finally:
            self._close_socket(discard=exc is None)

    def _close_socket(self, *, discard: bool) -> None:
        if self._gate is not None and self._gate.leave():
            return
        if self._arrived is not None and not isinstance(self._arrived[0], OSError):
            fds: list[OwnedFd] = []
            size, control, flags, _address = self._arrived[0]
            ancillary.take_control(size, control, flags, len(self._buffer), fds, uid=self._peer_uid())
            close_all(fds)
        close_unread(self._sock, self._peer_uid(), discard=discard)

    def _fail(self, exc: Exception, message: str) -> None:
        self._tell_loop(exc, message)
        self._lose(exc)

    def _tell_loop(self, exc: Exception, message: str) -> None:
        told = {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        tell_loop(self._loop, _log, told)

    def _call_protocol(self, name: str) -> None:
        try:
            getattr(self._protocol, name)()
        except Exception as exc:
            self._fail(exc, f"the protocol's {name} failed")

    def get_protocol(self) -> SeqpacketProtocol:
        """Return whom this transport tells."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another protocol from now on.

        Raises:
            TypeError: it is no :class:`SeqpacketProtocol`.
        """
        if not isinstance(protocol, SeqpacketProtocol):
            raise TypeError(f"a SeqpacketProtocol was expected, got {type(protocol).__name__}")
        self._protocol = protocol

    def __repr__(self) -> str:
        """Return the state and the descriptor."""
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<SeqpacketTransport {state} fd={self._fd} queued={self._queued_bytes}>"


class _Queued:
    """A packet that may have to wait, and the duplicates of its descriptors, which it then owns."""

    __slots__ = ("data", "failed", "fds", "spilled", "weight")

    def __init__(
        self,
        data: bytes | memoryview,
        weight: int,
        failed: Callable[[OSError], None] | None,
        *,
        spilled: bool = False,
    ) -> None:
        self.data = data
        self.spilled = spilled  # memory files go with it
        self.weight = weight  # bytes that it keeps in memory, those of its memory file included
        self.fds: list[OwnedFd] = []
        self.failed = failed


def _held_bytes(fds: Sequence[HasFileno]) -> int:
    """Return how much memory leaves with a packet, uncounted by the kernel."""
    return sum(len(fd) for fd in fds if isinstance(fd, Buffer))


def _number_of(lender: HasFileno) -> int:
    """Return the descriptor of what lends one; that it has none is no failure of the connection's socket."""
    try:
        number = lender.fileno()
    except OSError as exc:  # io.UnsupportedOperation is one
        raise ValueError(f"{type(lender).__name__} has no descriptor to send: {exc}") from exc
    if number < 0:  # as a closed socket says
        raise ValueError(f"{type(lender).__name__} has no descriptor to send: it is closed")
    return number
