"""The parts that attacks are made of: connections that do not block, and calls in great numbers.

An attack is one process with raw sockets (``benchmarks.attacker``), which does one short step after the other. One that
needs no more than packets, sent as long as few enough are unanswered, is a :class:`Flood`.
"""

from __future__ import annotations

import collections
import itertools
import os
import socket
from collections.abc import Callable, Iterable

import msgpack

from benchmarks import raw
from benchmarks.raw import Files, Packet

Bodies = Callable[[Files], Callable[[], raw.Body]]
"""Opens what bodies of messages refer to, and returns what makes one."""


class Caller:
    """A connection that does not block, made anew when it ends."""

    def __init__(self, address: str, answers: collections.Counter[str]) -> None:
        self._address = address
        self._answers = answers
        self._sock: socket.socket | None = None
        self._ids = itertools.count()
        self.unanswered: set[int] = set()
        self.asked: list[int] = []
        """Ids of calls that the server made and that are not answered yet."""

    def next_id(self) -> int:
        """Return an id for a call."""
        return next(self._ids)

    def _connected(self) -> socket.socket | None:
        if self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.setblocking(False)
            try:
                sock.connect(self._address)
            except OSError:
                sock.close()
                self._answers["not connected"] += 1
            else:
                self._sock = sock
        return self._sock

    def send(self, packet: Packet, call_id: int | None = None) -> bool:
        """Send a packet, if the kernel takes it now; return whether it did."""
        sock = self._connected()
        if sock is None:
            return False
        try:
            packet.send(sock)
        except BlockingIOError:
            return False
        except OSError as exc:
            self.end(str(exc.strerror))
            return False
        if call_id is not None:
            self.unanswered.add(call_id)
        self._answers["sent"] += 1
        return True

    def receive(self) -> None:
        """Take the answers that are there."""
        while self._sock is not None:
            try:
                data, fds, _flags, _address = socket.recv_fds(self._sock, 65_536, 4)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            for fd in fds:
                os.close(fd)
            if not data:
                self.end("closed")
                return
            message = msgpack.unpackb(data, strict_map_key=False, ext_hook=lambda _kind, _data: None)
            if message[0] == 0:
                self.asked.append(message[1])
            elif message[0] == 4:  # an answer in a memory file
                self.unanswered.discard(message[2])
                self._answers["large"] += 1
            elif message[0] == 1:
                self.unanswered.discard(message[1])
                self._answers["ok" if message[2] is None else message[2][0]] += 1

    def end(self, why: str) -> None:
        """Close the connection; the next packet makes another."""
        if self._sock is not None:
            self._answers[why] += 1
            self._sock.close()
        self._sock = None
        self.unanswered.clear()
        self.asked.clear()


class Attack:
    """What an attacker does. Its ``step`` does a little of it and does not wait."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: collections.Counter[str] = collections.Counter()
        """What was sent, and what came of it."""
        self.files = Files()
        self.caller = Caller(address, self.answers)

    def step(self) -> None:
        """Do a little."""
        raise NotImplementedError


def request(call_id: int, method: str, body: bytes, fds: Iterable[int] = ()) -> Packet:
    """Return a REQUEST."""
    return Packet(b"\x94\x00" + raw.pack(call_id) + raw.pack(method) + body, tuple(fds))


def spilled(data: bytes, call_id: int, fds: Iterable[int] = ()) -> tuple[Packet, int]:
    """Return the packet of a long message, and its memory file, which is the caller's to close."""
    file = raw.sealed(data)
    return Packet(raw.pack([4, len(data), call_id]), (file, *fds)), file


def no_parameters(_files: Files) -> Callable[[], raw.Body]:
    """Return an empty array."""
    return lambda: raw.Body(b"\x90")


class Flood(Attack):
    """Calls of a method.

    Args:
        address: of the server.
        method: which.
        bodies: opens what parameters refer to, and returns what makes them; by default there are none.
        window: calls that are unanswered on a connection at most.
        connections: how many.
        in_options: the bodies are options, and there are no parameters.
        is_spilled: requests go as memory files.
    """

    def __init__(
        self,
        address: str,
        method: str,
        bodies: Bodies | None = None,
        *,
        window: int = 64,
        connections: int = 1,
        in_options: bool = False,
        is_spilled: bool = False,
    ) -> None:
        super().__init__(address)
        callers = [Caller(address, self.answers) for _ in range(connections)]
        self._turns = itertools.cycle(callers)
        self._method = method
        self._make = no_parameters(self.files) if bodies is None else bodies(self.files)
        self._window = window
        self._in_options = in_options
        self._is_spilled = is_spilled

    def step(self) -> None:
        caller = next(self._turns)
        caller.receive()
        if len(caller.unanswered) < self._window:
            body = self._make()
            while len(caller.unanswered) < self._window and self._send(caller, body):
                pass

    def _send(self, caller: Caller, body: raw.Body) -> bool:
        call_id = caller.next_id()
        if self._in_options:
            head = b"\x95\x00" + raw.pack(call_id) + raw.pack(self._method)
            return caller.send(Packet(head + b"\x90" + body.data), call_id)
        packet = request(call_id, self._method, body.data, body.fds)
        if not self._is_spilled:
            return caller.send(packet, call_id)
        packet, file = spilled(packet.data, call_id, body.fds)
        try:
            return caller.send(packet, call_id)
        finally:
            os.close(file)
