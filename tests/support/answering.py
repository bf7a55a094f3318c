"""Servers of sockets and MessagePack alone, which answer as they like."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack

from support.sync import Thread
from support.waiting import PATIENCE

Answer = Callable[[list[Any]], bytes | None]
"""Returns what is sent for a message: nothing for None; nothing but an end for no bytes."""


def error(message: list[Any], code: str, text: str = "no") -> bytes:
    """Return the answer that a call failed."""
    data: bytes = msgpack.packb([1, message[1], [code, text, None], None])
    return data


def result(message: list[Any], value: object) -> bytes:
    """Return the answer that a call succeeded."""
    data: bytes = msgpack.packb([1, message[1], None, value])
    return data


def undescribed(answer: Answer) -> Answer:
    """Return what answers as ``answer`` does, but that it cannot say what it offers."""

    def answering(message: list[Any]) -> bytes | None:
        return error(message, "rpc.MethodNotFound") if message[2] == "rpc.discover" else answer(message)

    return answering


@contextmanager
def answering(path: Path, answer: Answer) -> Iterator[None]:
    """Listen at a path, and answer calls in a thread."""
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ours, theirs:
        listener.bind(str(path))
        listener.listen()
        thread = Thread(lambda: _serve(listener, theirs, answer))
        try:
            yield
        finally:
            ours.send(b"!")
            thread.result()


def _serve(listener: socket.socket, bell: socket.socket, answer: Answer) -> None:
    open_ones: list[socket.socket] = []
    try:
        while True:
            readable, _, _ = select.select([bell, listener, *open_ones], [], [], PATIENCE)
            if bell in readable:
                return
            if listener in readable:
                open_ones.append(listener.accept()[0])
            for sock in [each for each in readable if each in open_ones]:
                if not _answer(sock, answer):
                    open_ones.remove(sock)
                    sock.close()
    finally:
        for sock in open_ones:
            sock.close()


def _answer(sock: socket.socket, answer: Answer) -> bool:
    """Answer one message; return whether the connection goes on."""
    with contextlib.suppress(ConnectionError):
        data = sock.recv(65_536)
        message = msgpack.unpackb(data, strict_map_key=False) if data else None
        if message is None:
            return False
        answered = answer(message) if message[0] == 0 else None
        if answered is not None:
            sock.send(answered)
        return answered != b""
    return False
