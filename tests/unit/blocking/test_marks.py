"""What is said of the methods of plain interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, assert_type

import pytest
from support.sync import served

import seqrpc
from seqrpc import blocking
from seqrpc.interface.description import describe


class Journal(seqrpc.Service, name="Notes"):
    def __init__(self) -> None:
        self.told: list[str] = []

    @seqrpc.method
    async def read(self) -> list[str]:
        return self.told

    @seqrpc.method(oneway=True)
    async def tell(self, word: str) -> None:
        self.told.append(word)

    @seqrpc.method
    async def follow(self) -> seqrpc.Items[str]:
        raise NotImplementedError


class Notes(Protocol):
    @blocking.method(idempotent=True)
    def read(self) -> list[str]: ...

    @blocking.method(oneway=True)
    def tell(self, word: str) -> None: ...

    @blocking.method(idempotent=True)
    def follow(self) -> Iterator[str]: ...


def test_marks_are_those_of_the_description() -> None:
    methods = describe(Notes).methods
    assert {name for name, method in methods.items() if method.idempotent} == {"read", "follow"}
    assert {name for name, method in methods.items() if method.oneway} == {"tell"}
    assert methods["follow"].streams


def test_marked_functions_stay_what_they_are(socket_path: Path) -> None:
    with served(socket_path, Journal()), blocking.connect(socket_path) as connection:
        notes = connection.proxy(Notes)
        notes.tell("a")
        words = notes.read()
        assert_type(words, list[str])
        assert words == ["a"]


def test_what_it_cannot_mark_is_refused() -> None:
    mark: Any = blocking.method(idempotent=True)
    with pytest.raises(TypeError, match="decorates plain functions, got 5"):
        mark(5)

    async def later() -> None: ...

    with pytest.raises(TypeError, match=r"@seqrpc\.method\(\.\.\.\) says the same"):
        mark(later)
    with pytest.raises(TypeError, match="take one"):
        blocking.method(oneway=True, idempotent=True)
