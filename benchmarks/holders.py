"""Hostile callers who send, or hold, what takes a descriptor: files, memory files, streams and objects."""

from __future__ import annotations

import collections
import fcntl
import itertools
import os
import select
import socket
from collections.abc import Callable

from benchmarks import raw
from benchmarks.callers import Attack, request
from benchmarks.raw import CHANNEL, DESCRIPTOR, STREAM, Packet
from benchmarks.workloads import MIB

_FULL = 253  # descriptors that a packet carries


def files(count: int, method: str, *, params: bool = True) -> Callable[[Attack], Callable[[int], Packet]]:
    """Return what makes requests with so many descriptors of the null device, in the parameters or beside them."""

    def packets(attack: Attack) -> Callable[[int], Packet]:
        fds = attack.files.null(count)
        body = b"\x91" + raw.array_of(raw.references(DESCRIPTOR, count)) if params else b"\x90"
        return lambda call_id: request(call_id, method, body, fds)

    return packets


def pipes(attack: Attack) -> Callable[[int], Packet]:
    """Return what makes requests with both ends of full pipes."""
    ends: list[int] = []
    for _ in range(20):
        ends += map(attack.files.hold, os.pipe2(os.O_NONBLOCK))
        try:
            while True:
                os.write(ends[-1], bytes(65_536))
        except BlockingIOError:
            pass
    body = b"\x91" + raw.array_of(raw.references(DESCRIPTOR, len(ends)))
    return lambda call_id: request(call_id, "Target.take", body, ends)


def odd_files(attack: Attack) -> Callable[[int], Packet]:
    """Return what makes requests with descriptors of every odd kind, as files, streams, channels and buffers."""
    hold = attack.files.hold
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")
    listener.listen(1)
    poll = select.epoll()
    kinds = [
        hold(os.open("/", os.O_PATH)),
        hold(os.open("/proc/self/maps", os.O_RDONLY)),
        hold(os.open("/dev/full", os.O_RDWR)),
        hold(os.pidfd_open(os.getpid())),
        hold(os.eventfd(0)),
        hold(os.memfd_create("odd")),
        hold(os.memfd_create("large", os.MFD_ALLOW_SEALING)),
        hold(os.dup(poll.fileno())),
        hold(listener.detach()),
        hold(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()),
        hold(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()),
        hold(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach()),
    ]
    poll.close()
    os.ftruncate(kinds[6], 1 << 40)
    ways = itertools.cycle(itertools.product(kinds, (DESCRIPTOR, STREAM, CHANNEL, raw.BUFFER)))

    def packet(call_id: int) -> Packet:
        file, ext_type = next(ways)
        return request(call_id, "Target.take", b"\x91" + raw.reference(ext_type, 0, 0, 4_096), [file])

    return packet


