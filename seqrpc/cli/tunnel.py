"""Packets of a connection, of its streams and of its objects, carried through a pair of pipes: those of ``ssh``.

Each socket has two threads here. One takes packets from it and puts them into the pipe, as many as the other side has
room for; one takes what came through the pipe and puts it into the socket, and tells the other side that there is room
again. So a stream that nobody reads holds up its producer, as it does without a tunnel, and nothing else.
:mod:`seqrpc.cli.room` bounds the bytes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from typing import Final

from seqrpc.cli.endings import FAILED, STATUSES, Ending
from seqrpc.cli.frames import (
    MOST_BYTES,
    BrokenTunnel,
    Brought,
    Frame,
    Kind,
    Memory,
    Socket,
    beginning_of,
    framed,
    instead_of,
    is_spilled,
    packed,
    read_frame,
    reader_of,
    streams_in,
    unpacked,
    with_clock,
)
from seqrpc.cli.packets import Packet, content_of, send, size_of, streams_of
from seqrpc.cli.room import Account, Held, Room, wait_taken
from seqrpc.kernel import ancillary, memfd
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.sockets import is_connected_seqpacket, socket_pair
from seqrpc.limits import MAX_PACKET

WINDOW: Final = 64
"""Packets of one channel that may be under way."""

_MOST_CHANNELS: Final = 4_096

_SIZE: Final = 8

_CREDIT: Final = 4

_BEGINNING: Final = 16
"""Bytes of a message that tell what it is."""

_SOCKET: Final = 5
"""Bytes of a frame for each descriptor that is a channel."""

_MEMORY: Final = 9
"""And besides its content for each that is memory."""


class _Channel:
    """A socket at this end of a tunnel.

    Args:
        tunnel: what carries its packets.
        number: its number, the same at both ends.
        sock: the socket, owned.
        is_stream: whether it is a stream's, and not a connection's.
    """

    def __init__(self, tunnel: Tunnel, number: int, sock: socket.socket, *, is_stream: bool) -> None:
        self._tunnel = tunnel
        self.number = number
        self._sock = sock
        self._is_stream = is_stream
        self.account = Account(is_stream=is_stream)
        self._room = threading.Semaphore(WINDOW)
        self._came: queue.Queue[Packet | None] = queue.Queue()
        self._has_ended = False  # the other side has said so
        self._running = 2
        self._is_over = False
        self._puts_no_more = False
        self._lock = threading.Lock()
        sock.setblocking(True)

    def begin(self) -> None:
        """Carry from now on."""
        for work in (self._take, self._put):
            threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def abandon(self) -> None:
        """Carry nothing ever."""
        self._sock.close()
        self._tunnel.ended(self.number)

    def _run(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except (OSError, BrokenTunnel):
            pass  # of this channel no more comes, which the other side is told
        finally:
            self._is_over = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._came.put(None)
            self._room.release()
            self._tunnel.room.leave(self.account)
            with self._lock:
                self._running -= 1
                is_last = not self._running
            if is_last:
                self._sock.close()
                self._tunnel.ended(self.number)

    def _drop_what_came(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                packet = self._came.get_nowait()
                if packet is not None:
                    self._let_go(packet)

    def _let_go(self, packet: Packet) -> None:
        close_all(packet.fds)
        self._tunnel.held.give(packet.size, is_stream=self._is_stream)

    def came(self, packet: Packet | None) -> None:
        """Take a packet that came through the pipe, or the end.

        Raises:
            BrokenTunnel: there are more than the other side was told that there is room for.
        """
        if packet is not None and self._came.qsize() > WINDOW:
            self._let_go(packet)
            raise BrokenTunnel("it sent more packets than there is room for")
        if packet is None and self._has_ended:
            return
        self._has_ended |= packet is None
        self._came.put(packet)
        if self._puts_no_more:
            self._drop_what_came()

    def credit(self, content: bytes) -> None:
        """Hear how many packets were taken at the other side.

        Raises:
            BrokenTunnel: it is no such number.
        """
        number = _credit_in(content)
        self._tunnel.room.credit(self.account, number)
        self._room.release(number)

    # From the socket to the pipe

    def _take(self) -> None:
        buffer = memoryview(bytearray(MAX_PACKET + 1))
        receive = ancillary.waiting_receiver(self._sock, buffer)
        while True:
            self._room.acquire()
            if self._is_over:
                return
            fds: list[OwnedFd] = []
            try:
                size, control, flags, _address = receive()
            except ConnectionResetError:  # once, ahead of what was sent earlier
                size, control, flags, _address = receive()
            size, _sender, lost = ancillary.take_control(size, control, flags, len(buffer), fds)
            try:
                if not 0 < size <= MAX_PACKET or lost:
                    return
                self._send(bytes(buffer[:size]), fds)
            finally:
                close_all(fds)

    def _send(self, message: bytes, fds: list[OwnedFd]) -> None:
        sizes = [size_of(fd) for fd in fds]
        size = 1 + len(message) + sum(_SOCKET if each is None else _MEMORY + each for each in sizes)
        is_whole = not (sizes and sizes[0] is not None and is_spilled(message))
        can_cross = size <= MOST_BYTES and all(
            each is not None or is_connected_seqpacket(fd) for fd, each in zip(fds, sizes, strict=True)
        )
        if can_cross and not self._tunnel.room.wait(self.account, size):
            return
        if not can_cross:
            begins = message if is_whole else beginning_of(message, memfd.read(fds[0], 0, _BEGINNING))
            self._replace(begins, is_too_large=size > MOST_BYTES)
            return
        whole = message if is_whole else content_of(fds[0])
        if not self._is_stream and self._tunnel.ahead:
            whole = with_clock(whole, self._tunnel.ahead)
        first = 0 if is_whole else 1
        streams = streams_in(whole) if None in sizes else set()
        brought: list[Brought] = []
        opened: list[_Channel] = []
        try:
            for index, (fd, each) in enumerate(zip(fds, sizes, strict=True)):
                if each is None:
                    sock = socket.socket(fileno=fd.detach())
                    opened.append(self._tunnel.open(sock, is_stream=index - first in streams))
                    brought.append(Socket(opened[-1].number))
                else:
                    brought.append(Memory(whole if index < first else content_of(fd)))
            self._tunnel.write(framed(Kind.PACKET, self.number, packed(whole if is_whole else message, brought)))
        except BaseException:
            for channel in opened:
                channel.abandon()
            raise
        for channel in opened:  # what they carry has to come after what brings them
            channel.begin()

    def _replace(self, message: bytes, *, is_too_large: bool) -> None:
        instead = instead_of(message, is_stream=self._is_stream, is_too_large=is_too_large)
        if instead.back is not None:
            self._room.release()
            send(self._sock, instead.back, [])
        if instead.onwards is not None:
            packet = packed(instead.onwards, [])
            if self._tunnel.room.wait(self.account, len(packet)):
                self._tunnel.write(framed(Kind.PACKET, self.number, packet))
        if self._is_stream:
            raise BrokenTunnel("the stream has ended")

    # From the pipe to the socket

    def _put(self) -> None:
        try:
            while (packet := self._came.get()) is not None:
                try:
                    send(self._sock, packet.message, [fd.fileno() for fd in packet.fds])
                    close_all(packet.fds)
                    if packet.has_memory:
                        wait_taken(self._sock)
                finally:
                    self._let_go(packet)
                self._tunnel.write(framed(Kind.CREDIT, self.number, (1).to_bytes(_CREDIT, "big")))
        finally:
            self._puts_no_more = True
            self._drop_what_came()  # before the other side hears that there is room for more
            self._tunnel.write(framed(Kind.END, self.number))


class Tunnel:
    """Both pipes of one end, and the channels through them.

    Args:
        incoming: where frames come from, lent.
        outgoing: where they go, lent.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        """Carry nothing yet."""
        self._read = reader_of(incoming)
        self._outgoing = outgoing
        self._lock = threading.Lock()
        self._channels: dict[int, _Channel] = {}
        self._accounts: dict[int, Account] = {}
        """Of channels whose end the other side has not told; they may have ended here."""
        self.room = Room()
        self.held = Held()
        self.broken: BrokenTunnel | None = None
        """What was wrong with what came."""
        self._next = 2
        self.ahead = 0
        """Nanoseconds by which the clock of the other side is ahead of ours."""

    def connect(self) -> None:
        """Wait until the far side is connected.

        Raises:
            Ending: it cannot be.
            BrokenTunnel: no such program is there.
        """
        frame = read_frame(self._read)
        if frame is None:
            raise BrokenTunnel("it ended")
        if frame.kind is Kind.REFUSED and frame.content:
            status = frame.content[0] if frame.content[0] in STATUSES else FAILED
            raise Ending(status, frame.content[1:].decode(errors="backslashreplace"))
        if frame.kind is not Kind.READY or len(frame.content) != _SIZE:
            raise BrokenTunnel("it did not begin as 'seqrpc relay' does")
        self.ahead = int.from_bytes(frame.content, "big") - time.monotonic_ns()

    def carry(self, sock: socket.socket, *, is_far: bool) -> None:
        """Carry the packets of a connection until the pipe, or all that there is, ends.

        Args:
            sock: the connection's end that is here, owned.
            is_far: whether this is the side that connected.
        """
        if is_far:
            self._next = 1
            self.write(framed(Kind.READY, content=time.monotonic_ns().to_bytes(_SIZE, "big")))
        self._add(0, sock, is_stream=False).begin()
        try:
            while (frame := read_frame(self._read)) is not None:
                self._came(frame)
                if is_far and not self._channels:
                    return
        except BrokenTunnel as exc:
            self.broken = exc
        except (OSError, RuntimeError):  # the last where no thread can be started for a channel
            pass  # the connection ends, which its user is told
        finally:
            self.room.close()
            for channel in [*self._channels.values()]:
                with contextlib.suppress(BrokenTunnel):
                    channel.came(None)

    def _came(self, frame: Frame) -> None:
        channel = self._channels.get(frame.channel)
        if frame.kind is Kind.END and (account := self._accounts.pop(frame.channel, None)) is not None:
            self.room.settle(account)
        if channel is None:
            self._came_late(frame)
        elif frame.kind is Kind.PACKET:
            channel.came(self._packet(frame.content, is_stream=channel.account.is_stream))
        elif frame.kind is Kind.END:
            channel.came(None)
        elif frame.kind is Kind.CREDIT:
            channel.credit(frame.content)

    def _came_late(self, frame: Frame) -> None:
        """Hear of a channel that has ended here, of which the other side is hearing."""
        if frame.kind is Kind.CREDIT and (account := self._accounts.get(frame.channel)) is not None:
            self.room.credit(account, _credit_in(frame.content))

    def _packet(self, content: bytes, *, is_stream: bool) -> Packet:
        message, brought = unpacked(content)
        fds: list[OwnedFd] = []
        self.held.take(len(content), is_stream=is_stream)
        try:
            streams = streams_of(message, brought)
            for index, each in enumerate(brought):
                fds.append(self._made(each, is_stream=index in streams))
        except BaseException:
            close_all(fds)
            self.held.give(len(content), is_stream=is_stream)
            raise
        return Packet(message, fds, len(content), any(isinstance(each, Memory) for each in brought))

    def write(self, data: bytes) -> None:
        """Write a frame.

        Raises:
            OSError: nobody reads.
        """
        with self._lock, memoryview(data) as rest:
            written = 0
            while written < len(rest):
                written += os.write(self._outgoing, rest[written:])

    def hang_up(self, seconds: float) -> bool:
        """Write no more; return whether that could be done, for somebody may be writing."""
        if not self._lock.acquire(timeout=seconds):
            return False
        self._outgoing = -1  # so that whoever still writes meets no other file of that number
        self._lock.release()
        return True

    def open(self, sock: socket.socket, *, is_stream: bool) -> _Channel:
        """Return a channel for another socket, which is owned from now on; it is to begin."""
        with self._lock:
            number, self._next = self._next, self._next + 2
        return self._add(number, sock, is_stream=is_stream)

    def _made(self, brought: Brought, *, is_stream: bool) -> OwnedFd:
        """Return the descriptor that stands here for one of the other side's, owned by the caller.

        Raises:
            BrokenTunnel: it cannot be one.
        """
        if isinstance(brought, Memory):
            return memfd.sealed("seqrpc", brought.content)
        if (
            brought.channel in self._accounts
            or brought.channel in self._channels
            or brought.channel % 2 == self._next % 2
        ):
            raise BrokenTunnel("a channel with a number that is taken")
        ours, theirs = socket_pair()
        self._add(brought.channel, ours, is_stream=is_stream).begin()
        return OwnedFd(theirs.detach())

    def _add(self, number: int, sock: socket.socket, *, is_stream: bool) -> _Channel:
        if max(len(self._channels), len(self._accounts)) >= _MOST_CHANNELS:
            sock.close()
            raise BrokenTunnel(f"more than {_MOST_CHANNELS} streams and objects at once")
        channel = self._channels[number] = _Channel(self, number, sock, is_stream=is_stream)
        self._accounts[number] = channel.account
        return channel

    def ended(self, number: int) -> None:
        """Hear that a channel carries no more."""
        self._channels.pop(number, None)


def _credit_in(content: bytes) -> int:
    """Return how many packets were taken at the other side.

    Raises:
        BrokenTunnel: it is no such number.
    """
    number = int.from_bytes(content[:_CREDIT], "big")
    if len(content) != _CREDIT or not 0 < number <= WINDOW:
        raise BrokenTunnel("a credit that is none")
    return number


def refuse(outgoing: int, status: int, text: str) -> None:
    """Tell the near side that there is no connection, and why."""
    with contextlib.suppress(OSError):
        os.write(outgoing, framed(Kind.REFUSED, content=bytes([status]) + text.encode(errors="backslashreplace")))
