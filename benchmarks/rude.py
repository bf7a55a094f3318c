"""Hostile callers who need no more than packets and connections. Each is an :class:`~benchmarks.callers.Attack`."""

from __future__ import annotations

import collections
import itertools
import os
import random
import socket
from collections.abc import Callable
from typing import Any

from benchmarks import raw
from benchmarks.callers import Attack, Caller, request
from benchmarks.raw import DESCRIPTOR, STREAM, Packet

ANSWERED = "Target.idle"
"""A method that anyone may call, and that answers at once."""

PARKED = "Target.park"
"""A method that anyone may call, and that takes a second."""


class Opens(Attack):
    """Opens connections, and keeps so many; without a number, all.

    Args:
        address: of the server.
        most: how many are kept.
        says: what is sent over each.
        odd: give each an abstract name of odd bytes before it connects.
    """

    def __init__(self, address: str, most: int | None = None, says: bytes = b"", *, odd: bool = False) -> None:
        super().__init__(address)
        self._kept: collections.deque[socket.socket] = collections.deque(maxlen=most)
        self._says = says
        self._odd = odd

    def step(self) -> None:
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # it has as many as it may
            self.answers["no descriptor left"] += 1
            return
        sock.setblocking(False)
        if self._odd:
            sock.bind(b"\0\xff\n\x1b[31m" + os.urandom(random.randrange(8, 90)))
        try:
            sock.connect(self.address)
            if self._says:
                sock.send(self._says)
        except OSError as exc:
            self.answers[str(exc.strerror)] += 1
        else:
            self.answers["sent"] += 1
        if self._kept.maxlen is not None and len(self._kept) == self._kept.maxlen and self._kept:
            self._kept[0].close()
        if self._kept.maxlen == 0:
            sock.close()
        else:
            self._kept.append(sock)


class Script(Attack):
    """Sends one packet after the other, and reads what comes, or does not.

    Args:
        address: of the server.
        packets: makes the packets, with a call id each.
        reads: whether the answers are read.
        window: calls that are unanswered at most; without a number, what the kernel takes. Only where ``reads``.
        anew: whether each packet has a connection of its own.
    """

    def __init__(
        self,
        address: str,
        packets: Callable[[Attack], Callable[[int], Packet]],
        *,
        reads: bool = True,
        window: int | None = None,
        anew: bool = False,
    ) -> None:
        super().__init__(address)
        self._make = packets(self)
        self._reads = reads
        self._window = window
        self._anew = anew

    def step(self) -> None:
        caller = self.caller
        if self._reads:
            caller.receive()
        if self._window is not None and len(caller.unanswered) >= self._window:
            return
        call_id = caller.next_id()
        caller.send(self._make(call_id), call_id if self._window is not None else None)
        if self._anew:
            caller.end("ended")


def each(packet: Callable[[int], bytes]) -> Callable[[Attack], Callable[[int], Packet]]:
    """Return what makes packets without descriptors."""
    return lambda _attack: lambda call_id: Packet(packet(call_id))


def in_turn(*packets: bytes) -> Callable[[Attack], Callable[[int], Packet]]:
    """Return what makes the same packets again and again."""
    return lambda _attack: lambda call_id: Packet(packets[call_id % len(packets)])


def calls(method: str, *params: Any, **options: Any) -> Callable[[Attack], Callable[[int], Packet]]:
    """Return what makes requests with the same parameters, and with options if there are some."""
    rest = raw.pack(method) + raw.pack(list(params))
    if options:
        rest += raw.pack(options)
    head = b"\x95\x00" if options else b"\x94\x00"
    return each(lambda call_id: head + raw.pack(call_id) + rest)


def notifies(method: str) -> Callable[[Attack], Callable[[int], Packet]]:
    """Return what makes calls without an answer."""
    return in_turn(b"\x93\x02" + raw.pack(method) + b"\x91\x00")


