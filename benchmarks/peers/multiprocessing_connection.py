"""``multiprocessing.connection``: messages between processes, and calls as one makes them of those.

It has no calls of its own. A request is a tuple of a method's name and its arguments, and the server, with a thread for
each connection, answers one after the other; so answers need no call ids, and calls are in flight by sending ahead.
``send`` and ``recv`` pickle, which lets whoever connects run what they like: it is how this module is used between
processes that trust one another. ``connection.send_bytes`` with msgpack is beside it under a name of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection as messages
from multiprocessing import reduction
from multiprocessing.connection import Connection, Listener
from typing import Any, ClassVar

from benchmarks.peers.base import BlockingClient, BlockingPeer, Record

Send = Callable[[Any], None]
Receive = Callable[[], Any]


def serve_connection(connection: Connection, send: Send, receive: Receive) -> None:
    """Answer what is asked until the other end is closed."""
    with connection, contextlib.suppress(EOFError, ConnectionError):
        while True:
            method, argument, *arguments = receive()
            if method == "add":
                send(argument + arguments[0])
            elif method == "record":
                send(argument if isinstance(argument, Record) else vars(Record(**argument)))
            elif method == "upload":
                send(len(argument))
            elif method == "descriptor":
                send(size_of(reduction.recv_handle(connection)))
            elif method == "numbers":
                for number in range(argument):
                    send(number)
                send(None)


def size_of(fd: int) -> int:
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


class ConnectionClient(BlockingClient):
    def __init__(self, connection: Connection, send: Send, receive: Receive) -> None:
        self.connection = connection
        self.send = send
        self.receive = receive

    def add(self, a: int, b: int) -> int:
        self.send(("add", a, b))
        result: int = self.receive()
        return result

    def add_many(self, calls: int, in_flight: int) -> None:
        send, receive = self.send, self.receive
        ahead = min(calls, in_flight)
        for _ in range(ahead):
            send(("add", 2, 3))
        for _ in range(calls - ahead):
            assert receive() == 5
            send(("add", 2, 3))
        for _ in range(ahead):
            assert receive() == 5

    def record(self, record: Record) -> Record:
        self.send(("record", record))
        result: Record = self.receive()
        return result

    def upload(self, data: bytes) -> int:
        self.send(("upload", data))
        result: int = self.receive()
        return result

    def descriptor(self, fd: int) -> int:
        self.send(("descriptor", None))
        reduction.send_handle(self.connection, fd, None)  # type: ignore[arg-type]  # only Windows wants a process id
        result: int = self.receive()
        return result

    def numbers(self, count: int) -> Sequence[int]:
        self.send(("numbers", count))
        return list(iter(self.receive, None))

    def close(self) -> None:
        self.connection.close()


class MsgpackClient(ConnectionClient):
    def record(self, record: Record) -> Record:
        self.send(("record", vars(record)))
        return Record(**self.receive())


class MultiprocessingConnection(BlockingPeer):
    """With ``send`` and ``recv``, which pickle."""

    name = "multiprocessing.connection"
    imports: ClassVar[Sequence[str]] = ("multiprocessing.connection",)
    workloads = frozenset(
        {"lone", "in-flight", "record", "upload-1m", "upload-64m", "descriptors", "stream", "memory", "import"}
    )
    client: ClassVar[type[ConnectionClient]] = ConnectionClient

    def through(self, connection: Connection) -> tuple[Send, Receive]:
        """Return how a message is sent on the connection, and received."""
        return connection.send, connection.recv

    def serve(self, address: str) -> None:
        with Listener(address, "AF_UNIX", backlog=1024) as listener:
            while True:
                connection = listener.accept()
                arguments = (connection, *self.through(connection))
                threading.Thread(target=serve_connection, args=arguments, daemon=True).start()

    def connect(self, address: str) -> BlockingClient:
        connection = messages.Client(address, "AF_UNIX")
        return self.client(connection, *self.through(connection))


class MultiprocessingConnectionMsgpack(MultiprocessingConnection):
    """With ``send_bytes`` and ``recv_bytes``, and msgpack."""

    name = "multiprocessing.connection+msgpack"
    requires = ("msgpack",)
    imports = ("multiprocessing.connection", "msgpack")
    distribution = "msgpack"
    client = MsgpackClient

    def through(self, connection: Connection) -> tuple[Send, Receive]:
        import msgpack  # noqa: PLC0415 - the other one does not need it

        pack, unpack = msgpack.Packer(autoreset=True).pack, msgpack.unpackb
        send, receive = connection.send_bytes, connection.recv_bytes
        return lambda message: send(pack(message)), lambda: unpack(receive())
