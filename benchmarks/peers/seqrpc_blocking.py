"""seqrpc's client without an event loop, calling the same daemon as its other client does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import uvloop

import seqrpc
import seqrpc.blocking
from benchmarks.peers.base import BlockingClient, BlockingPeer, Record
from benchmarks.peers.seqrpc_peer import LIMITS, Bench, SeqrpcPeer


class SeqrpcBlockingClient(BlockingClient):
    """A connection, used by one thread."""

    def __init__(self, connection: seqrpc.blocking.Connection) -> None:
        self._connection = connection
        self._bench: Any = connection.proxy(Bench)
        self._files: dict[int, seqrpc.OwnedFd] = {}

    def add(self, a: int, b: int) -> int:
        result: int = self._bench.add(a, b)
        return result

    def record(self, record: Record) -> Record:
        result: Record = self._bench.record(record)
        return result

    def upload(self, data: bytes) -> int:
        result: int = self._bench.upload(data)
        return result

    def descriptor(self, fd: int) -> int:
        if fd not in self._files:  # as a program would have it that passes a file more than once
            self._files[fd] = seqrpc.OwnedFd.dup(fd)
        result: int = self._bench.descriptor(self._files[fd])
        return result

    def numbers(self, count: int) -> Sequence[int]:
        return list(self._bench.numbers(count))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._connection.close()


class SeqrpcBlockingPeer(BlockingPeer):
    """This project, with a client that blocks."""

    name = "seqrpc.blocking"
    requires = ("seqrpc",)
    imports = ("seqrpc.blocking",)
    distribution = "seqrpc"
    workloads = frozenset({"lone", "record", "upload-1m", "upload-64m", "descriptors", "stream", "import"})

    def version(self) -> str | None:
        return SeqrpcPeer().version()

    def serve(self, address: str) -> None:
        uvloop.run(SeqrpcPeer().serve(address))

    def connect(self, address: str) -> SeqrpcBlockingClient:
        return SeqrpcBlockingClient(seqrpc.blocking.connect(address, limits=LIMITS))
