"""Types that annotations name, for the tests of what is made of annotations."""

from __future__ import annotations

import dataclasses
import enum
import socket
import typing
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec

from seqrpc.aio.channels import Channel, ChannelEnd
from seqrpc.aio.streams import Stream
from seqrpc.interface.conversion import convert
from seqrpc.interface.methods import method
from seqrpc.interface.planning import plan
from seqrpc.interface.service import Service
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, ValueFd, close_all
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import BareValues

T = TypeVar("T")
Short = Annotated[str, msgspec.Meta(max_length=3)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Shape(msgspec.Struct):
    name: str
    sides: int = 4


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    first: int
    second: str = "b"


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


@dataclasses.dataclass
class Holder:
    fd: OwnedFd
    spare: OwnedFd | None = None


class StructHolder(msgspec.Struct):
    fds: list[OwnedFd]


class PairHolder(NamedTuple):
    fd: OwnedFd


class DictHolder(TypedDict):
    fd: OwnedFd


@dataclasses.dataclass
class Mixed:
    source: OwnedFd | str
    name: str = "x"
    tags: list[str] = dataclasses.field(default_factory=list)
    length: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass
class Node:
    source: OwnedFd | str
    next: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Chicken:
    egg: Egg | None


@dataclasses.dataclass
class Egg:
    chicken: Chicken | None
    shell: OwnedFd | int


@dataclasses.dataclass
class Feed:
    """Leads to more of its kind."""

    name: str
    more: AsyncIterator[Feed] | None = None


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Even:
    source: OwnedFd | int

    def __post_init__(self) -> None:
        if isinstance(self.source, int) and self.source % 2:
            raise ValueError("odd")


@dataclasses.dataclass
class Unresolved:
    what: NoSuchName  # type: ignore[name-defined]  # noqa: F821


def converted(value: Any, annotation: Any) -> Any:
    return convert(value, plan(annotation))


class Vault(Service):
    @method
    async def look(self) -> int:
        return 1


class OtherVault(Service):
    @method
    async def look(self) -> int:
        return 2


@dataclasses.dataclass
class DataVault(Service):
    """A service that is a dataclass as well."""

    secret: str

    @method
    async def look(self) -> int:
        return 3


@dataclasses.dataclass
class Everything:
    vault: Vault
    stream: AsyncIterator[int]
    buffer: Buffer | None = None
    view: memoryview | None = None
    data_vaults: list[DataVault] = dataclasses.field(default_factory=list)


class StructOfStreams(msgspec.Struct):
    stream: AsyncIterator[int]
    buffer: Buffer


class StructOfServices(msgspec.Struct):
    vault: Vault


class StructOfDataServices(msgspec.Struct):
    vaults: list[DataVault]


class TypedDictOfServices(TypedDict):
    vault: Vault


@contextmanager
def living_values() -> Iterator[tuple[Stream[Any], Channel, Buffer]]:
    """Return a stream, a channel and a buffer as they come off the wire; nobody is at their other ends."""
    ends = [end for _ in range(2) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    fds = [ValueFd(end.detach()) for end in ends]
    stream: Stream[Any] = Stream(fds[0], ItemReader(Decoder(), 100_000))
    with Buffer.copy_of(b"abc") as buffer:
        try:
            yield stream, Channel(ChannelEnd(fds[2], DEFAULT_LIMITS, lambda _own: BareValues())), buffer
        finally:
            close_all([*fds])


@dataclasses.dataclass
class Clumsy:
    word: str

    def __post_init__(self) -> None:
        self.word.no_such_method()  # type: ignore[attr-defined]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Says which field it does not know."""
