"""What every peer of the benchmark is made of: a server for a process of its own, and clients for another one.

A peer answers the same methods in its own idiom, written as its users would write them, checks left on that are on
by default, and nothing tuned for a workload. What it cannot do it leaves out of ``workloads``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any, ClassVar


@dataclasses.dataclass
class Record:
    """Twenty fields, as services have them: the argument and the result of ``Client.record``."""

    id: int
    name: str
    title: str
    owner: str
    group: str
    path: str
    size: int
    blocks: int
    mode: int
    links: int
    created: float
    modified: float
    accessed: float
    ratio: float
    hidden: bool
    locked: bool
    tags: list[str]
    scores: list[int]
    labels: dict[str, str]
    parent: int | None


RECORD = Record(
    id=70_001, name="journal", title="The journal of the machine", owner="root", group="adm", path="/var/log/journal",
    size=16_777_216, blocks=32_768, mode=0o640, links=1, created=1.5e9, modified=1.6e9, accessed=1.7e9, ratio=0.25,
    hidden=False, locked=True, tags=["logs", "system", "daily"], scores=[3, 1, 4, 1, 5, 9, 2, 6],
    labels={"host": "alpha", "unit": "journald"}, parent=None,
)  # fmt: skip


class Unsupported(Exception):
    """This peer, or this machine, cannot do what was asked; the text says why."""


class Client:
    """One connection, used by one event loop. Methods a peer lacks stay as they are here."""

    async def add(self, a: int, b: int) -> int:
        """The sum, computed by the server: the plain call of ``lone``, ``in-flight`` and ``connections``."""
        raise Unsupported("add")

    async def record(self, record: Record) -> Record:
        """The record sent back whole; peers without dataclasses send and return what they have (a dict, a message)."""
        raise Unsupported("record")

    async def upload(self, data: bytes) -> int:
        """The length of ``data`` as the server holds it: whole, in one object, as bytes."""
        raise Unsupported("upload")

    async def descriptor(self, fd: int) -> int:
        """Pass an open file; the server owns it, takes its size with ``fstat``, closes it and returns the size."""
        raise Unsupported("descriptor")

    def numbers(self, count: int) -> AsyncIterator[int]:
        """0 to ``count`` - 1, each an item of a stream that the server produces with an async generator or its like."""
        raise Unsupported("numbers")

    async def park(self) -> None:
        """A call that the server holds without an answer until this connection ends (memory per call in flight)."""
        raise Unsupported("park")

    def own(self, workload: str) -> Mapping[str, Callable[[], Awaitable[Any]]]:
        """The calls of a workload that has no method above, because hardly another peer could take part: by variant."""
        raise Unsupported(workload)

    async def lone_items(self, count: int) -> list[float]:
        """Seconds from the producer's yield, after a pause, until the reader has the item."""
        raise Unsupported("lone_items")

    async def lone_answers(self, count: int) -> list[float]:
        """Seconds from the handler's return, after a pause, until the caller has the answer."""
        raise Unsupported("lone_answers")

    async def close(self) -> None:
        """End the connection; calls that wait may fail with whatever the peer raises."""


def absent(modules: Sequence[str]) -> str | None:
    """Say which of these modules cannot be imported, or return None."""
    names = [name for name in modules if not _is_there(name)]
    return f"{', '.join(names)} is not installed" if names else None


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


def version_of(distribution: str | None) -> str | None:
    """Return the name and version of a package, None if there is none to be named."""
    if distribution is None:
        return None
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return f"{distribution}, not installed"


class Peer(ABC):
    """A way to call another process. Instances hold no state; ``serve`` and ``connect`` run in different processes."""

    name: ClassVar[str]
    """As in ``--only``: ``grpc.aio``."""
    requires: ClassVar[Sequence[str]] = ()
    """Modules it needs from the extra ``seqrpc[bench]``."""
    imports: ClassVar[Sequence[str]] = ()
    """Modules that its users import, for ``import``, where that is not ``requires``."""
    distribution: ClassVar[str | None] = None
    """The package whose version is printed, if it has one."""
    workloads: ClassVar[frozenset[str]] = frozenset()
    """Those it takes part in, by name (``benchmarks.workloads``)."""
    environment: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What its processes have in their environment, besides what there is."""
    uvloop: ClassVar[bool] = True
    """Whether both processes run on uvloop, where its users would; else asyncio's own loop."""

    def missing(self) -> str | None:
        """Why it must be left out on this machine, or None; asked before it has processes, and not in them."""
        return absent(self.requires)

    def version(self) -> str | None:
        """Return which version of what this is, or None if that has none."""
        return version_of(self.distribution)

    @abstractmethod
    async def serve(self, address: str) -> None:
        """Serve at ``address``, a path for a Unix socket in a directory of its own, until cancelled (SIGTERM)."""

    @abstractmethod
    async def connect(self, address: str) -> Client:
        """A new connection of its own, not one of a pool. The server may still be starting: then it raises OSError."""


class BlockingPeer(ABC):
    """As ``Peer``, for what has no event loop: calls are made by plain functions, those in flight by sending ahead."""

    name: ClassVar[str]
    requires: ClassVar[Sequence[str]] = ()
    imports: ClassVar[Sequence[str]] = ()
    distribution: ClassVar[str | None] = None
    workloads: ClassVar[frozenset[str]] = frozenset()
    environment: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def missing(self) -> str | None:
        """As that of ``Peer``."""
        return absent(self.requires)

    def version(self) -> str | None:
        """As that of ``Peer``."""
        return version_of(self.distribution)

    @abstractmethod
    def serve(self, address: str) -> None:
        """Serve at ``address`` until the process is killed."""

    @abstractmethod
    def connect(self, address: str) -> BlockingClient:
        """As ``Peer.connect``."""


class BlockingClient:
    """As ``Client``; ``add_many`` keeps up to ``in_flight`` calls under way on this one connection."""

    def add(self, a: int, b: int) -> int:
        raise Unsupported("add")

    def add_one_by_one(self, calls: int) -> float:
        """The seconds that so many calls of ``add`` take, one after the other."""
        start = time.perf_counter()
        for _ in range(calls):
            assert self.add(2, 3) == 5
        return time.perf_counter() - start

    def add_many(self, calls: int, in_flight: int) -> None:
        raise Unsupported("add_many")

    def record(self, record: Record) -> Record:
        raise Unsupported("record")

    def upload(self, data: bytes) -> int:
        raise Unsupported("upload")

    def descriptor(self, fd: int) -> int:
        raise Unsupported("descriptor")

    def numbers(self, count: int) -> Sequence[int]:
        raise Unsupported("numbers")

    def close(self) -> None: ...