class Itself(Attack):
    """Sends its own connection, and pairs whose ends are in each other's queues: cycles that only the kernel sees."""

    def __init__(self, address: str, ext_type: int) -> None:
        super().__init__(address)
        self._ext_type = ext_type
        self._kept: collections.deque[socket.socket] = collections.deque(maxlen=32)

    def step(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        self._kept.append(sock)
        body = b"\x91" + raw.reference(self._ext_type, 0)
        try:
            sock.connect(self.address)
            request(1, "Target.take", body, [sock.fileno()]).send(sock)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                for end in (ours, theirs):
                    end.setblocking(False)
                    request(2, "Thing.use", body, [ours.fileno()]).send(end)
                    request(3, "Thing.use", body, [sock.fileno()]).send(end)
                request(2, "Target.take", body, [theirs.fileno()]).send(sock)
                request(3, "Target.use", body, [ours.fileno()]).send(sock)
        except OSError as exc:
            self.answers[str(exc.strerror)] += 1
        else:
            self.answers["sent"] += 4


class Shrinks(Attack):
    """Sends long messages in memory files that are not sealed, or half, and shrinks and grows them all the while."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._data = request(1, "Target.take", b"\x91" + raw.padding(MIB)).data
        self._file = self.files.hold(os.memfd_create("shrinks", os.MFD_ALLOW_SEALING))
        os.pwrite(self._file, self._data, 0)
        self._seals = itertools.cycle((0, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL))

    def step(self) -> None:
        caller = self.caller
        caller.receive()
        file = os.memfd_create("half", os.MFD_ALLOW_SEALING)
        try:
            os.pwrite(file, self._data[:70_000], 0)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, next(self._seals))
            caller.send(Packet(raw.pack([4, len(self._data), 1]), (self._file,)))
            caller.send(Packet(raw.pack([4, 70_000, 2]), (file,)))
        finally:
            os.close(file)
        for _ in range(20):
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, len(self._data))


def announced(attack: Attack) -> Callable[[int], Packet]:
    """Return what announces long messages that do not come: no descriptor, another file, other lengths."""
    small = attack.files.memory_file(b"\x90" * 100)
    sparse = attack.files.memory_file(b"", holes=1 << 40)
    null = attack.files.null(1)[0]
    kinds = (
        (1_000_000, ()),
        (1_000_000, (small,)),
        (100, (small, null)),
        (0, (small,)),
        (1 << 40, (sparse,)),
        (4_096, (null,)),
        (1 << 62, (small,)),
    )

    def packet(call_id: int) -> Packet:
        length, fds = kinds[call_id % len(kinds)]
        return Packet(raw.pack([4, length, call_id]), fds)

    return packet


def empties(attack: Attack) -> Callable[[int], Packet]:
    """Return what makes packets of no bytes, every other one with descriptors."""
    fds = attack.files.null(3)
    return lambda call_id: Packet(b"", fds if call_id % 2 else ())


class Takes(Attack):
    """Asks for streams, or objects, again and again, keeps the descriptors that come, and never uses them.

    Args:
        address: of the server.
        method: gives what is kept.
        connections: on how many connections.
    """

    def __init__(self, address: str, method: str, connections: int = 4) -> None:
        super().__init__(address)
        self._method = method
        self._socks: collections.deque[socket.socket] = collections.deque()
        self._count = connections
        self._ids = itertools.count()
        self._held: list[int] = []

    def step(self) -> None:
        if len(self._socks) < self._count:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.setblocking(False)
            sock.connect(self.address)
            self._socks.append(sock)
        self._socks.rotate()
        sock = self._socks[0]
        try:
            request(next(self._ids), self._method, b"\x90").send(sock)
            self.answers["sent"] += 1
            while True:
                data, fds, _flags, _address = socket.recv_fds(sock, 65_536, 16)
                self._held += fds
                self.answers["held" if fds else "refused"] += 1
                if not data:
                    break
        except BlockingIOError:
            return
        except OSError:
            pass
        self._socks.popleft().close()


class Gives(Attack):
    """Gives streams of which nothing comes, or nonsense does, or objects that do not answer; keeps the other ends.

    Args:
        address: of the server.
        method: takes one.
        ext_type: STREAM or CHANNEL.
        says: what is sent into each.
    """

    def __init__(self, address: str, method: str, ext_type: int, says: tuple[bytes, ...] = ()) -> None:
        super().__init__(address)
        self._method = method
        self._body = b"\x91" + raw.reference(ext_type, 0)
        self._says = says
        self._kept: collections.deque[socket.socket] = collections.deque(maxlen=2_000)

    def step(self) -> None:
        caller = self.caller
        caller.receive()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            for said in self._says:
                ours.send(said)
            call_id = caller.next_id()
            caller.send(request(call_id, self._method, self._body, [theirs.fileno()]))
        if len(self._kept) == self._kept.maxlen:
            self._kept[0].close()
        self._kept.append(ours)


class Fills(Attack):
    """Has the server hold as much as it may: long messages for a method that takes a second."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._data = request(1, "Target.park", b"\x91" + raw.padding(8 * MIB)).data
        self._left = 40

    def step(self) -> None:
        self.caller.receive()
        if not self._left:
            return
        self._left -= 1
        call_id = self.caller.next_id()
        data = self._data.replace(b"\x94\x00\x01", b"\x94\x00" + raw.pack(call_id), 1)
        file = raw.sealed(data)
        try:
            self.caller.send(Packet(raw.pack([4, len(data), call_id]), (file,)))
        finally:
            os.close(file)
