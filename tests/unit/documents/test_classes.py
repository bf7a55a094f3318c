"""Classes of documents as code."""

from __future__ import annotations

from typing import Any

import pytest
from support.discovered import method, ours, param, ref
from support.stubs import body_of, document_with, module_of, stub_of

from seqrpc.errors import RpcError

INT, TEXT, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}


def a_class(kind: str, *required: str, more: Any = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **ours(type=kind, **(more or {}))}


def a_tuple(kind: str, least: int, more: Any = None, **items: Any) -> dict[str, Any]:
    names = {"array": True, "fields": list(items), **(more or {})}
    return {"type": "array", "items": list(items.values()), "minItems": least, **ours(type=kind, **names)}


def written(*methods: dict[str, Any], **schemas: Any) -> str:
    """Return the classes of a document, and run its stub."""
    text = stub_of(document_with(*methods, **schemas))
    with module_of(text):
        return body_of(text)


@pytest.mark.parametrize(
    "schema, code",
    [
        ({"enum": [1, 2], "description": "All.", **ours(type="enum", names=["ONE", "TWO"])},
         'class A(enum.Enum):\n    """All."""\n\n    ONE = 1\n    TWO = 2'),
        ({"enum": ["x"], **ours(type="enum", names=["mro"])}, 'class A(enum.Enum):\n    MEMBER = "x"'),
        (ours(type="flag", names={"R": 1}), "class A(enum.Flag):\n    R = 1"),
        (ours(type="intflag", names={"R": 1}), "class A(enum.IntFlag):\n    R = 1"),
        (ours(type="flag", names={}), "class A(enum.Flag):\n    pass"),
        (a_class("dataclass"), "@dataclasses.dataclass\nclass A:\n    pass"),
        ({**a_class("attrs"), "description": "All."}, '@dataclasses.dataclass\nclass A:\n    """All."""'),
        (a_class("dataclass", "x", x=INT, y={**INT, "default": 1}),
         "@dataclasses.dataclass\nclass A:\n    x: int\n    y: int = 1"),
        (a_class("dataclass", "y", x={**INT, "default": 1}, y=INT),
         "@dataclasses.dataclass(kw_only=True)\nclass A:\n    x: int = 1\n    y: int"),
        (a_class("dataclass", x={**INT, **ours(default="secrets()")}), "@dataclasses.dataclass\nclass A:\n    x: int"),
        (a_class("dataclass", x={"type": "array", "items": INT, "default": [], **ours(factory=True)}),
         "@dataclasses.dataclass\nclass A:\n    x: list[int] = dataclasses.field(default_factory=list[int])"),
        (a_class("dataclass", x={"type": "array", "items": INT, "default": [1]}),
         "@dataclasses.dataclass\nclass A:\n    x: list[int] = dataclasses.field(default_factory=lambda: [1])"),
        (a_class("dataclass", x={"type": "array", "items": INT, "default": [], **ours(type="set")}),
         "@dataclasses.dataclass\nclass A:\n    x: set[int] = dataclasses.field(default_factory=lambda: set())"),
        (a_class("dataclass", more={"no_init": ["x"]}, x=INT, y={**INT, "default": 1}),
         "@dataclasses.dataclass\nclass A:\n    x: int = dataclasses.field(init=False)\n    y: int = 1"),
        (a_class("dataclass", more={"no_init": ["x"]}, x={**INT, "default": 1}),
         "@dataclasses.dataclass\nclass A:\n    x: int = dataclasses.field(init=False, default=1)"),
        (a_class("dataclass", "class", **{"class": INT}),
         'class A(msgspec.Struct, rename={"class_": "class"}):\n    class_: int'),
        (a_class("struct", "x", x=INT), "class A(msgspec.Struct):\n    x: int"),
        (a_class("struct", "the-x", more={"names": {"the-x": "x"}}, **{"the-x": INT}),
         'class A(msgspec.Struct, rename={"x": "the-x"}):\n    x: int'),
        (a_class("struct", more={"tag": {"field": "type", "value": "A"}, "forbid_unknown": True}),
         'class A(msgspec.Struct, tag="A", forbid_unknown_fields=True):\n    pass'),
        (a_class("struct", more={"tag": {"field": "kind", "value": 5}}),
         'class A(msgspec.Struct, tag=5, tag_field="kind"):\n    pass'),
        (a_class("struct", x={"type": "object", "additionalProperties": INT, "default": {}, **ours(factory=True)}),
         "class A(msgspec.Struct):\n    x: dict[str, int] = {}"),
        (a_tuple("struct", 1, x=INT, y={**INT, "default": 1}),
         "class A(msgspec.Struct, array_like=True):\n    x: int\n    y: int = 1"),
        (a_tuple("struct", 1, **{"the-x": INT}),
         'class A(msgspec.Struct, array_like=True, rename={"the_x": "the-x"}):\n    the_x: int'),
        (a_tuple("struct", 1, **{'"': INT}), "class A(msgspec.Struct, array_like=True):\n    field: int"),
        (a_tuple("namedtuple", 1, a=INT, b={**TEXT, "default": "b"}),
         'class A(typing.NamedTuple):\n    a: int\n    b: str = "b"'),
        (a_tuple("namedtuple", 0, a={**INT, "default": 1}, b={**INT, **ours(default="x")}),
         "class A(typing.NamedTuple):\n    a: int\n    b: int"),
        (a_tuple("namedtuple", 1, _a=INT, **{"1": INT}),
         "class A(typing.NamedTuple):\n    field_a: int\n    field_1: int"),
        (a_tuple("namedtuple", 0, a={"type": "array", "items": INT, "default": [], **ours(factory=True)}),
         "class A(typing.NamedTuple):\n    a: list[int] = list[int]()"),
        (a_class("typeddict", "x", x=INT, y=INT),
         "class A(typing.TypedDict):\n    x: int\n    y: typing.NotRequired[int]"),
        (a_class("typeddict", "the-x", y=ref("A"), **{"the-x": INT}),
         'A = typing.TypedDict("A", {"y": typing.NotRequired["A"], "the-x": int})'),
        ({"type": "array", "items": ref("A")}, 'A: typing.TypeAlias = list["A"]'),
    ],
)  # fmt: skip
def test_each_kind_of_class_is_written(schema: dict[str, Any], code: str) -> None:
    assert written(A=schema) == code


