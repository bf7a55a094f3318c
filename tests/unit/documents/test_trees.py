"""Types as trees, and what methods and parameters say of themselves."""

from __future__ import annotations

import pytest

from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    Bounds,
    Coded,
    Constrained,
    Default,
    Document,
    Field,
    Fields,
    ListOf,
    MapOf,
    Method,
    Param,
    Ref,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
    UnionOf,
)

INT, TEXT = Scalar("int"), Scalar("str")
FIELD = Field(name="a", wire_name="a", type=INT, required=True)


@pytest.mark.parametrize(
    "whole, parts",
    [
        (ListOf("set", INT), (INT,)),
        (TupleOf((INT, TEXT)), (INT, TEXT)),
        (MapOf(TEXT, INT), (TEXT, INT)),
        (UnionOf((INT, TEXT)), (INT, TEXT)),
        (Coded("Path", TEXT), (TEXT,)),
        (StreamOf(INT), (INT,)),
        (Constrained(INT, Bounds(ge=0)), (INT,)),
        (Fields(kind="struct", fields=(FIELD,)), (INT,)),
        (AliasOf(INT), (INT,)),
        (Ref("A"), ()),
        (Anything(), ()),
    ],
)
def test_a_type_has_parts(whole: Type, parts: tuple[Type, ...]) -> None:
    assert whole.parts == parts
    assert whole != INT


def test_a_method_is_of_the_service_before_the_last_dot() -> None:
    method = Method(name="org.example.Logs.follow", params=(), result=None)
    assert (method.service, method.short_name) == ("org.example.Logs", "follow")
    alone = Method(name="follow", params=(), result=None)
    assert (alone.service, alone.short_name) == ("", "follow")
    document = Document(title="", version="0", services=(), methods=(alone, method), interfaces={}, schemas={})
    assert document.methods_of("org.example.Logs") == (method,)


def test_a_default_of_none_is_known_and_none_at_all_is_not() -> None:
    assert Param(name="a", type=INT, required=False, default=Default()).has_default
    assert not Param(name="a", type=INT, required=False).has_default
