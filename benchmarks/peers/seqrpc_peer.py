"""seqrpc itself: a typed service, the default policy, uvloop at both ends; and what only seqrpc has."""

from __future__ import annotations

import asyncio
import dataclasses
import mmap
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import seqrpc
from benchmarks.peers.base import RECORD, Client, Peer, Record, Unsupported
from benchmarks.workloads import MIB, WORKLOADS
from seqrpc.twin import REASON, TWIN

PAUSE = 0.001  # seconds before a lone item, and a lone answer
LIMITS = seqrpc.Limits(max_message_bytes=128 * MIB)  # 64 MiB and the few bytes around them are above the default
BOUNDS = [name for name in seqrpc.Limits.__dataclass_fields__ if name.startswith("max_")]
BOUNDS.remove("max_depth")  # what the interpreter bears
BOUNDS.remove("max_threads")  # started, and not only counted
THREE_RULES = seqrpc.policy.same_user | seqrpc.policy.root | seqrpc.policy.gid(0)


class Bench(seqrpc.Service):
    """The workloads."""

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def record(self, record: Record) -> Record:
        return record

    @seqrpc.method
    async def record_untyped(self, record: Any) -> Any:
        return record

    @seqrpc.method
    async def upload(self, data: bytes) -> int:
        return len(data)

    @seqrpc.method
    async def buffer(self, data: seqrpc.Buffer, *, touch: bool) -> int:
        if touch:
            _a_byte_of_each_page = data[:: mmap.PAGESIZE]
        return len(data)

    @seqrpc.method
    async def descriptor(self, file: seqrpc.OwnedFd) -> int:
        return os.fstat(file.fileno()).st_size  # not detached: closed when this returns

    @seqrpc.method
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @seqrpc.method
    async def lone_items(self, count: int) -> AsyncIterator[int]:
        for _ in range(count):
            await asyncio.sleep(PAUSE)
            yield time.monotonic_ns()

    @seqrpc.method
    async def lone_answer(self) -> int:
        await asyncio.sleep(PAUSE)
        return time.monotonic_ns()

    @seqrpc.method
    async def park(self) -> None:
        await asyncio.get_running_loop().create_future()