def test_what_is_in_sets_or_is_a_default_does_not_change() -> None:
    in_set = {"type": "array", "items": ref("A"), **ours(type="set")}
    text = written(
        method("S.f", param("a", in_set)),
        A=a_class("dataclass", "x", x=INT),
        B=a_class("struct", x={"allOf": [ref("C")], "default": {"y": 1}}),
        C=a_class("struct", "y", y=INT),
    )
    assert "@dataclasses.dataclass(frozen=True)\nclass A:" in text
    assert "class C(msgspec.Struct, frozen=True):" in text
    assert text.index("class C(") < text.index("class B(")
    assert "    x: C = C(y=1)" in text


def test_defaults_that_need_each_other_are_left_out_where_they_have_to_be() -> None:
    text = written(
        A=a_class("struct", x={"allOf": [ref("B")], "default": {}}),
        B=a_class("struct", y={"allOf": [ref("A")], "default": {}}),
    )
    assert "    y: A\n" in f"{text}\n"
    assert text.index("class B(") < text.index("class A(")


def test_names_of_other_types_come_after_what_they_stand_for() -> None:
    text = written(A=ref("C"), B=ref("A"), C={"type": "array", "items": ref("B")}, D=ref("E"), E=a_class("struct"))
    assert text.split("\n\n\n")[-1].split("\n") == [
        'C: typing.TypeAlias = list["B"]',
        "A: typing.TypeAlias = C",
        "B: typing.TypeAlias = A",
        "D: typing.TypeAlias = E",
    ]


