"""Types as people read them."""

from __future__ import annotations

import io

from seqrpc.cli.definitions import write_type
from seqrpc.cli.screen import Screen
from seqrpc.documents.trees import (
    AliasOf,
    Bounds,
    Constrained,
    Default,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    Ref,
    Scalar,
    Tag,
    Type,
)

INT = Scalar("int")


def written(kind: Type, name: str = "A") -> str:
    out = io.StringIO()
    write_type(Screen(out, io.StringIO()), name, kind)
    return out.getvalue()


def test_fields() -> None:
    told = Constrained(INT, Bounds(description="How many.\nOr so.", ge=1))
    fields = (
        Field(name="x", wire_name="x", type=told, required=True),
        Field(name="y", wire_name="Y", type=INT, required=False, default=Default(value=2)),
        Field(name="z", wire_name="z", type=INT, required=False, in_init=False),
    )
    kind = Fields(kind="struct", fields=fields, description="It is.", is_array=True, forbids_unknown=True)
    assert written(kind) == (
        "A, a Struct\n    It is.\n    on the wire an array of its fields; fields that it does not have are an error\n\n"
        "    x: Annotated[int, Meta(ge=1)]\n        How many.\n        Or so.\n"
        "    y: int = 2  # 'Y' on the wire\n    z: int = ...  # not an argument of the constructor\n"
    )
    assert written(Fields(kind="attrs", fields=(), tag=Tag("kind", "a"))) == (
        "A, a class of attrs\n    on the wire its 'kind' is 'a'\n"
    )


def test_enums_and_flags() -> None:
    assert written(EnumOf(members=(("A", 1),), description="Some.")) == "A, an enum\n    Some.\n\n    A = 1\n"
    assert written(FlagOf(members=(("R", 1), ("W", 2)))) == "A, flags\n    R = 1\n    W = 2\n"


def test_aliases() -> None:
    assert written(AliasOf(ListOf("list", Ref("A")))) == "A = list[A]\n"
    assert written(AliasOf(Constrained(INT, Bounds(description="A number.")))) == "A = int\n    A number.\n"
    assert written(INT) == "A = int\n"


def test_what_came_from_elsewhere_is_escaped() -> None:
    evil = "\x1b[2J\u202e"
    field = Field(name=evil, wire_name="\x07", type=Ref(evil), required=True)
    kinds = [
        Fields(kind="dataclass", fields=(field,), description=evil, tag=Tag(evil, evil)),
        EnumOf(members=((evil, evil),), description=evil),
        AliasOf(Constrained(Ref(evil), Bounds(description=evil))),
    ]
    for kind in kinds:
        text = written(kind, evil)
        assert all(line.isprintable() for line in text.splitlines())
        assert "\\x1b[2J" in text
