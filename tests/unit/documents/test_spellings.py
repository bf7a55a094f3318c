"""Types and methods as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from support.discovered import document, method, ours, param, ref

from seqrpc.documents.model import read
from seqrpc.documents.raw import Reading
from seqrpc.documents.schemas import SchemaReader
from seqrpc.documents.spellings import default_text, signature, spelled
from seqrpc.documents.trees import Default, Ref

INT, TEXT, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}


@pytest.mark.parametrize(
    "schema, text",
    [
        ({}, "Any"),
        (INT, "int"),
        (
            {"anyOf": [{"type": "object", "additionalProperties": {"type": "array", "items": ref("A")}}, NULL]},
            "dict[str, list[A]] | None",
        ),
        ({"type": "array", "items": INT, **ours(type="set")}, "set[int]"),
        ({"type": "array", "items": INT, **ours(type="tuple")}, "tuple[int, ...]"),
        ({"type": "array", "items": [INT, TEXT], **ours(type="tuple")}, "tuple[int, str]"),
        ({"type": "array", "maxItems": 0, **ours(type="tuple")}, "tuple[()]"),
        ({"enum": ["a", 1, None]}, "Literal['a', 1, None]"),
        ({"enum": list(range(25))}, f"Literal[{', '.join(map(str, range(20)))}, ...]"),
        ({"type": "string", **ours(type="coded", **{"class": "Path"})}, "Path"),
        (ours(type="descriptor"), "OwnedFd"),
        (ours(type="buffer"), "Buffer"),
        (ours(type="memory"), "memoryview"),
        (ours(type="stream", items=ref("A")), "stream of A"),
        (ours(type="object", interface="Vault"), "Vault"),
        ({"not": {}, **ours(type="unset")}, "UnsetType"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 5}, "Annotated[int, Meta(ge=0, lt=5)]"),
        (
            {"type": "string", "pattern": "a\n", **ours(sensitive=True)},
            "Annotated[str, Meta(pattern='a\\n'), SENSITIVE]",
        ),
        ({"type": "string", "title": "a note"}, "str"),
        ({"properties": {"a": INT}}, "dict[str, Any]"),
        ({"properties": {"a": INT}, "title": "Pet"}, "Pet"),
        ({"enum": [1], **ours(type="enum", names=["A"])}, "Any"),
        ({**ours(type="flag", names={"A": 1}), "title": "Mode"}, "Mode"),
    ],
)
def test_types_are_spelled_as_in_python(schema: Any, text: str) -> None:
    assert spelled(SchemaReader(Reading(), {"A": INT}, {"Vault"}).read(schema, "here")) == text


def test_a_name_is_spelled_by_what_it_stands_for_where_it_is_defined() -> None:
    assert spelled(SchemaReader(Reading()).component({"type": "array", "items": INT}, "here")) == "list[int]"
    assert spelled(None) == "None"


def test_signatures_are_those_of_python() -> None:
    assert list(map(signature, read(document()).methods)) == [
        "follow(name: str, /, *, since: datetime | None = None) -> stream of Entry",
        "open(name: Annotated[str, Meta(pattern='^[a-z]+$'), SENSITIVE], colour: Colour = 'red') -> OwnedFd | None",
        "rotate() -> None",
        "vault(pair: Pair, whatever: Any = ...) -> Vault",
    ]
    only = method("a.b", param("x", INT, positional_only=True), result=INT)
    assert signature(read(document(methods=[only])).methods[0]) == "b(x: int, /) -> int"
    assert signature(read(document(methods=[only])).methods[0], 19) == "b(x: int, /) -> int"
    assert signature(read(document(methods=[only])).methods[0], 18) == "b(\n    x: int,\n    /,\n) -> int"


def test_nothing_that_commands_a_terminal_is_written() -> None:
    hostile = method("\x1b[2J.\x1b[2J", param("\u202ex\n", {"enum": ["\x1b"]}), result=INT)
    text = signature(read(document(methods=[hostile])).methods[0])
    assert text.isprintable()
    assert spelled(Ref("\n")) == "\\n"


def test_defaults_are_values_words_or_unknown() -> None:
    assert default_text(None) == "..."
    assert default_text(Default(value=[1, "a"])) == "[1, 'a']"
    assert default_text(Default(words="Path('\x1b')")) == "Path('\\x1b')"
    assert len(default_text(Default(value="x" * 1000))) < 100
