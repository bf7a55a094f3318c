"""The lines on a page that call methods do so, on a command line and in Python, if a server is what was described."""

from __future__ import annotations

import datetime as dt
import enum
import shlex
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest
from support.sync import served

import seqrpc
from seqrpc import blocking
from seqrpc.cli.commands import run
from seqrpc.documents.model import read
from seqrpc.documents.recipes import Recipes
from seqrpc.documents.trees import Method
from seqrpc.interface.openrpc import document_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mode(enum.Flag):
    READ = 2
    WRITE = 4


class Circle(msgspec.Struct, tag=True):
    radius: Annotated[float, msgspec.Meta(gt=2)]
    label: str = ""


class Square(msgspec.Struct, tag=True):
    side: int


class Pair(NamedTuple):
    first: str
    second: int = 0


@dataclass
class Tree:
    name: str
    children: list[Tree]
    parent: Tree | None = None


class Watcher(seqrpc.Service):
    @seqrpc.method
    async def changed(self, what: str) -> None: ...


class Everything(seqrpc.Service):
    @seqrpc.method
    async def texts(self, a: str, b: Literal["x", "y"], c: Path, d: uuid.UUID, e: Decimal) -> None: ...

    @seqrpc.method
    async def times(self, a: dt.datetime, b: dt.date, c: dt.time, d: dt.timedelta) -> None: ...

    @seqrpc.method
    async def numbers(
        self, a: int, b: float, c: bool, d: None, e: Annotated[int, msgspec.Meta(ge=10, le=99, multiple_of=7)]
    ) -> None: ...

    @seqrpc.method
    async def many(
        self, a: list[int], b: set[str], c: tuple[int, str], d: dict[str, float], e: dict[int, int]
    ) -> None: ...

    @seqrpc.method
    async def objects(self, a: Circle | Square, b: Pair, c: Colour, d: Mode, e: list[Circle]) -> None: ...

    @seqrpc.method
    async def data(self, a: bytes, b: list[bytes], c: dict[str, bytearray]) -> None: ...

    @seqrpc.method
    async def open_files(self, a: seqrpc.OwnedFd, b: list[seqrpc.OwnedFd]) -> None: ...

    @seqrpc.method
    async def memory(self, a: seqrpc.Buffer, b: memoryview) -> None: ...

    @seqrpc.method
    async def stream(self, a: seqrpc.Items[str]) -> int:
        return len([one async for one in a])

    @seqrpc.method
    async def items(self, a: int) -> AsyncIterator[int]:
        yield a

    @seqrpc.method
    async def positional(self, a: int, /, b: str) -> None: ...

    @seqrpc.method
    async def keywords(self, *, a: int, b: str = "x") -> None: ...

    @seqrpc.method
    async def anything(self, a: Any) -> None: ...

    @seqrpc.method(oneway=True)
    async def tell(self, a: str) -> None: ...

    @seqrpc.method
    async def watch(self, a: Watcher) -> None: ...

    @seqrpc.method
    async def trees(self, a: Tree) -> None: ...


TOLD = read(document_of(Everything))

METHODS = {method.short_name: method for method in TOLD.methods}


@pytest.fixture
def address(socket_path: Path) -> Iterator[Path]:
    """Return where everything is served."""
    with served(socket_path, Everything()):
        yield socket_path


@pytest.mark.parametrize("method", [method for name, method in METHODS.items() if name not in ("watch", "trees")])
def test_the_line_of_the_command_line_calls(
    address: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], method: Method
) -> None:
    (tmp_path / "file").write_text("one\ntwo\n")
    line = Recipes(TOLD.schemas, str(address)).command_line(method)
    assert line is not None
    program, *words = shlex.split(line.replace("FILE", str(tmp_path / "file")))
    status = run(words)
    assert (program, status, capfd.readouterr().err) == ("seqrpc", 0, ""), line


@pytest.mark.parametrize("method", [method for name, method in METHODS.items() if name != "trees"])
def test_the_line_of_python_calls(address: Path, tmp_path: Path, method: Method) -> None:
    (tmp_path / "file").write_text("one\ntwo\n")
    line = Recipes(TOLD.schemas, str(address)).python(method, "connection", is_async=False)
    with (
        open(tmp_path / "file", "rb") as file,
        seqrpc.Buffer.copy_of(b"data") as buffer,
        blocking.connect(address) as connection,
    ):
        names = {"connection": connection, "file": file, "buffer": buffer, "items": lambda: iter("ab")}
        result = eval(line, {**names, "service": Watcher()})
        if isinstance(result, blocking.Stream):
            with result:
                result = [*result]
    assert result == {"stream": 2, "items": [1]}.get(method.short_name)


def test_what_has_itself_in_it_is_left_to_the_reader() -> None:
    recipes = Recipes(TOLD.schemas, "ADDRESS")
    assert recipes.python(METHODS["trees"], "connection", is_async=True) == (
        "await connection.call('Everything.trees', a={'name': '...', 'children': [...]})"
    )
