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
from seqrpc.interface.shapes import ServiceObject


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


def test_errors_are_declared_as_for_services() -> None:
    class Gone(seqrpc.RpcError, code="test_marks.Gone"):
        pass

    class Interface(Protocol):
        @blocking.method(errors=[Gone])
        def read(self) -> list[str]: ...

    assert describe(Interface).methods["read"].errors == (Gone,)
    for errors, oneway, message in (
        ([Gone], True, r"^@seqrpc\.blocking\.method: nobody hears of the errors of what is oneway="),
        ([ValueError], False, r"^@seqrpc\.blocking\.method: errors= takes subclasses of seqrpc\.RpcError, got"),
    ):
        with pytest.raises(TypeError, match=message):
            blocking.method(oneway=oneway, errors=errors)  # type: ignore[arg-type] # that is the point


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


class Lamp(blocking.Interface, name="org.example.Lamp"):
    @blocking.method(idempotent=True)
    def changes(self, wanted: Iterator[str]) -> Iterator[bool]:
        raise NotImplementedError

    def unmarked(self) -> None: ...


class Lamps(blocking.Interface):
    @blocking.method()
    def lamp(self) -> Lamp:
        raise NotImplementedError


def test_an_interface_has_a_name_of_its_own_and_plain_streams() -> None:
    described = describe(Lamp)
    assert described.name == "org.example.Lamp"
    assert list(described.methods) == ["changes"]
    changes = described.methods["changes"]
    assert (changes.streams, changes.idempotent, changes.parameters[0].is_stream) == (True, True, True)


def test_objects_are_described_by_an_interface() -> None:
    shape = describe(Lamps).methods["lamp"].result.shape
    assert isinstance(shape, ServiceObject)
    assert shape.annotation is Lamp
