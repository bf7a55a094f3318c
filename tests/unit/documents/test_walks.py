"""Walks over the types of a document."""

from __future__ import annotations

from typing import Any

import pytest
from support.discovered import document, method, ours, param, ref
from support.stubs import document_with

from seqrpc.documents.model import read
from seqrpc.documents.trees import Anything, EnumOf, Fields, Ref, Scalar, Type
from seqrpc.documents.walks import (
    bare,
    changed,
    hashed_in,
    living_in,
    may_be_renamed,
    methods_in,
    resolved,
    types_in,
    with_names,
    without_end,
)

INT = {"type": "integer"}


def of(schema: Any, **schemas: Any) -> Type:
    whole = read(document_with(method("S.f", param("a", schema)), **schemas))
    return whole.methods[0].params[0].type


def test_all_that_is_in_a_type_is_found() -> None:
    schema = {"anyOf": [{"type": "array", "items": INT}, {**INT, "minimum": 0}]}
    assert sum(part == Scalar("int") for part in types_in(of(schema))) == 2
    assert list(types_in(None)) == []


def test_names_and_bounds_are_looked_through() -> None:
    schemas = {"A": ref("B"), "B": {"allOf": [ref("C")], "title": "T"}, "C": INT}
    whole = read(document_with(**schemas))
    assert resolved(Ref("A"), whole.schemas) == Scalar("int")
    assert bare(of({**INT, "minimum": 0, "title": "T"})) == Scalar("int")


def test_methods_are_those_of_services_and_of_objects() -> None:
    names = [one.name.rpartition(".")[2] for one in methods_in(read(document()))]
    assert names == ["follow", "open", "rotate", "vault", "get"]


def test_what_may_hold_streams_or_objects_is_known_through_names() -> None:
    schemas = {
        "A": {"properties": {"b": ref("B")}},
        "B": {"type": "array", "items": ref("C")},
        "C": {"properties": {"s": ours(type="stream", items=INT)}},
        "D": {"properties": {"a": INT, "d": ref("D")}},
    }
    assert living_in(read(document_with(**schemas)).schemas) == {"A", "B", "C"}


def test_what_is_a_key_or_in_a_set_has_to_have_a_hash() -> None:
    keys = {"type": "object", "additionalProperties": ref("Not"), **ours(type="map", keys=ref("Key"))}
    in_set = {"type": "array", "items": ref("In"), **ours(type="set")}
    classes = {name: {"properties": {"a": INT}} for name in ("Not", "Key", "Deep")}
    whole = read(
        document_with(method("S.f", param("a", keys), result=in_set), In={"properties": {"d": ref("Deep")}}, **classes)
    )
    assert hashed_in(whole) == {"Key", "In", "Deep"}


def test_documents_of_seqrpc_have_names_for_all_classes() -> None:
    whole = read(document())
    assert with_names(whole) == whole


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"properties": {"a": INT}, "title": "Pet"}},
        {"type": "object", "additionalProperties": {"properties": {"a": INT}, "title": "Pet"}},
        {"anyOf": [{"properties": {"a": INT}, "title": "Pet"}, {"type": "null"}]},
        {"type": "array", "items": [{"properties": {"a": INT}, "title": "Pet"}], **ours(type="tuple")},
        ours(type="stream", items={"properties": {"a": INT}, "title": "Pet"}),
        {"allOf": [{"properties": {"a": INT}, "title": "Pet"}], **ours(type="coded", **{"class": "C"})},
        {"allOf": [{"type": "array", "items": {"properties": {"a": INT}, "title": "Pet"}}], **ours(sensitive=True)},
    ],
)
def test_classes_of_other_servers_get_names(schema: Any) -> None:
    whole = with_names(read(document_with(method("S.f", param("a", schema), result=schema), Pet=INT)))
    assert [name for name, one in whole.schemas.items() if isinstance(one, Fields)] == ["Pet_2", "Pet_3"]
    assert Ref("Pet_2") in types_in(whole.methods[0].params[0].type)
    assert Ref("Pet_3") in types_in(whole.methods[0].result)


def test_without_a_title_they_are_called_by_where_they_stand() -> None:
    inner = {"enum": ["a"], **ours(type="enum", names=["A"])}
    one = method("S.f", param("a-b", {"properties": {"x": inner}}))
    whole = with_names(read(document_with(one, Outer={"properties": {"y": {"properties": {}}}})))
    assert sorted(whole.schemas) == ["Outer", "Outer_2", "f_a_b", "f_a_b_2"]
    assert isinstance(whole.schemas["f_a_b"], EnumOf)


def test_classes_of_objects_get_names_as_well() -> None:
    interface = {"V": {"name": "V", "methods": [method("V.f", param("a", {"properties": {}, "title": "Pet"}))]}}
    assert "Pet" in with_names(read(document_with(interfaces=interface))).schemas


@pytest.mark.parametrize(
    "name, may_be", [("a", True), ("the-a", True), ("", False), ('a"', False), ("\\", False), ("\n", False)]
)
def test_fields_that_msgspec_cannot_name_make_a_dict_of_the_class(name: str, may_be: bool) -> None:
    assert may_be_renamed(name) is may_be
    schema = {"properties": {name: INT}, **ours(type="struct")}
    made = with_names(read(document_with(A=schema))).schemas["A"]
    assert isinstance(made, Fields)
    assert made.kind == ("struct" if may_be else "typeddict")


def test_a_type_that_does_not_change_is_the_same_object() -> None:
    found = of({"type": "array", "items": INT})
    assert changed(found, lambda part: part) is found
    assert changed(found, lambda _part: Anything()) != found


def test_names_that_lead_to_themselves_are_found() -> None:
    schemas = {
        "A": {"type": "array", "items": ref("A")},
        "B": {"type": "array", "items": ref("A")},
        "C": {"type": "array", "items": ref("D")},
        "D": {"type": "array", "items": INT},
        "E": {"type": "array", "items": ref("F")},
        "F": {"properties": {"e": ref("E")}},
    }
    assert without_end(read(document_with(**schemas)).schemas) == {"A", "B"}
