"""What hostile callers do, by name: each attack is made of short steps. Those that are no floods are told here."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from benchmarks import raw
from benchmarks.callers import Attack, Bodies, Flood, request, spilled
from benchmarks.raw import BUFFER, DESCRIPTOR, STREAM, Files, Packet
from benchmarks.workloads import MIB

# Bodies of floods


def _fixed(data: Callable[[], bytes]) -> Bodies:
    """Return parameters that are the same each time."""

    def bodies(_files: Files) -> Callable[[], raw.Body]:
        body = raw.Body(b"\x91" + data())
        return lambda: body

    return bodies


def _new_strings(_files: Files) -> Callable[[], raw.Body]:
    """Return a map whose keys are new each time."""
    return lambda: raw.Body(b"\x91" + raw.string_keys(4_000))


def _new_meta(_files: Files) -> Callable[[], raw.Body]:
    """Return options with new metadata each time."""
    return lambda: raw.Body(raw.meta(3_500))


def _odd_holes(files: Files) -> Callable[[], raw.Body]:
    """Return a buffer of 64 MiB less a byte that begins at offset 1 of a memory file without a written page."""
    file = files.memory_file(b"", holes=64 * MIB)
    body = raw.Body(b"\x91" + raw.reference(BUFFER, 0, 1, 64 * MIB - 1), (file,))
    return lambda: body


# 6: descriptors whose close waits

_LINGER = 2  # seconds
_KEPT = 256  # other ends that are open at a time, none of which is read
_LEAD = 32  # calls that keep the server busy until our own descriptors are closed: the last one to close is who waits
_EVERY = 0.05  # seconds from one step to the next


def _close_soon(fds: Iterable[int]) -> None:
    """Close descriptors, and wait no longer than some milliseconds should ours be the last ones: a signal ends that."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        for fd in fds:
            os.close(fd)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Lingering(Attack):
    """Sends TCP sockets with unsent data and SO_LINGER: whoever closes the last descriptor of one waits."""

    count: ClassVar[int] = 1
    """Of the sockets that are sent at once."""

    def __init__(self, address: str, method: str) -> None:
        super().__init__(address)
        self._method = method
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self._peers: collections.deque[socket.socket] = collections.deque()

    def socket_that_waits(self) -> int:
        """Return a TCP socket with more to send than its other end takes."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, _LINGER))
        sock.connect(self._listener.getsockname())
        self._peers.append(self._listener.accept()[0])
        if len(self._peers) > _KEPT:
            self._peers.popleft().close()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(65_536))
        return sock.detach()

    def step(self) -> None:
        self.caller.receive()
        if not self.caller.unanswered:
            fds = [self.descriptor() for _ in range(self.count)]
            for _ in range(_LEAD):
                call_id = self.caller.next_id()
                self.caller.send(request(call_id, "Target.refused", b"\x90"), call_id)
            self.begin()
            for fd in fds:
                call_id = self.caller.next_id()
                body = b"\x91" + raw.reference(DESCRIPTOR, 0)
                self.caller.send(request(call_id, self._method, body, [fd]), call_id)
            _close_soon(fds)
            self.end()
        time.sleep(_EVERY)

    def descriptor(self) -> int:
        """Return what is sent."""
        return self.socket_that_waits()

    def begin(self) -> None:
        """Do what comes before the descriptors."""

    def end(self) -> None:
        """Do what comes after them."""


class LingeringQueued(Lingering):
    """The same sockets inside the queue of a Unix socket, which is what is sent."""

    def descriptor(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            inside = self.socket_that_waits()
            Packet(b"x", (inside,)).send(ours)
            os.close(inside)  # the one on its way is the last
        return theirs.detach()


class LingeringUnread(Lingering):
    """The same sockets behind a packet that ends the connection: they are in the server's own queue as it closes."""

    count = 4

    def begin(self) -> None:
        self.caller.send(Packet(b"\xc1"))

    def end(self) -> None:
        self.caller.end("ended")


# 8: items


