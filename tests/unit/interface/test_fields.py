"""Fields of classes of all kinds."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, NotRequired, TypedDict

import attr
import attrs
import msgspec
import pytest
from support.sources import module_of

from seqrpc.interface.fields import fields_of, kind_of
from seqrpc.interface.shapes import Field, Kind


@dataclasses.dataclass
class Data:
    plain: int
    constant: ClassVar[int] = 1
    defaulted: int = 5
    made: list[int] = dataclasses.field(default_factory=list)
    later: int = dataclasses.field(init=False)


class Struct(msgspec.Struct, rename="camel"):
    plain_field: int
    defaulted: int = 5
    made: list[int] = []
    named: int = msgspec.field(name="a-b", default=1)


@attrs.define
class Attrs:
    _private: int
    defaulted: int = 5
    made: list[int] = attrs.Factory(list)
    own: int = attrs.field(default=attrs.Factory(lambda self: self._private, takes_self=True))
    called: int = attrs.field(alias="other", default=0)
    later: int = attrs.field(init=False, default=7)


@attr.s
class OldAttrs:
    plain = attr.ib()  # type: ignore[var-annotated]


class Pair(NamedTuple):
    first: int
    second: int = 2


class Typed(TypedDict):
    there: int
    perhaps: NotRequired[int]


def told(field: Field) -> tuple[Any, ...]:
    return (field.name, field.wire_name, field.is_required, field.init_name)


@pytest.mark.parametrize(
    "cls, kind, fields",
    [
        (
            Data,
            Kind.DATACLASS,
            [
                ("plain", "plain", True, "plain"),
                ("defaulted", "defaulted", False, "defaulted"),
                ("made", "made", False, "made"),
                ("later", "later", False, None),
            ],
        ),
        (
            Struct,
            Kind.STRUCT,
            [
                ("plain_field", "plainField", True, "plain_field"),
                ("defaulted", "defaulted", False, "defaulted"),
                ("made", "made", False, "made"),
                ("named", "a-b", False, "named"),
            ],
        ),
        (
            Attrs,
            Kind.ATTRS,
            [
                ("_private", "_private", True, "private"),
                ("defaulted", "defaulted", False, "defaulted"),
                ("made", "made", False, "made"),
                ("own", "own", False, "own"),
                ("called", "called", False, "other"),
                ("later", "later", False, None),
            ],
        ),
        (OldAttrs, Kind.ATTRS, [("plain", "plain", True, "plain")]),
        (Pair, Kind.NAMED_TUPLE, [("first", "first", True, "first"), ("second", "second", False, "second")]),
    ],
)
def test_fields_have_names_on_the_wire_and_in_the_constructor(cls: Any, kind: Kind, fields: list[Any]) -> None:
    assert kind_of(cls) is kind
    assert list(map(told, fields_of(cls, kind))) == fields


def test_of_a_typed_dict_the_keys_are_known() -> None:
    module = module_of("""
        from typing import NotRequired, Required, TypedDict
        class Whole(TypedDict):
            there: int
            perhaps: NotRequired[int]
        class Part(Whole, total=False):
            also: int
            surely: Required[int]
        Written = TypedDict("Written", {"a-b": int, "class": NotRequired[str]})
    """)
    assert kind_of(Typed) is kind_of(module.Part) is Kind.TYPED_DICT
    assert {one.name: one.is_required for one in fields_of(module.Part, Kind.TYPED_DICT)} == {
        "there": True,
        "perhaps": False,
        "also": False,
        "surely": True,
    }
    assert {one.wire_name: one.is_required for one in fields_of(module.Written, Kind.TYPED_DICT)} == {
        "a-b": True,
        "class": False,
    }


@pytest.mark.parametrize("thing", [int, dict, tuple, Data(1), "Data", None, list[int], type("Plain", (), {})])
def test_what_has_no_fields_is_of_no_kind(thing: Any) -> None:
    assert kind_of(thing) is None


def test_defaults_are_kept() -> None:
    for cls, kind in ((Data, Kind.DATACLASS), (Struct, Kind.STRUCT), (Attrs, Kind.ATTRS)):
        fields = {one.name: one for one in fields_of(cls, kind)}
        assert fields["defaulted"].default == 5
        assert fields["made"].default_factory() == []
        assert fields["made"].default is msgspec.NODEFAULT
    own = fields["own"]
    assert (own.default, own.default_factory, own.is_required) == (msgspec.NODEFAULT, msgspec.NODEFAULT, False)


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_what_no_object_has_is_no_field(future: str) -> None:
    module = module_of(f"""
        {future}
        import dataclasses
        from dataclasses import InitVar
        @dataclasses.dataclass
        class One:
            x: int
            given: InitVar[int] = 5
        @dataclasses.dataclass
        class Other(One):
            y: dataclasses.InitVar[str] = ""
    """)
    for cls in (module.One, module.Other):
        with pytest.raises(
            TypeError, match=rf"{cls.__name__}.given is an InitVar, which no object has: make it a field"
        ):
            fields_of(cls, Kind.DATACLASS)