def test_classes_with_streams_are_there_twice() -> None:
    text = written(A=a_class("struct", "s", s=ours(type="stream", items=INT)), B={"type": "array", "items": ref("A")})
    assert "class A(msgspec.Struct):\n    s: collections.abc.AsyncIterator[int]" in text
    assert "class BlockingA(msgspec.Struct):\n    s: seqrpc.blocking.Stream[int]" in text
    assert 'B: typing.TypeAlias = list["A"]\nBlockingB: typing.TypeAlias = list["BlockingA"]' in text


def failing(*codes: str) -> dict[str, Any]:
    errors = [{"code": 1, "message": code, "data": {"description": f"It is {code}."}} for code in codes]
    return method("S.f", result=NULL, errors=errors)


def test_errors_are_classes_with_their_codes() -> None:
    text = stub_of(
        document_with(
            failing("bank.Insufficient", "shop.Insufficient", "x.y-z", "rpc.PermissionDenied", "rpc.Later", "")
        )
    )
    head = 'class Insufficient(seqrpc.RpcError, code="bank.Insufficient", shared=True):'
    assert f'{head}\n    """It is bank.Insufficient."""' in text
    assert 'class Insufficient_2(seqrpc.RpcError, code="shop.Insufficient", shared=True):' in text
    assert 'class y_z(seqrpc.RpcError, code="x.y-z", shared=True):' in text
    assert "    @seqrpc.method(errors=[Insufficient, Insufficient_2, y_z, seqrpc.PermissionDenied])" in text
    assert "    @seqrpc.blocking.method(errors=[Insufficient, Insufficient_2, y_z, seqrpc.PermissionDenied])" in text
    with module_of(text) as module:
        assert module.Insufficient("none left").code == "bank.Insufficient"


def test_two_stubs_and_the_daemon_s_own_code_may_have_the_same_error() -> None:
    class Spent(RpcError, code="bank.Spent"):
        """As the daemon has it."""

    text = stub_of(document_with(failing("bank.Spent")))
    with module_of(text, "one_stub") as one, module_of(text, "other_stub") as other:
        for cls in (Spent, one.Spent, other.Spent):
            with pytest.raises(cls):
                raise RpcError.from_wire("bank.Spent", "all of it", None)


def test_an_enum_of_numbers_or_texts_is_one_unless_it_hides_what_these_have() -> None:
    text = written(
        A={"enum": [1], **ours(type="intenum", names=["ONE"])},
        B={"enum": ["a"], **ours(type="strenum", names=["A"])},
        C={"enum": ["a"], **ours(type="strenum", names=["title"])},
        D={"enum": [1], **ours(type="enum", names=["ONE"])},
    )
    for head in ("class A(enum.IntEnum):", "class B(enum.StrEnum):", "class C(enum.Enum):", "class D(enum.Enum):"):
        assert head in text


def test_a_field_is_none_that_is_not_given_also_where_its_type_has_none() -> None:
    text = written(A=a_class("dataclass", x={**INT, "default": None}))
    assert "    x: int = typing.cast(typing.Any, None)" in text


def test_a_field_that_is_called_like_a_type_hides_nothing() -> None:
    schema = a_class(
        "dataclass", "list", "datetime", list={"type": "array", "items": INT}, datetime={**TEXT, "format": "date"}
    )
    text = stub_of(document_with(A=schema))
    assert "    list: builtins.list[int]\n    datetime: _datetime.date" in text
    with module_of(text) as module:
        assert module.A([1], None).list == [1]


def test_a_method_that_is_called_like_a_type_has_nothing_imported_that_is_not_used() -> None:
    named = [method(f"S.{name}", result=NULL) for name in ("set", "list", "dict")]
    text = stub_of(document_with(*named, A=a_class("dataclass", x={**INT, "default": 1})))
    assert "builtins" not in text
    several = {"type": "array", "items": TEXT, **ours(type="set")}
    for default, written_as in (
        ({"default": [], **ours(type="set", factory=True)}, "x: builtins.set[str] = builtins.set()"),
        ({"default": ["a"]}, 'x: builtins.set[str] = msgspec.field(default_factory=lambda: {"a"})'),
    ):
        text = stub_of(document_with(*named, A=a_class("struct", x={**several, **default})))
        assert written_as in text
        with module_of(text) as module:
            assert module.A().x is not module.A().x
