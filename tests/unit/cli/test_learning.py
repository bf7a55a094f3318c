"""What the other side says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk, Other

from seqrpc import MethodNotFound, PermissionDenied, RpcError, blocking
from seqrpc.cli.endings import Ending
from seqrpc.cli.learning import by_name, choices, description_if_any, description_of, found, interface_of, item_of
from seqrpc.documents.model import read
from seqrpc.documents.trees import Ref, Scalar, UnionOf
from seqrpc.interface.openrpc import document_of

DOCUMENT = read(document_of([Desk, Other]))
METHODS = by_name(DOCUMENT.methods)


class Answers:
    """Answers every call alike."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def call(self, *_args: Any) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_a_server_is_asked(desk: Path) -> None:
    with blocking.connect(desk) as connection:
        document = description_if_any(connection)
    assert document is not None
    assert [service.name for service in document.services] == ["Desk", "Other"]


def test_who_tells_nothing_is_called_all_the_same() -> None:
    for error in (MethodNotFound("no"), PermissionDenied("no")):
        assert description_if_any(Answers(error)) is None  # type: ignore[arg-type]
    with pytest.raises(RpcError):
        description_if_any(Answers(RpcError("x", code="x.X")))  # type: ignore[arg-type]
    with pytest.raises(Ending, match="the description that came is none: the document"):
        description_of(Answers(7))  # type: ignore[arg-type]


def test_a_method_is_found_by_what_is_typed() -> None:
    assert found("Desk.add", METHODS) == ("Desk.add", METHODS["Desk.add"])
    assert found("add", METHODS) == ("Desk.add", METHODS["Desk.add"])
    assert found("Desk.hidden", METHODS) == ("Desk.hidden", None)
    assert found("add", None) == ("add", None)
    with pytest.raises(Ending, match=r"echo: which of Desk\.echo, Other\.echo") as raised:
        found("echo", METHODS)
    assert raised.value.status == 2
    with pytest.raises(Ending, match=r"no method 'ad'; did you mean 'add'") as raised:
        found("ad", METHODS)
    assert raised.value.status == 3


def test_types_are_told_apart() -> None:
    wait = METHODS["Desk.told"].params[4].type
    assert choices(wait, DOCUMENT) == [Scalar("timedelta"), Scalar("None")]
    looped = {**DOCUMENT.schemas, "Loop": UnionOf((Ref("Loop"), Scalar("int")))}
    assert choices(Ref("Loop"), read_with(looped)) == [Scalar("int")]
    assert item_of(METHODS["Desk.total"].params[0].type, DOCUMENT) == Scalar("int")
    assert item_of(Scalar("int"), DOCUMENT) is None


def read_with(schemas: Any) -> Any:
    return type(DOCUMENT)(title="", version="", services=(), methods=(), interfaces={}, schemas=schemas)


def test_an_object_has_the_methods_that_are_told() -> None:
    methods = interface_of(METHODS["Desk.box"].result, DOCUMENT)
    assert methods is not None
    assert [*methods] == ["Box.look", "Box.put"]
    assert interface_of(METHODS["Desk.add"].result, DOCUMENT) is None
    assert interface_of(None, DOCUMENT) is None
    assert interface_of(METHODS["Desk.box"].result, None) is None


def test_a_type_of_very_many_choices_is_read_in_part() -> None:
    assert len(choices(UnionOf(tuple(Scalar("int") for _ in range(20_000))), DOCUMENT)) < 10_000
