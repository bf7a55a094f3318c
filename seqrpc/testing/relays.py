"""One direction of a faulty pair: packets pass on the event loop, or something happens to them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from seqrpc.aio.places import runs_here
from seqrpc.kernel import ancillary
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.testing.faults import Packet, Rule, first_due
from seqrpc.testing.sockets import FaultySocket

_BUFFER_BYTES: Final = 1 << 18
"""More than a socket has room for: packets that are too long pass, too."""

_PACKETS_AT_ONCE: Final = 64


class Middle(Protocol):
    """What the two directions are of."""

    is_over: bool
    """Whether nothing passes any more, because the test said so."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that passes packets on."""
        ...

    def disconnect(self) -> None:
        """End the connection now."""
        ...

    def reset(self, unread: socket.socket) -> None:
        """End the connection with something unread in ``unread``."""
        ...

    def fail(self, exc: Exception) -> None:
        """End the connection because of a test's mistake."""
        ...


class Relay:
    """Passes packets on from one socket to another, on an event loop.

    Args:
        pair: what it is of.
        source: where packets come from.
        sink: where they go.
        sender: the end that sends to ``source``.
        receiver: the end that receives what goes to ``sink``.
    """

    def __init__(
        self, pair: Middle, source: socket.socket, sink: socket.socket, sender: FaultySocket, receiver: FaultySocket
    ) -> None:
        """Pass on nothing before :meth:`start`."""
        self.pair = pair
        """What it is of."""
        self._loop = pair.get_loop()
        self._source, self._sink, self._receiver = source, sink, receiver
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._rules: list[Rule] = []
        self._resets: list[Rule] = []
        self._refusals: dict[Rule, int] = {}
        self._holds: set[Rule] = set()
        self._queue: deque[tuple[bytes, list[OwnedFd], bool]] = deque()  # the last: whether it is cut
        self._came = self._sent = self._attempts = 0
        self._is_reading = self._is_writing = self._has_ended = False
        self._is_cut = False
        sender.ask(self, source)

    # What it is told

    def add(self, rule: Rule) -> None:
        """Look at each packet whether a rule takes it, after the rules that were added before."""
        self._rules.append(rule)

    def add_reset(self, rule: Rule) -> None:
        """End the connection with the packet unread that a rule takes."""
        self._resets.append(rule)

    def add_refusal(self, rule: Rule, number: int) -> None:
        """Let the sending of the packet fail that a rule takes."""
        self._refusals[rule] = number

    def hold(self, rule: Rule) -> None:
        """Pass on nothing until :meth:`let_go`."""
        self._holds.add(rule)
        self.soon(self._update)

    def cut(self) -> None:
        """Let the packet that is looked at arrive without its descriptors."""
        self._is_cut = True

    def let_go(self, rule: Rule) -> None:
        """Go on, unless something else holds what comes."""
        self._holds.discard(rule)
        self.soon(self._update)

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop: now, if this is its thread."""
        if runs_here(self._loop):
            function()
        else:
            self._loop.call_soon_threadsafe(function)

    def refusal_of(self, data: Any, descriptors: int) -> int | None:
        """Return the errno with which sending fails, negative if the kernel may be asked to refuse; or None."""
        self._attempts += 1
        if not self._refusals:
            return None
        packet = Packet(self._attempts, bytes(data), descriptors)
        rule = first_due(self._refusals, packet)
        if rule is None:
            return None
        number = self._refusals[rule]
        return -number if number == errno.EPERM and descriptors else number

    # What it does

    def start(self) -> None:
        """Pass on what comes."""
        self._update()

    def _update(self) -> None:
        """Read, and watch for room, only where that is wanted now."""
        if self._queue and not self._holds:
            self._flush()
        reads = not (self._holds or self._queue or self._has_ended)
        if reads is not self._is_reading:
            self._is_reading = reads
            if reads:
                self._loop.add_reader(self._source.fileno(), self._readable)
            else:
                self._loop.remove_reader(self._source.fileno())
        writes = bool(self._queue) and not self._holds
        if writes is not self._is_writing:
            self._is_writing = writes
            if writes:
                self._loop.add_writer(self._sink.fileno(), self._update)
            else:
                self._loop.remove_writer(self._sink.fileno())

    def _readable(self) -> None:
        for _ in range(_PACKETS_AT_ONCE):
            if not self._is_reading or not self._read_one():
                return

    def read_all(self) -> None:
        """Pass on all that is there, whatever holds it: the end is near."""
        self._holds.clear()
        self._rules.clear()
        self._resets.clear()
        self._flush()
        while not self._queue and not self._has_ended and self._read_one():
            pass

    def _read_one(self) -> bool:
        """Pass on one packet; return whether there may be another."""
        try:
            if self._resets and self._is_reset():
                return False
            size, control, flags, _address = ancillary.receive(self._source, self._buffer)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # once, ahead of what was sent before
            return True
        except OSError:
            size, control, flags = 0, [], 0
        fds: list[OwnedFd] = []
        size, _sender, lost = ancillary.take_control(size, control, flags, _BUFFER_BYTES, fds)
        if size == 0:
            close_all(fds)
            self._has_ended = True
            self._update()
            self._pass_end()
            return False
        if lost:  # this process has too many: the test goes wrong in another way than it wanted
            self.pair.fail(OSError(errno.EMFILE, "a faulty pair lost descriptors that passed through it"))
            return False
        self._take(self._buffer[:size].tobytes(), fds)
        return True

    def _is_reset(self) -> bool:
        """End the connection with the next packet unread, if a test has told so."""
        _came, brings, _sender = ancillary.peek(self._source, names_senders=False)
        size = self._source.recv_into(self._buffer, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        packet = Packet(self._came + 1, self._buffer[:size].tobytes(), int(brings))
        if not size or first_due(self._resets, packet) is None:
            return False
        self.pair.reset(self._source)
        return True

    def _take(self, data: bytes, fds: list[OwnedFd]) -> None:
        self._came += 1
        self._is_cut = False
        packet = Packet(self._came, data, len(fds))
        try:
            rule = first_due(self._rules, packet)
            passes = rule is None or rule.act()
        except Exception as exc:  # of a function of the test's
            close_all(fds)
            self.pair.fail(exc)
            return
        if not passes or self.pair.is_over:
            close_all(fds)
            return
        self._queue.append((data, fds, self._is_cut))
        self._update()

    def _flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._queue:
            data, fds, is_cut = self._queue[0]
            number = self._sent + 1
            if is_cut:
                self._receiver.cut(number)
            try:
                ancillary.send(self._sink, data, [fd.fileno() for fd in fds])
            except BlockingIOError:
                self._receiver.uncut(number)
                return
            except OSError:  # nobody reads any more; what came the other way before is still to be read
                self.drop_queue()
                self._has_ended = True
                shut(self._sink, socket.SHUT_WR)
                shut(self._source, socket.SHUT_RD)
                return
            self._sent = number
            self._queue.popleft()
            close_all(fds)
        if self._has_ended:
            self._pass_end()

    def _pass_end(self) -> None:
        """Let the receiver find the end, once it has read what was sent before."""
        if not self._queue:
            for sock in (self._sink, self._source):
                shut(sock)

    def drop_queue(self) -> None:
        """Let go of what waits."""
        while self._queue:
            close_all(self._queue.popleft()[1])

    def stop(self) -> None:
        """Pass on nothing more."""
        self._holds.clear()
        self.drop_queue()
        self._has_ended = True
        self._update()


def shut(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Let both sides of a socket find the end, or one."""
    with suppress(OSError):  # it is closed, or its other end
        sock.shutdown(how)
