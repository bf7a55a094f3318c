"""The refused caller of ``python -m benchmarks.refused``: another user, with a raw socket, that does as it is told.

Commands and answers are lines of JSON. ``prepare`` connects and makes the packets of a kind, ``send`` sends some of
them, or of the dull ones beside them, with few in flight, and answers once all are dealt with. Where nobody answers,
a ``rpc.ping`` now and then tells that they are.
"""

from __future__ import annotations

import collections
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import msgpack

from benchmarks import raw
from benchmarks.kinds import KINDS, WINDOW, Kind
from benchmarks.processes import become_other
from benchmarks.raw import Files, Packet
from benchmarks.serving import many_files

HANGS_AFTER = 10.0
"""Seconds without an answer after which the server is taken to hang."""

_PING_ID = 1_000_000
_PING = raw.pack([0, _PING_ID, "rpc.ping", []])


class _GoneError(Exception):
    """The server ended the connection."""


class Sender:
    """A connection, and the packets of a kind."""

    def __init__(self, address: str, kind: Kind) -> None:
        self._address = address
        self._kind = kind
        self._window = 1 if kind.ends else WINDOW
        self._files = Files()
        self._hostile, self._dull = kind.packets(self._files)
        self._kept: dict[tuple[str, int], Packet] = {}
        self._answers: collections.Counter[str] = collections.Counter()
        self._free = list(range(self._window))
        self._sock = self._connected()

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(HANGS_AFTER)
        sock.connect(self._address)
        return sock

    def close(self) -> None:
        """Close all that it has."""
        self._sock.close()
        self._files.close()

    def _packet(self, which: str, slot: int) -> Packet:
        make: Callable[[int], Packet] = self._hostile if which == "hostile" else self._dull
        if self._kind.is_fresh:
            return make(slot)
        if (which, slot) not in self._kept:
            self._kept[which, slot] = make(slot)
        return self._kept[which, slot]

    def send(self, which: str, packets: int, seconds: float) -> dict[str, Any]:
        """Send at most so many packets, and begin none after so many seconds."""
        self._answers.clear()
        sent, hung, end = 0, False, time.monotonic() + seconds
        try:
            while sent < packets and (not sent or time.monotonic() < end):
                if not self._free:
                    self._make_room()
                sent += 1
                self._send(self._packet(which, self._free.pop()))
            while len(self._free) < self._window:
                self._make_room()
        except TimeoutError:
            hung = True
        packet = self._packet(which, 0)
        return {
            "sent": sent,
            "hung": hung,
            "bytes": self._kind.spilled_bytes or len(packet.data),
            "descriptors": len(packet.fds),
            "answers": dict(self._answers),
        }

    def _send(self, packet: Packet) -> None:
        try:
            packet.send(self._sock)
        except (BrokenPipeError, ConnectionResetError):
            self._reconnect()

    def _make_room(self) -> None:
        """Wait until one more packet may be sent."""
        try:
            if self._kind.is_answered:
                self._free.append(self._hear())
            else:
                self._sock.send(_PING)
                while self._hear() != _PING_ID:
                    pass
                self._free = list(range(self._window))
        except (_GoneError, BrokenPipeError, ConnectionResetError):
            self._reconnect()

    def _reconnect(self) -> None:
        self._answers["closed"] += 1
        self._sock.close()
        self._sock = self._connected()
        self._free = list(range(self._window))

    def _hear(self) -> int:
        """Return the id that an answer is for."""
        while True:
            data = self._sock.recv(65_536)
            if not data:
                raise _GoneError
            message = msgpack.unpackb(data, strict_map_key=False)
            if message[0] == 1:
                call_id: int = message[1]
                if call_id != _PING_ID:
                    self._answers["ok" if message[2] is None else message[2][0]] += 1
                return call_id


def main() -> None:
    """Do as told until the standard input ends."""
    many_files()
    become_other()
    sender: Sender | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "prepare":
            if sender is not None:
                sender.close()
            sender = Sender(command["address"], KINDS[command["kind"]])
        else:
            assert sender is not None
            answer = sender.send(command["which"], command["packets"], command["seconds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
