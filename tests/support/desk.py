"""Services of all sorts for the tests of the command line, which are served in threads and by ``seqrpc serve``."""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import seqrpc
from seqrpc import policy


class Empty(seqrpc.RpcError, code="desk.Empty"):
    """There is nothing in it."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Bits(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: int = 0
    data: bytes = b""


class Box(seqrpc.Service):
    """A box."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._content = ""

    @seqrpc.method
    async def put(self, text: str) -> None:
        """Put something in."""
        self._content = text

    @seqrpc.method
    async def look(self) -> str:
        """Return what is in it."""
        if not self._content:
            raise Empty(f"the box {self._name} is empty")
        return self._content


class Desk(seqrpc.Service):
    """A desk.

    It has boxes.
    """

    def __init__(self) -> None:
        self.hints: list[int] = []

    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> int:
        """Return the sum.

        Both are numbers.
        """
        return a + b

    @seqrpc.method
    async def echo(self, value: str) -> str:
        """Return the same."""
        return value

    @seqrpc.method
    async def anything(self, value: Any) -> Any:
        return value

    @seqrpc.method
    async def told(
        self,
        colour: Colour = Colour.RED,
        bits: Bits = Bits.READ,
        *,
        point: Point | None = None,
        when: datetime | None = None,
        wait: timedelta | None = None,
        path: Path | None = None,
        numbers: list[int] | None = None,
        names: dict[int, str] | None = None,
        tags: set[str] | None = None,
        pair: tuple[int, str] | None = None,
        data: bytes = b"",
        either: int | str = 0,
        ratio: float = 0.0,
        yes: bool = False,
    ) -> str:
        """Return what came, as Python writes it."""
        return repr((colour, bits, point, when, wait, path, numbers, names, tags, pair, data, either, ratio, yes))

    @seqrpc.method
    async def box(self, name: str) -> Box:
        """Return a box."""
        return Box(name)

    @seqrpc.method
    async def maybe(self) -> Box | None:
        """Return no box."""
        return None

    @seqrpc.method
    async def blob(self, size: int) -> bytes:
        return b"x" * size

    @seqrpc.method
    async def memory(self, size: int) -> seqrpc.Buffer:
        return seqrpc.Buffer.copy_of(b"m" * size)

    @seqrpc.method
    async def size(self, data: bytes) -> int:
        return len(data)

    @seqrpc.method
    async def count(self, until: int) -> AsyncIterator[int]:
        """Count."""
        for number in range(until):
            yield number

    @seqrpc.method
    async def forever(self) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.001)

    @seqrpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        """Return the sum of a stream."""
        return sum([number async for number in numbers])

    @seqrpc.method
    async def loud(self, lines: AsyncIterator[str]) -> AsyncIterator[str]:
        """Return lines, louder."""
        async for line in lines:
            yield line.upper()

    @seqrpc.method
    async def open(self, path: str) -> seqrpc.OwnedFd:
        """Return an open file."""
        return seqrpc.OwnedFd(os.open(path, os.O_RDONLY))

    @seqrpc.method
    async def files(self, paths: list[str]) -> dict[str, seqrpc.OwnedFd]:
        return {path: seqrpc.OwnedFd(os.open(path, os.O_RDONLY)) for path in paths}

    @seqrpc.method
    async def length(self, file: seqrpc.OwnedFd) -> int:
        """Return how long a file is."""
        with file.open("rb") as opened:
            return len(opened.read())

    @seqrpc.method
    async def held(self, memory: seqrpc.Buffer) -> int:
        return len(memory)

    @seqrpc.method
    async def write(self, file: seqrpc.OwnedFd, text: str) -> None:
        with file.open("w") as opened:
            opened.write(text)

    @seqrpc.method
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @seqrpc.method(oneway=True)
    async def hint(self, number: int) -> None:
        self.hints.append(number)

    @seqrpc.method(allow=policy.uid(4_000_000_000))
    async def secret(self) -> None:
        """Do what nobody may have done."""

    @seqrpc.method
    async def fail(self) -> None:
        raise Empty("nothing there")

    @seqrpc.method
    async def fail_with(self, data: Any) -> None:
        raise Empty("nothing there", data)


class Other(seqrpc.Service):
    """Another service, which has a method of the same name."""

    @seqrpc.method
    async def echo(self, value: int) -> int:
        return value

    @seqrpc.method
    async def only(self) -> None: ...


def both() -> list[seqrpc.Service]:
    return [Desk(), Other()]
