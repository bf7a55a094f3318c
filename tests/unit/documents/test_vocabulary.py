"""What things are called in stubs."""

from __future__ import annotations

from typing import Any

import pytest
from support.discovered import method, ours, param, ref
from support.stubs import document_with

from seqrpc.documents.layout import flat
from seqrpc.documents.model import read
from seqrpc.documents.trees import AliasOf
from seqrpc.documents.vocabulary import Side, Vocabulary, json_node

INT, TEXT = {"type": "integer"}, {"type": "string"}


def spelled(schema: Any, side: Side = Side.ASYNC, *, quoted: bool = False, **schemas: Any) -> str:
    classes = {"A": {"properties": {}}, "Living": {"properties": {"s": ours(type="stream")}}, **schemas}
    whole = read(
        document_with(method("S.f", param("a", schema)), interfaces={"V": {"name": "V", "methods": []}}, **classes)
    )
    vocabulary = Vocabulary(whole)
    for one in Side:
        vocabulary.objects["V", one] = f"{one.value}V"
    return flat(vocabulary.node(whole.methods[0].params[0].type, side, quoted=quoted))


@pytest.mark.parametrize(
    "schema, text",
    [
        ({}, "typing.Any"),
        ({"type": "null"}, "None"),
        (INT, "int"),
        ({**TEXT, **ours(type="bytearray")}, "bytearray"),
        ({**TEXT, "format": "date-time"}, "datetime.datetime"),
        ({**TEXT, "format": "uuid"}, "uuid.UUID"),
        ({**TEXT, "format": "decimal"}, "decimal.Decimal"),
        (ours(type="unset"), "msgspec.UnsetType"),
        ({"enum": ["a", 1, None, True]}, 'typing.Literal["a", 1, None, True]'),
        ({"type": "array", "items": INT}, "list[int]"),
        ({"type": "array", "items": INT, **ours(type="frozenset")}, "frozenset[int]"),
        ({"type": "array", "items": INT, **ours(type="tuple")}, "tuple[int, ...]"),
        ({"type": "array", "items": [INT, TEXT], **ours(type="tuple")}, "tuple[int, str]"),
        ({"type": "array", "maxItems": 0, **ours(type="tuple")}, "tuple[()]"),
        ({"type": "object", "additionalProperties": INT}, "dict[str, int]"),
        ({"anyOf": [INT, {"type": "null"}]}, "int | None"),
        ({**TEXT, **ours(type="coded", **{"class": "Path"})}, "pathlib.Path"),
        ({**TEXT, **ours(type="coded", **{"class": "IPv6Network"})}, "ipaddress.IPv6Network"),
        ({**INT, **ours(type="coded", **{"class": "Money"})}, "int"),
        (ours(type="descriptor"), "seqrpc.OwnedFd"),
        (ours(type="buffer"), "seqrpc.Buffer"),
        (ours(type="memory"), "memoryview"),
        (ref("A"), "A"),
        (ours(type="object", interface="V"), "asyncV"),
        (ours(type="stream", items=INT), "collections.abc.AsyncIterator[int]"),
        ({**INT, "minimum": 0, "title": 'a "t"'}, "typing.Annotated[int, msgspec.Meta(ge=0, title='a \"t\"')]"),
        ({**TEXT, **ours(sensitive=True)}, "typing.Annotated[str, seqrpc.SENSITIVE]"),
        ({**INT, "examples": [[1], {"a": None}]}, 'typing.Annotated[int, msgspec.Meta(examples=[[1], {"a": None}])]'),
    ],
)
def test_types_are_spelled_with_their_modules(schema: Any, text: str) -> None:
    assert spelled(schema) == text


def test_a_stream_is_another_thing_to_those_who_block() -> None:
    stream = ours(type="stream", items=ours(type="object", interface="V"))
    assert spelled(stream, Side.GIVEN) == "collections.abc.Iterator[givenV]"
    assert spelled(stream, Side.TAKEN) == "seqrpc.blocking.Stream[takenV]"
    assert spelled(ref("Living"), Side.TAKEN) == "BlockingLiving"
    assert spelled(ref("A"), Side.TAKEN) == "A"