class Features(seqrpc.Service):
    """The same method with some features and without."""

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def add(self, a: Any, b: Any) -> Any:
        return a + b

    @seqrpc.method(allow=seqrpc.policy.anyone)
    async def add_checked(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method(allow=THREE_RULES)
    async def add_guarded(self, a: Any, b: Any) -> Any:
        return a + b

    @seqrpc.method(allow=THREE_RULES)
    async def add_all(self, a: int, b: int) -> int:
        return a + b


class SeqrpcClient(Client):
    """A connection."""

    def __init__(self, connection: seqrpc.Connection) -> None:
        self._connection = connection
        self._bench = connection.proxy(Bench)
        self._features = connection.proxy(Features)
        self._kept = ExitStack()
        self._files: dict[int, seqrpc.OwnedFd] = {}

    async def add(self, a: int, b: int) -> int:
        return await self._bench.add(a, b)

    async def record(self, record: Record) -> Record:
        return await self._bench.record(record)

    async def upload(self, data: bytes) -> int:
        return await self._bench.upload(data)

    async def descriptor(self, fd: int) -> int:
        if fd not in self._files:  # as a program would have it that passes a file more than once
            self._files[fd] = self._kept.enter_context(seqrpc.OwnedFd.dup(fd))
        return await self._bench.descriptor(self._files[fd])

    def numbers(self, count: int) -> AsyncIterator[int]:
        return self._bench.numbers(count)

    async def park(self) -> None:
        await self._bench.park()

    async def lone_items(self, count: int) -> list[float]:
        return [(time.monotonic_ns() - sent) / 1e9 async for sent in self._bench.lone_items(count)]

    async def lone_answers(self, count: int) -> list[float]:
        late = []
        for _ in range(count):
            sent = await self._bench.lone_answer()
            late.append((time.monotonic_ns() - sent) / 1e9)
        return late

    def own(self, workload: str) -> Mapping[str, Callable[[], Awaitable[Any]]]:
        if workload == "features":
            return self._own_features()
        if workload == "record-untyped":
            plain = dataclasses.asdict(RECORD)
            return {"": lambda: self._bench.record_untyped(plain)}
        if workload == "buffer-unread":
            return {"1m": self._buffer(MIB, touch=False), "1g": self._buffer(1024 * MIB, touch=False)}
        if workload.startswith("buffer-"):
            size = WORKLOADS[workload].size
            return {"": self._buffer(size, touch=True) if workload.endswith("-again") else self._fresh_buffer(size)}
        raise Unsupported(workload)

    def _buffer(self, size: int, *, touch: bool) -> Callable[[], Awaitable[Any]]:
        """Return a call with a buffer that is filled now and sent again each time."""
        buffer = self._kept.enter_context(seqrpc.Buffer.allocate(size))
        piece = b"x" * MIB
        for offset in range(0, size, MIB):
            buffer[offset : offset + MIB] = piece

        async def call() -> None:
            assert await self._bench.buffer(buffer, touch=touch) == size

        return call

    def _fresh_buffer(self, size: int) -> Callable[[], Awaitable[Any]]:
        """Return a call with a buffer that is made and filled for it."""
        payload = b"x" * size

        async def call() -> None:
            with seqrpc.Buffer.copy_of(payload) as buffer:
                assert await self._bench.buffer(buffer, touch=True) == size

        return call

    def _own_features(self) -> Mapping[str, Callable[[], Awaitable[Any]]]:
        features = self._features

        async def deadline() -> None:
            async with seqrpc.timeout(60):
                await features.add(2, 3)

        async def everything() -> None:
            async with seqrpc.timeout(60):
                await features.add_all(2, 3)

        return {
            "off": lambda: features.add(2, 3),
            "validation": lambda: features.add_checked(2, 3),
            "policy": lambda: features.add_guarded(2, 3),
            "deadline": deadline,
            "on": everything,
        }

    async def close(self) -> None:
        self._kept.close()
        await self._connection.close()


class SeqrpcPeer(Peer):
    """This project."""

    name = "seqrpc"
    requires = ("seqrpc",)
    imports = ("seqrpc.aio.client", "seqrpc.aio.server")  # the package itself loads what is asked for
    distribution = "seqrpc"
    workloads = frozenset(WORKLOADS)

    limits = LIMITS

    def version(self) -> str:
        return f"seqrpc {seqrpc.__version__} ({TWIN})"

    async def serve(self, address: str) -> None:
        async with seqrpc.serve([Bench(), Features()], address, limits=self.limits) as server:
            await server.wait_closed()

    async def connect(self, address: str) -> SeqrpcClient:
        return SeqrpcClient(await seqrpc.connect(address, limits=self.limits))


class PurePeer(SeqrpcPeer):
    """The same without its native part, which is what runs where that cannot be built or used."""

    name = "seqrpc.pure"
    workloads = frozenset(name for name in WORKLOADS if not name.startswith("buffer-"))
    environment = MappingProxyType({"SEQRPC_PURE": "1"})

    def missing(self) -> str | None:
        return f"it is what seqrpc is here: {REASON}" if TWIN == "pure" else super().missing()

    def version(self) -> str:
        return f"seqrpc {seqrpc.__version__} (pure)"


class BusyPollingPeer(SeqrpcPeer):
    """The same with loops that go on looking for packets for a millisecond before they sleep; no default."""

    name = "seqrpc.busy-poll"
    workloads = frozenset({"lone", "record", "in-flight"})
    limits = dataclasses.replace(LIMITS, busy_poll_timeout=0.001)


class UnboundedPeer(SeqrpcPeer):
    """The same with bounds that nothing reaches: what those of the default cost; no default."""

    name = "seqrpc.unbounded"
    workloads = frozenset({"lone", "record", "in-flight", "descriptors", "stream", "upload-1m"})
    limits = dataclasses.replace(LIMITS, **dict.fromkeys(BOUNDS, 1 << 40))