class Halves(Attack):
    """Begins all there is, and stops: half a packet, half a long message, a stream and a call that never go on.

    All that it begins stays open; there are so many connections.
    """

    def __init__(self, address: str, connections: int = 64) -> None:
        super().__init__(address)
        self._left = connections
        self._kept: list[Any] = []

    def step(self) -> None:
        if not self._left:
            return
        self._left -= 1
        caller = Caller(self.address, self.answers)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            half_an_item = b"\x92\x00"
            body = b"\x91" + raw.reference(STREAM, 0)
            caller.send(request(1, "Target.total", body, [theirs.fileno()]))
            if self._left % 2:
                ours.send(half_an_item)
        caller.send(request(2, PARKED, b"\x91\x00"))
        whole = request(3, ANSWERED, b"\x90").data
        self._kept += (caller, ours)
        if self._left % 4 == 0:
            caller.send(Packet(whole[: len(whole) // 2]))
        elif self._left % 4 == 1:
            caller.send(Packet(raw.pack([4, 1_000_000, 3])))


class Cancels(Attack):
    """Calls, and cancels at once: each call, calls that are not there, and those that are answered."""

    def step(self) -> None:
        caller = self.caller
        caller.receive()
        call_id = caller.next_id()
        caller.send(request(call_id, PARKED, b"\x91\x00"))
        for cancelled in (call_id, call_id, call_id - 1, call_id + 5):
            caller.send(Packet(raw.pack([3, max(cancelled, 0)])))


class Reuses(Attack):
    """Uses the id of an unanswered call again: one that is answered at once, and then one that waits."""

    def step(self) -> None:
        caller = self.caller
        caller.receive()
        for method, body in ((ANSWERED, b"\x90"), (PARKED, b"\x91\x00"), (PARKED, b"\x91\x00"), (ANSWERED, b"\x90")):
            caller.send(request(7, method, body))


class Mutates(Attack):
    """Sends sound packets in which a few bytes are others, in the same order each time."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._chance = random.Random(20)
        file = self.files.memory_file(request(5, "Target.take", b"\x91" + raw.padding(100_000)).data)
        self._sound = [
            request(1, "Target.take", b"\x91" + raw.padding(300)),
            request(2, "Target.take", b"\x91" + raw.array_of(raw.references(DESCRIPTOR, 2)), self.files.null(2)),
            Packet(raw.pack([0, 3, PARKED, [0], {"deadline": 1 << 62, "meta": {"a": "b"}}])),
            Packet(raw.pack([4, os.fstat(file).st_size, 5]), (file,)),
            Packet(raw.pack([1, 6, None, 7])),
            Packet(raw.pack([2, "Target.take", {"value": {"a": [1, 2.5, b"c"]}}])),
            Packet(raw.pack([5, "going"])),
        ]

    def step(self) -> None:
        chance = self._chance
        sound = chance.choice(self._sound)
        data = bytearray(sound.data)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        self.caller.receive()
        self.caller.send(Packet(bytes(data[: chance.randrange(1, len(data) + 1)]), sound.fds))


class Shuts(Attack):
    """Shuts its socket down, one way or the other or both, with calls under way, and reads or does not."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._hows = itertools.cycle((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR))
        self._kept: collections.deque[socket.socket] = collections.deque(maxlen=50)

    def step(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(self.address)
            for call_id in range(3):
                request(call_id, (PARKED, ANSWERED)[call_id % 2], (b"\x91\x00", b"\x90")[call_id % 2]).send(sock)
            sock.shutdown(next(self._hows))
            request(9, ANSWERED, b"\x90").send(sock)
        except OSError as exc:
            self.answers[str(exc.strerror)] += 1
        self._kept.append(sock)


WRONG: tuple[bytes, ...] = (
    b"\xc1",
    b"\xc0",
    b"\x90",
    b"\x80",
    b"\x91\x00",
    raw.pack([0]),
    raw.pack([0, -1, ANSWERED, []]),
    raw.pack([0, 1 << 32, ANSWERED, []]),
    raw.pack([0, 1.5, ANSWERED, []]),
    raw.pack([0, "1", ANSWERED, []]),
    raw.pack([0, 1, 2, []]),
    raw.pack([0, 1, b"Target.idle", []]),
    raw.pack([0, 1, ANSWERED, 5]),
    raw.pack([0, 1, ANSWERED, {1: 2}]),
    raw.pack([0, 1, ANSWERED, [], []]),
    raw.pack([0, 1, ANSWERED, [], {"deadline": "soon"}]),
    raw.pack([0, 1, ANSWERED, [], {"meta": {"a": 1}}]),
    raw.pack([0, 1, ANSWERED, [], {}, 1]),
    raw.pack([1, 1, ["x"], None]),
    raw.pack([1, 1, 5, 5]),
    raw.pack([2, ANSWERED]),
    raw.pack([3]),
    raw.pack([3, None]),
    raw.pack([4]),
    raw.pack([4, 0]),
    raw.pack([4, 1 << 63]),
    raw.pack([5]),
    raw.pack([5, 5]),
    raw.pack(["0", 1, ANSWERED, []]),
    raw.pack([None, 1]),
    b"\x94\x00\x01" + raw.pack(ANSWERED) + b"\x91\xd4\x01\x00",  # a descriptor that did not come
    b"\x94\x00\x01" + raw.pack(ANSWERED) + b"\x91\xd4\x7f\x00",  # an extension that nobody knows
    b"\x94\x00\x01" + raw.pack(ANSWERED) + b"\x91\xa5abc",  # cut
    b"\x94\x00\x01\xa3\xff\xfe\xfd\x90",  # a name that is no text
    raw.pack([0, 1, ANSWERED, []]) + b"\x00",
    raw.pack([0, 1, ANSWERED, []]) * 2,
)
"""Packets that are none: each ends its connection."""

PROMISES: tuple[bytes, ...] = (
    b"\x94\x00\x01\xabTarget.take\x91\xdf\xff\xff\xff\xff",  # a map of 4 milliard entries
    b"\x94\x00\x01\xabTarget.take\x91\xdd\xff\xff\xff\xff",
    b"\x94\x00\x01\xabTarget.take\x91\xc6\xff\xff\xff\xff",
    b"\x94\x00\x01\xabTarget.take\x91\xdb\xff\xff\xff\xff",
    b"\x94\x00\x01\xabTarget.take\x91\xc9\xff\xff\xff\xff\x01",
    b"\xdd\xff\xff\xff\xff",
    b"\xdc\xff\xff" * 20_000,
)
"""Packets that promise more than they have."""

DEEP: tuple[bytes, ...] = (
    b"\x91" * 65_536,
    b"\x81\x00" * 32_768,
    b"\x94\x00\x01\xabTarget.take\x91" + b"\x91" * 60_000 + b"\x00",
    b"\x95\x00\x01\xabTarget.idle\x90" + b"\x81\xa1a" * 20_000 + b"\x00",
)


def unknown(_attack: Attack) -> Callable[[int], Packet]:
    """Return what makes requests for methods that are not there, each with a name of its own."""
    return lambda call_id: request(call_id, f"Target.{call_id:x}" * (1 + call_id % 40), b"\x90")


def huge_maps(_attack: Attack) -> Callable[[int], Packet]:
    """Return what makes requests with maps of as many entries as a packet holds."""
    body = b"\x91" + raw.map_of([b"\xa4%04d" % number for number in range(10_000)])
    return lambda call_id: request(call_id, "Target.take", body)


def nonsense(_attack: Attack) -> Callable[[int], Packet]:
    """Return what makes packets that are to be ignored: answers to nothing, unknown kinds, cancels of nothing."""
    messages = (
        lambda number: [1, number, None, [0] * 100],
        lambda number: [1, number, ["a.b", "text", {}], None],
        lambda number: [6 + number % 200, number, "x" * 100],
        lambda number: [3, number],
        lambda number: [1 << 62, []],  # noqa: ARG005 - one of several
    )
    return lambda call_id: Packet(raw.pack(messages[call_id % len(messages)](call_id)))