def test_what_is_read_at_once_names_no_class_that_may_come_later() -> None:
    union = {"anyOf": [ref("A"), {"type": "array", "items": ref("A")}]}
    assert spelled(union, quoted=True) == 'typing.Union["A", list["A"]]'


def names_of(*methods: dict[str, Any], **schemas: Any) -> Vocabulary:
    return Vocabulary(read(document_with(*methods, **schemas)))


def test_what_is_called_like_an_attribute_has_another_name() -> None:
    vocabulary = names_of(
        method("S.list"), method("S.typing"), method("S.Entry"), Entry={"properties": {"_typing": INT}}
    )
    assert vocabulary.builtin("list") == "builtins.list"
    assert vocabulary.builtin("dict") == "dict"
    assert vocabulary.module("typing") == "_typing_"
    assert vocabulary.module("collections.abc") == "collections.abc"
    assert vocabulary.imports() == ["import builtins", "import collections.abc", "import typing as _typing_"]
    assert vocabulary.seen(vocabulary.class_of("Entry")) == "_Entry"
    assert vocabulary.also("Entry") == ["", "", "_Entry = Entry"]
    assert vocabulary.also("Other") == []


def test_modules_with_dots_have_one_name_then() -> None:
    vocabulary = names_of(method("S.seqrpc"), method("S.collections"))
    assert vocabulary.module("collections.abc") == "_collections_abc"
    assert vocabulary.module("seqrpc.blocking") == "_seqrpc_blocking"
    assert vocabulary.module("seqrpc") == "_seqrpc"
    assert vocabulary.imports() == [
        "import collections.abc as _collections_abc",
        "",
        "import seqrpc as _seqrpc",
        "import seqrpc.blocking as _seqrpc_blocking",
    ]


def test_no_class_is_called_like_what_is_needed() -> None:
    empty: dict[str, Any] = {"properties": {}}
    vocabulary = names_of(**dict.fromkeys(("list", "typing", "NotImplementedError", "A.b", "1", "_x", "__y"), empty))
    classes = {name: vocabulary.class_of(name) for name in vocabulary.document.schemas}
    assert classes == {
        "list": "list_2",
        "typing": "typing_2",
        "NotImplementedError": "NotImplementedError_2",
        "A.b": "A_b",
        "1": "_1",
        "_x": "_x",
        "__y": "y",
    }


def test_a_type_without_room_gets_a_name_once() -> None:
    vocabulary = names_of(method("S.f", param("a", {"enum": ["a" * 20, "b" * 20]})))
    found = vocabulary.document.methods[0].params[0].type
    assert vocabulary.annotation(found, Side.ASYNC, 100, "f", "a").startswith("typing.Literal[")
    assert vocabulary.annotation(found, Side.ASYNC, 50, "f", "since_when") == "FSinceWhen"
    assert vocabulary.annotation(found, Side.ASYNC, 50, "g") == "FSinceWhen"
    assert list(vocabulary.alias_lines()) == [
        f'FSinceWhen: typing.TypeAlias = typing.Literal["{"a" * 20}", "{"b" * 20}"]'
    ]


def test_a_name_like_an_attribute_gets_a_second_one() -> None:
    vocabulary = names_of(method("S.Json"), Json={"type": "array", "items": ref("Json")})
    schema = vocabulary.document.schemas["Json"]
    assert isinstance(schema, AliasOf)
    node = vocabulary.node(schema, Side.ASYNC, quoted=True)
    assert list(vocabulary.alias("Json", node)) == ['Json: typing.TypeAlias = list["_Json"]', "_Json = Json"]


def test_values_of_json_are_written_as_ruff_writes_them() -> None:
    assert flat(json_node({"a": [1, 1e300, True, None, "x"]})) == '{"a": [1, 1e300, True, None, "x"]}'
