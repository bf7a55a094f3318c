"""A server that answers whatever a test has it answer, with the wire written by hand."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from seqrpc.kernel import ancillary, memfd
from support.sync import Thread
from support.waiting import PATIENCE

EVIL = "\x1b[2J\x1b]0;owned\x07\x1b[?1049h\x9b31m\u202egnp.\u2066\x08\x7f\r\x00\x0eline\nforged: "
"""What moves a terminal, and forges lines."""

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What must not get to a terminal."""

Answer = Callable[[str, Any], Any]
"""Returns the error and the result of a call of a method with params; the result may be a :class:`Streamed`."""


class Streamed(NamedTuple):
    """A stream of these items, sent as they are read."""

    items: Sequence[Any]
    error: Any = None
    """What it ends with."""


def error(code: str, message: str) -> list[Any]:
    return [[code, message, None], None]


def send_stream(connected: socket.socket, number: int, streamed: Streamed) -> None:
    """Answer a call with a stream, and send what it consists of as far as it is read."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            ancillary.send(connected, msgpack.packb([1, number, None, msgpack.ExtType(2, b"\0")]), [theirs.fileno()])
        with suppress(ConnectionError):
            for item in streamed.items:
                ours.send(msgpack.packb([0, item]))
            ours.send(msgpack.packb([1, streamed.error]))


@contextmanager
def server(path: Path, answer: Answer) -> Iterator[None]:
    """Listen, and answer each call of one connection after the other; bytes are sent in a memory file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
        sock.listen()
        sock.settimeout(PATIENCE)

        def talk(connected: socket.socket) -> None:
            while data := connected.recv(65_536):
                kind, *rest = msgpack.unpackb(data, strict_map_key=False)
                if kind != 0:
                    continue
                number, method, params, *_options = rest
                failure, result = answer(method, params)
                if isinstance(result, Streamed):
                    send_stream(connected, number, result)
                    continue
                message = msgpack.packb([1, number, failure, result])
                if len(message) > 65_536:
                    with memfd.sealed("evil", message) as file:
                        ancillary.send(connected, msgpack.packb([4, len(message), number]), [file.fileno()])
                else:
                    connected.send(message)

        def work() -> None:
            while True:
                connected, _address = sock.accept()
                with connected:
                    if not connected.recv(1, socket.MSG_PEEK):
                        return
                    try:
                        talk(connected)
                    except ConnectionError:
                        continue

        thread = Thread(work)
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
                last.connect(str(path))
            thread.result()
