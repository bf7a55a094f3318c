"""The loops that measure, in the client process: each does so many units of work and says how long that took."""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from benchmarks.peers.base import RECORD, BlockingClient, BlockingPeer, Client, Peer, Unsupported
from benchmarks.workloads import IN_FLIGHT, Workload

T = TypeVar("T")

Go = Callable[[int], Awaitable[float]]
"""Do so many units of work; return the seconds that count."""

_START_WITHIN = 30.0  # seconds in which a server must be there; a bus daemon and its service take one or two
_OTHER_FILES = 64  # descriptors that are no connections
_FILE = b"what an open file holds"


def timed(work: Callable[[int], Awaitable[object]]) -> Go:
    """Return what does the work and tells its time."""

    async def go(count: int) -> float:
        start = time.perf_counter()
        await work(count)
        return time.perf_counter() - start

    return go


async def patiently(connect: Callable[[], Awaitable[T]]) -> T:
    """Return a connection to a server that may still be starting."""
    deadline = time.monotonic() + _START_WITHIN
    while True:
        try:
            return await connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def connect_many(peer: Peer, address: str, count: int) -> list[Client]:
    """Return so many connections, of which each has made a call: some peers connect no sooner."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < count + _OTHER_FILES:
        raise Unsupported(f"a process may have only {files} descriptors here")
    clients: list[Client] = []
    for _ in range(count):
        clients.append(await patiently(lambda: peer.connect(address)))
        assert await patiently(lambda: clients[-1].add(2, 3)) == 5
    return clients


async def close_all(clients: Sequence[Client]) -> None:
    """End the connections."""
    await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


@asynccontextmanager
async def ready(workload: Workload, peer: Peer | BlockingPeer, address: str) -> AsyncIterator[Mapping[str, Go]]:
    """Prepare what a workload needs, and give its loops, by variant."""
    if isinstance(peer, BlockingPeer):

        async def connect() -> BlockingClient:
            assert isinstance(peer, BlockingPeer)
            return peer.connect(address)

        blocking = await patiently(connect)
        try:
            with open_file() as fd:
                yield {"": blocking_loop(workload, blocking, fd)}
        finally:
            blocking.close()
    else:
        clients = await connect_many(peer, address, workload.connections)
        try:
            with open_file() as fd:
                yield loops(workload, clients, fd)
        finally:
            await close_all(clients)


@contextmanager
def open_file() -> Iterator[int]:
    """Give a descriptor of a file that is not empty."""
    with tempfile.TemporaryFile() as file:
        file.write(_FILE)
        file.flush()
        yield file.fileno()


def loops(workload: Workload, clients: Sequence[Client], fd: int) -> Mapping[str, Go]:
    """Return the loops of a workload, by variant."""
    client = clients[0]
    data = b"x" * workload.size
    match workload.name.split("-"):
        case ["lone"]:
            go = timed(lambda count: _adds(client, count))
        case ["in", "flight"]:
            go = _at_once([client] * IN_FLIGHT)
        case ["connections", _]:
            go = _at_once(clients)
        case ["record"]:
            go = timed(lambda count: _records(client, count))
        case ["upload", _]:
            go = timed(lambda count: _uploads(client, data, count))
        case ["descriptors"]:
            go = timed(lambda count: _descriptors(client, fd, count))
        case ["stream"]:
            go = timed(lambda count: _numbers(client, count))
        case ["stream", "lone"]:
            return {"item": _latency(client.lone_items), "answer": _latency(client.lone_answers)}
        case _:
            return {variant: timed(_repeated(call)) for variant, call in client.own(workload.name).items()}
    return {"": go}


async def _adds(client: Client, count: int) -> None:
    for _ in range(count):
        assert await client.add(2, 3) == 5


def _at_once(clients: Sequence[Client]) -> Go:
    async def work(count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(_adds(client, count // len(clients)))

    return timed(work)


async def _records(client: Client, count: int) -> None:
    for _ in range(count):
        record = await client.record(RECORD)
    check_record(record)


def check_record(record: Any) -> None:
    """See that it is the record: of our class, a mapping, or a message."""
    identity = record["id"] if isinstance(record, Mapping) else record.id
    assert identity == RECORD.id, record


async def _uploads(client: Client, data: bytes, count: int) -> None:
    for _ in range(count):
        assert await client.upload(data) == len(data)


async def _descriptors(client: Client, fd: int, count: int) -> None:
    size = os.fstat(fd).st_size
    for _ in range(count):
        assert await client.descriptor(fd) == size


async def _numbers(client: Client, count: int) -> None:
    expected = 0
    async for number in client.numbers(count):
        assert number == expected
        expected += 1
    assert expected == count


def _repeated(call: Callable[[], Awaitable[Any]]) -> Callable[[int], Awaitable[None]]:
    async def work(count: int) -> None:
        for _ in range(count):
            await call()

    return work


def _latency(latencies: Callable[[int], Awaitable[list[float]]]) -> Go:
    """Count their median for each, and not the pauses between them; so a round has the mean of its parts' medians."""

    async def go(count: int) -> float:
        found = sorted(await latencies(count))
        return found[len(found) // 2] * count

    return go


def blocking_loop(workload: Workload, client: BlockingClient, fd: int) -> Go:
    """As ``loops``, for what blocks."""
    data = b"x" * workload.size
    match workload.name.split("-"):
        case ["lone"]:
            go = _telling(client.add_one_by_one)
        case ["in", "flight"]:
            go = _blocking(lambda count: client.add_many(count, IN_FLIGHT))
        case ["record"]:
            go = _blocking(lambda count: _blocking_records(client, count))
        case ["upload", _]:
            go = _blocking(lambda count: _blocking_uploads(client, data, count))
        case ["descriptors"]:
            go = _blocking(lambda count: _blocking_descriptors(client, fd, count))
        case ["stream"]:
            go = _blocking(lambda count: _blocking_numbers(client, count))
        case _:
            raise Unsupported(workload.name)
    return go


def _telling(work: Callable[[int], float]) -> Go:
    async def go(count: int) -> float:
        return work(count)

    return go


def _blocking(work: Callable[[int], None]) -> Go:
    async def go(count: int) -> float:
        start = time.perf_counter()
        work(count)
        return time.perf_counter() - start

    return go


def _blocking_records(client: BlockingClient, count: int) -> None:
    for _ in range(count):
        record = client.record(RECORD)
    check_record(record)


def _blocking_uploads(client: BlockingClient, data: bytes, count: int) -> None:
    for _ in range(count):
        assert client.upload(data) == len(data)


def _blocking_descriptors(client: BlockingClient, fd: int, count: int) -> None:
    size = os.fstat(fd).st_size
    for _ in range(count):
        assert client.descriptor(fd) == size


def _blocking_numbers(client: BlockingClient, count: int) -> None:
    numbers = client.numbers(count)
    assert len(numbers) == count
    assert numbers[-1] == count - 1
