"""RPyC: a service in threads, called through transparent proxies.

What is immutable passes by value; all else is a reference, whose every use is a call of its own. So a record travels
as a tuple of its values. There are no descriptors. The channel does not compress, as it would by default everything
above 3,000 bytes: between processes of one machine that only costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import rpyc
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream
from rpyc.utils.factory import connect_channel
from rpyc.utils.server import ThreadedServer

from benchmarks.peers.base import BlockingClient, BlockingPeer, Record

Values = tuple[Any, ...]


def values_of(record: Record) -> Values:
    """Return the record as a tuple, in which everything is immutable."""
    *plain, tags, scores, labels, parent = vars(record).values()
    return (*plain, tuple(tags), tuple(scores), tuple(labels.items()), parent)


def record_of(values: Values) -> Record:
    *plain, tags, scores, labels, parent = values
    return Record(*(*plain, list(tags), list(scores), dict(labels), parent))


class Methods(rpyc.Service):  # type: ignore[misc]  # it has no types
    def exposed_add(self, a: int, b: int) -> int:
        return a + b

    def exposed_record(self, values: Values) -> Values:
        return values_of(record_of(values))

    def exposed_upload(self, data: bytes) -> int:
        return len(data)

    def exposed_numbers(self, count: int) -> Iterator[int]:
        yield from range(count)


class RpycClient(BlockingClient):
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.root = connection.root
        self.remote_add = self.root.add  # a reference, fetched once: else each call would ask for it first
        self.remote_record = self.root.record

    def add(self, a: int, b: int) -> int:
        result: int = self.remote_add(a, b)
        return result

    def add_many(self, calls: int, in_flight: int) -> None:
        add = rpyc.async_(self.remote_add)
        waiting = deque(add(2, 3) for _ in range(min(calls, in_flight)))
        for _ in range(calls - len(waiting)):
            assert waiting.popleft().value == 5
            waiting.append(add(2, 3))
        for answer in waiting:
            assert answer.value == 5

    def record(self, record: Record) -> Record:
        return record_of(self.remote_record(values_of(record)))

    def upload(self, data: bytes) -> int:
        result: int = self.root.upload(data)
        return result

    def numbers(self, count: int) -> Sequence[int]:
        return list(rpyc.buffiter(self.root.numbers(count)))  # it fetches up to 1,000 items with a call

    def close(self) -> None:
        self.connection.close()


class Rpyc(BlockingPeer):
    name = "rpyc"
    requires = ("rpyc",)
    distribution = "rpyc"
    workloads = frozenset({"lone", "in-flight", "record", "upload-1m", "stream", "memory", "import"})

    def serve(self, address: str) -> None:
        ThreadedServer(Methods, socket_path=address, backlog=1024).start()

    def connect(self, address: str) -> BlockingClient:
        return RpycClient(connect_channel(Channel(SocketStream.unix_connect(address), compress=False)))
