"""What no library can beat with the same tools: the least that could do the same, over the same kind of socket.

``floor`` is two processes with blocking sockets and msgpack: pack, send, receive, unpack at each end, nothing else.
It has one call under way at a time, in ``in-flight`` too. Its stream is one packet an item, its upload a pipeline of
packets of 64 KiB. ``floor.c`` is the same call in C with the packing left out, built on the spot. ``memcpy`` is one
copy within one process, into memory that was touched before.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import msgpack

from benchmarks.peers.base import BlockingClient, BlockingPeer, Record

PACKET = 65_536


def _serve_calls(sock: socket.socket) -> None:
    while data := sock.recv(PACKET):
        _kind, call_id, _method, params = msgpack.unpackb(data)
        sock.send(msgpack.packb((1, call_id, None, params[0] + params[1])))


def _serve_records(sock: socket.socket) -> None:
    while data := sock.recv(PACKET):
        _kind, call_id, _method, record = msgpack.unpackb(data)
        sock.send(msgpack.packb((1, call_id, None, record)))


def _serve_streams(sock: socket.socket) -> None:
    while data := sock.recv(PACKET):
        for number in range(msgpack.unpackb(data)):
            sock.send(msgpack.packb((0, number)))


def _serve_descriptors(sock: socket.socket) -> None:
    while True:
        data, fds, _flags, _address = socket.recv_fds(sock, PACKET, 1)
        if not data:
            return
        size = os.fstat(fds[0]).st_size
        os.close(fds[0])
        _kind, call_id, _method, _params = msgpack.unpackb(data)
        sock.send(msgpack.packb((1, call_id, None, size)))


def _serve_uploads(sock: socket.socket) -> None:
    """Take so many bytes as a number says, in packets, into memory that was touched before, and answer."""
    held = memoryview(bytearray(0))
    while data := sock.recv(PACKET):
        size = int(msgpack.unpackb(data))
        if len(held) != size:
            held = memoryview(bytearray(size))
        offset = 0
        while offset < size:
            offset += sock.recv_into(held[offset : offset + PACKET])
        sock.send(msgpack.packb(offset))


_SERVE: dict[bytes, Callable[[socket.socket], None]] = {
    b"calls": _serve_calls,
    b"records": _serve_records,
    b"streams": _serve_streams,
    b"descriptors": _serve_descriptors,
    b"uploads": _serve_uploads,
}


def _serve_one(sock: socket.socket) -> None:
    """Read from the first packet which loop is wanted, and run it."""
    with sock:
        if what := sock.recv(PACKET):
            _SERVE[what](sock)


class FloorClient(BlockingClient):
    """A socket for each of the server's loops, connected when it is first used."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._sockets: dict[bytes, socket.socket] = {}
        self._call_id = 0
        self._calls = self._socket(b"calls")

    def _socket(self, what: bytes) -> socket.socket:
        if what not in self._sockets:
            self._sockets[what] = sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(self._address)
            sock.send(what)
        return self._sockets[what]

    def add(self, a: int, b: int) -> int:
        sock = self._calls
        self._call_id += 1
        sock.send(msgpack.packb((0, self._call_id, "Bench.add", (a, b))))
        _kind, _call_id, _error, result = msgpack.unpackb(sock.recv(PACKET))
        return int(result)

    def add_many(self, calls: int, in_flight: int) -> None:
        del in_flight  # it waits for each answer
        for _ in range(calls):
            assert self.add(2, 3) == 5

    def record(self, record: Record) -> Record:
        sock = self._socket(b"records")
        self._call_id += 1
        sock.send(msgpack.packb((0, self._call_id, "Bench.record", vars(record))))
        _kind, _call_id, _error, result = msgpack.unpackb(sock.recv(PACKET))
        return Record(**result)

    def upload(self, data: bytes) -> int:
        sock = self._socket(b"uploads")
        sock.send(msgpack.packb(len(data)))
        view = memoryview(data)
        for offset in range(0, len(data), PACKET):
            sock.send(view[offset : offset + PACKET])
        return int(msgpack.unpackb(sock.recv(PACKET)))

    def descriptor(self, fd: int) -> int:
        sock = self._socket(b"descriptors")
        self._call_id += 1
        socket.send_fds(sock, [msgpack.packb((0, self._call_id, "Bench.descriptor", ()))], [fd])
        _kind, _call_id, _error, result = msgpack.unpackb(sock.recv(PACKET))
        return int(result)

    def numbers(self, count: int) -> Sequence[int]:
        sock = self._socket(b"streams")
        sock.send(msgpack.packb(count))
        numbers = []
        for _ in range(count):
            _kind, number = msgpack.unpackb(sock.recv(PACKET))
            numbers.append(number)
        return numbers

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()


class Floor(BlockingPeer):
    """Blocking Python with msgpack over a pair of connected sockets."""

    name = "floor"
    requires = ("msgpack",)
    distribution = "msgpack"
    workloads = frozenset({"lone", "in-flight", "record", "upload-1m", "upload-64m", "descriptors", "stream"})

    def serve(self, address: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen()
            while True:
                sock, _address = listener.accept()
                threading.Thread(target=_serve_one, args=(sock,), daemon=True).start()

    def connect(self, address: str) -> FloorClient:
        return FloorClient(address)


class PingPong(BlockingClient):
    """The C program, which is told how many calls to make, and says how many nanoseconds they took."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def add_one_by_one(self, calls: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls}\n")
        return int(self._process.stdout.readline()) / 1e9

    def close(self) -> None:
        with self._process as process:  # which closes its standard input, at which it ends
            assert process.stdin is not None


class PingPongPeer(BlockingPeer):
    """``pingpong.c``, both ends of it in processes of its own."""

    name = "floor.c"
    workloads = frozenset({"lone"})
    _source: ClassVar[Path] = Path(__file__).with_name("pingpong.c")

    def missing(self) -> str | None:
        return None if _compiler() else "there is no C compiler"

    def serve(self, address: str) -> None:
        del address
        signal.pause()

    def connect(self, address: str) -> PingPong:
        compiler = _compiler()
        assert compiler is not None
        program = f"{address}.pingpong"
        subprocess.run([compiler, "-O2", "-o", program, str(self._source)], check=True, stdin=subprocess.DEVNULL)
        return PingPong(program)


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


class Copy(BlockingClient):
    """Memory to copy into."""

    def __init__(self) -> None:
        self._held = memoryview(bytearray(0))

    def upload(self, data: bytes) -> int:
        if len(self._held) != len(data):
            self._held = memoryview(bytearray(data))
        self._held[:] = data
        return len(self._held)


class Memcpy(BlockingPeer):
    """One copy, of what is another one's read-only memory."""

    name = "memcpy"
    workloads = frozenset({"upload-1m", "upload-64m"})

    def serve(self, address: str) -> None:
        del address
        signal.pause()

    def connect(self, address: str) -> Copy:
        del address
        return Copy()