class Items(Attack):
    """Gives a method a stream with an item, or a backlog, of 16 MiB, one after the other."""

    def __init__(self, address: str, method: str) -> None:
        super().__init__(address)
        self._method = method
        data = self.item()
        self._item = self.files.memory_file(data)
        self._announced = raw.pack([4, len(data)])
        self._producer: socket.socket | None = None

    def item(self) -> bytes:
        """Return the packet of an item that does not fit: an array of arrays."""
        eight = raw.pack(list(range(8)))
        return b"\x92\x00" + raw.array_of([eight] * (16 * MIB // len(eight)))

    def step(self) -> None:
        self.caller.receive()
        if self.caller.unanswered:
            return
        if self._producer is not None:
            self._producer.close()
        self._producer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            call_id = self.caller.next_id()
            Packet(self._announced, (self._item,)).send(self._producer)
            body = b"\x91" + raw.reference(STREAM, 0)
            self.caller.send(request(call_id, self._method, body, [theirs.fileno()]), call_id)


class Backlogs(Items):
    """The same with a packet of 16 million items, of which the handler takes the first."""

    def item(self) -> bytes:
        return raw.array_of([b"\x00"] + [b"\x07"] * (16 * MIB))


# 10: answers


class Unread(Attack):
    """Asks for 200 answers of 4 MiB at once and does not read them."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._until = 0.0

    def step(self) -> None:
        now = time.monotonic()
        if now < self._until:
            return
        self.caller.end("ended")
        for _ in range(200):
            call_id = self.caller.next_id()
            self.caller.send(request(call_id, "Target.blob", b"\x90"), call_id)
        self._until = now + 2.0


# 13: what a peer says, and how much of it is written down

_IN_FLIGHT = 8


class Retorts(Attack):
    """Answers the server's calls back with errors of 1 MiB of line breaks."""

    def step(self) -> None:
        caller = self.caller
        caller.receive()
        while caller.asked:
            call_id = caller.asked.pop()
            error = raw.pack([1, call_id, ["peer.Error", "line\n" * (MIB // 5), None], None])
            packet, file = spilled(error, call_id)
            try:
                caller.send(packet)
            finally:
                os.close(file)
        while len(caller.unanswered) < _IN_FLIGHT:
            call_id = caller.next_id()
            if not caller.send(request(call_id, "Target.call_back", b"\x90"), call_id):
                return


class ClosingWords(Attack):
    """Says CLOSING with 60 KB of line breaks, calls on, and goes: every other time without hearing the answers."""

    def __init__(self, address: str, method: str) -> None:
        super().__init__(address)
        self._method = method
        self._packet = Packet(raw.pack([5, "line\n" * 12_000]))
        self._hears = itertools.cycle((True, False))

    def step(self) -> None:
        caller = self.caller
        caller.receive()
        if caller.unanswered:
            return
        caller.end("ended")
        caller.send(self._packet)
        for _ in range(_IN_FLIGHT):
            call_id = caller.next_id()
            caller.send(request(call_id, self._method, b"\x90"), call_id)
        if not next(self._hears):
            caller.end("ended")


_keys = _fixed(raw.chosen_for_a_packet)
_megabyte = _fixed(raw.chosen_megabyte)
_REFUSED, _ADMITTED = "Target.refused", "Target.take"

ATTACKS: dict[str, Callable[[str], Attack]] = {
    "6-linger-refused": partial(Lingering, method=_REFUSED),
    "6-linger-admitted": partial(Lingering, method=_ADMITTED),
    "6-queued-refused": partial(LingeringQueued, method=_REFUSED),
    "6-queued-admitted": partial(LingeringQueued, method=_ADMITTED),
    "6-unread-refused": partial(LingeringUnread, method=_REFUSED),
    "6-unread-admitted": partial(LingeringUnread, method=_ADMITTED),
    "7-packets-refused": partial(Flood, method=_REFUSED, bodies=_keys, window=4),
    "7-packets-admitted": partial(Flood, method=_ADMITTED, bodies=_keys, window=4),
    "7-spilled-refused": partial(Flood, method=_REFUSED, bodies=_megabyte, window=1, is_spilled=True),
    "7-spilled-admitted": partial(Flood, method=_ADMITTED, bodies=_megabyte, window=1, is_spilled=True),
    "8-items": partial(Items, method="Target.total"),
    "8-backlogs": partial(Backlogs, method="Target.first"),
    "9-buffers-refused": partial(Flood, method=_REFUSED, bodies=_odd_holes, window=40),
    "9-buffers-admitted": partial(Flood, method="Target.park", bodies=_odd_holes, window=40),
    "10-unread": Unread,
    "11-handlers": partial(Flood, method="Target.slow", window=128),
    "11-policies": partial(Flood, method="Target.guarded", window=128),
    "11-connections": partial(Flood, method="Target.slow", window=128, connections=128),
    "12-flood": partial(Flood, method=_REFUSED, window=1_000, connections=200),
    "13-refused": partial(Flood, method=_REFUSED),
    "13-failing-policy": partial(Flood, method="Target.broken"),
    "13-failing-method": partial(Flood, method="Target.fail"),
    "13-retorts": Retorts,
    "13-closing-refused": partial(ClosingWords, method=_REFUSED),
    "13-closing-admitted": partial(ClosingWords, method="Target.call_back"),
    "14-keys-refused": partial(Flood, method=_REFUSED, bodies=_new_strings, window=4),
    "14-keys-admitted": partial(Flood, method=_ADMITTED, bodies=_new_strings, window=4),
    "14-meta-refused": partial(Flood, method=_REFUSED, bodies=_new_meta, window=4, in_options=True),
    "14-meta-admitted": partial(Flood, method="Target.idle", bodies=_new_meta, window=4, in_options=True),
}
